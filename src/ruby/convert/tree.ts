/** Questions to the syntax tree of a script. */
import { isNode, type SyntaxNode } from "../opal.ts";

/** Whether it is that constant, such as `Pmilter::Session`. */
export function isConstant(node: SyntaxNode, ...path: string[]): boolean {
  if (node.$type() !== "const") return false;
  const [scope, name] = node.$children();
  if (name !== path.at(-1)) return false;
  const outer = path.slice(0, -1);
  return isNode(scope) && scope.$type() !== "cbase" ? isConstant(scope, ...outer) : outer.length === 0;
}

/** Without the parentheses around it. */
export function inner(node: SyntaxNode): SyntaxNode {
  const [only, ...more] = node.$children();
  return node.$type() === "begin" && more.length === 0 && isNode(only) ? inner(only) : node;
}

/** Its text in the script. */
export function sourceOf(node: SyntaxNode): string {
  const location = node.$location() as { $expression(): { $source(): string } };
  return location.$expression().$source();
}

/** Whether `Pmilter.status=` comes only where nothing follows in the script. */
export function givesLast(node: SyntaxNode): boolean {
  const children = node.$children().filter(isNode);
  switch (node.$type()) {
    case "begin":
      return children.every((child, index) =>
        index === children.length - 1 ? givesLast(child) : !givesSomewhere(child),
      );
    case "if":
      return children.slice(1).every(givesLast) && !givesSomewhere(children[0]!);
    case "case":
    case "when":
      return (
        children
          .slice(0, -1)
          .every((child) => (child.$type() === "when" ? givesLast(child) : !givesSomewhere(child))) &&
        givesLast(children.at(-1)!)
      );
    case "block":
      // The block of a lock is a block of TypeScript, too.
      return children[0]!.$children()[1] === "try_lock_loop" && children.slice(1).every(givesLast);
    case "kwbegin":
    case "ensure":
      return givesLast(children[0]!) && children.slice(1).every((child) => !givesSomewhere(child));
    case "send":
      return children.every((child) => !givesSomewhere(child));
    default:
      return !givesSomewhere(node);
  }
}

function givesSomewhere(node: SyntaxNode): boolean {
  if (node.$type() === "send" && node.$children()[1] === "status=") return true;
  return node.$children().some((child) => isNode(child) && givesSomewhere(child));
}
