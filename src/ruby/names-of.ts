/** The names that a script defines and uses. */
import { isNode, type SyntaxNode } from "./opal.ts";

const DEFINITIONS = new Set(["def", "defs", "class", "module", "casgn"]);

export interface Names {
  /** Of classes, modules, constants and methods. */
  readonly defined: ReadonlySet<string>;
  /** Of constants and methods. */
  readonly used: ReadonlySet<string>;
}

export function namesOf(tree: SyntaxNode): Names {
  const defined = new Set<string>();
  const used = new Set<string>();
  for (const node of nodesOf(tree)) {
    const type = node.$type();
    const name = DEFINITIONS.has(type) ? definedBy(node) : node.$children()[1];
    if (typeof name !== "string") continue;
    if (DEFINITIONS.has(type)) defined.add(name);
    else if (type === "const" || type === "send") used.add(name);
  }
  return { defined, used };
}

function definedBy(node: SyntaxNode): unknown {
  const [first, second] = node.$children();
  switch (node.$type()) {
    case "def":
      return first;
    case "class":
    case "module":
      return (first as SyntaxNode).$children()[1];
    default:
      return second;
  }
}

/** All nodes but the argument of `defined?`. */
export function* nodesOf(node: SyntaxNode): Generator<SyntaxNode> {
  if (node.$type() === "defined?") return;
  yield node;
  for (const child of node.$children()) if (isNode(child)) yield* nodesOf(child);
}
