/** `Mutex`, `Cache`, `File` and `IO` in a script's tree: what is certain enough to be written in TypeScript. */
import { isNode, type SyntaxNode } from "../opal.ts";
import { inner, isConstant, sourceOf } from "./tree.ts";

/** Functions of node:fs and node:path for methods with paths alone. */
export const FILE_READERS: Readonly<
  Record<string, { readonly module: string; readonly name: string; readonly type: "string" | "boolean" }>
> = {
  exist: { module: "node:fs", name: "existsSync", type: "boolean" },
  read: { module: "node:fs", name: "readFileSync", type: "string" },
  basename: { module: "node:path", name: "basename", type: "string" },
  dirname: { module: "node:path", name: "dirname", type: "string" },
  extname: { module: "node:path", name: "extname", type: "string" },
  join: { module: "node:path", name: "join", type: "string" },
};

export function childrenOf(node: SyntaxNode): SyntaxNode[] {
  return node.$type() === "begin" ? node.$children().filter(isNode) : [node];
}

/** The receiver, name and arguments of a call; null for another node. */
export function callOf(node: unknown): { receiver: SyntaxNode; name: string; args: SyntaxNode[] } | null {
  if (!isNode(node) || node.$type() !== "send") return null;
  const [receiver, name, ...args] = node.$children();
  return isNode(receiver) ? { receiver, name: name as string, args: args.filter(isNode) } : null;
}

/** A new object of a class. */
export function isNew(node: unknown, name: string): boolean {
  const call = callOf(node);
  return call?.name === "new" && isConstant(call.receiver, name);
}

/** The name of a pool in `Cache.new :namespace => "name"`; null if it is not written there. */
export function poolName(node: SyntaxNode): string | null {
  const [options] = callOf(node)!.args;
  if (options === undefined) return null;
  for (const pair of options.$children().filter(isNode)) {
    const [key, value] = pair.$children() as [SyntaxNode, SyntaxNode];
    const isName = ["namespace", "filename"].includes(String(key.$children()[0]));
    if (isName) return value.$type() === "str" ? String(value.$children()[0]) : null;
  }
  return null;
}

/** The statements of a lock's block without the `unlock` at its end; null if it is not there, or elsewhere as well. */
export function underLock(body: unknown, isUnlock: (node: SyntaxNode) => boolean): SyntaxNode[] | null {
  if (!isNode(body)) return null;
  const only = body.$type() === "kwbegin" ? body.$children().find(isNode) : inner(body);
  let statements: SyntaxNode[];
  if (only?.$type() === "ensure") {
    const [work, ensured] = only.$children();
    if (!isNode(ensured) || !isUnlock(ensured)) return null;
    statements = isNode(work) ? childrenOf(work) : [];
  } else {
    statements = childrenOf(body);
    const last = statements.at(-1);
    if (last === undefined || !isUnlock(last)) return null;
    statements = statements.slice(0, -1);
  }
  return statements.some((statement) => contains(statement, isUnlock)) ? null : statements;
}

export function contains(node: SyntaxNode, test: (node: SyntaxNode) => boolean): boolean {
  return test(node) || node.$children().some((child) => isNode(child) && contains(child, test));
}

/**
 * The counter in `n = cache[key].to_i + 1` and `cache[key] = n.to_s` behind it; null for other statements. It is one
 * operation of the store.
 */
export function counterIn(
  first: SyntaxNode,
  second: SyntaxNode | undefined,
  isCache: (node: SyntaxNode) => boolean,
): { variable: string; cache: SyntaxNode; key: SyntaxNode; by: SyntaxNode } | null {
  if (first.$type() !== "lvasgn" || second === undefined) return null;
  const [variable, sum] = first.$children();
  const plus = callOf(sum);
  const number = callOf(plus?.receiver);
  const read = callOf(number?.receiver);
  const written = callOf(second);
  const text = callOf(written?.args[1]);
  if (plus?.name !== "+" || plus.args[0]?.$type() !== "int" || number?.name !== "to_i") return null;
  if (read === null || !["[]", "get"].includes(read.name) || !isCache(read.receiver)) return null;
  if (written === null || !["[]=", "set"].includes(written.name) || !isCache(written.receiver)) return null;
  const [key] = read.args;
  if (key === undefined || sourceOf(key) !== sourceOf(written.args[0]!)) return null;
  if (sourceOf(read.receiver) !== sourceOf(written.receiver)) return null;
  const isWhole = text?.name === "to_s" && text.receiver.$type() === "lvar";
  if (!isWhole || text.receiver.$children()[0] !== variable) return null;
  return { variable: variable as string, cache: read.receiver, key, by: plus.args[0] };
}

/** A class whose objects hold what they are given, and have methods without arguments. */
export interface SmallClass {
  readonly parameters: readonly string[];
  /** The values of instance variables. */
  readonly variables: ReadonlyMap<string, SyntaxNode>;
  readonly methods: ReadonlyMap<string, SyntaxNode>;
}

/** Null if it is larger: then it is left to a person. */
export function smallClass(node: SyntaxNode): SmallClass | null {
  const [, parent, body] = node.$children();
  if (isNode(parent) || !isNode(body)) return null;
  const methods = new Map<string, SyntaxNode>();
  const variables = new Map<string, SyntaxNode>();
  let parameters: string[] = [];
  for (const member of childrenOf(body)) {
    if (member.$type() !== "def") return null;
    const [name, args, code] = member.$children() as [string, SyntaxNode, unknown];
    const list = args.$children().filter(isNode);
    if (list.some((arg) => arg.$type() !== "arg") || !isNode(code)) return null;
    if (name !== "initialize") {
      if (list.length > 0 || !isPlain(code)) return null;
      methods.set(name, code);
      continue;
    }
    parameters = list.map((arg) => arg.$children()[0] as string);
    for (const statement of childrenOf(code)) {
      const [variable, value] = statement.$children();
      if (statement.$type() !== "ivasgn" || !isNode(value)) return null;
      if (value.$type() !== "lvar" && value.$type() !== "str" && !isNew(value, "Cache")) return null;
      variables.set(variable as string, value);
    }
  }
  return { parameters, variables, methods };
}

function isPlain(code: SyntaxNode): boolean {
  return !contains(code, (node) => ["ivasgn", "return", "self", "block", "yield"].includes(node.$type()));
}

/** The statements of a method, with the object's variables in place; null if a name has no value. */
export function inlined(small: SmallClass, method: string, args: readonly SyntaxNode[]): SyntaxNode[] | null {
  const code = small.methods.get(method);
  // What is given is written down for each use: it must not do anything.
  const arePlain = args.every((arg) => ["lvar", "str", "int"].includes(arg.$type()));
  if (code === undefined || args.length !== small.parameters.length || !arePlain) return null;
  const values = new Map<string, SyntaxNode>();
  for (const [variable, value] of small.variables) {
    const at = value.$type() === "lvar" ? small.parameters.indexOf(value.$children()[0] as string) : -1;
    if (value.$type() === "lvar" && at === -1) return null;
    values.set(variable, at === -1 ? value : args[at]!);
  }
  let isWhole = true;
  const replaced = (node: SyntaxNode): SyntaxNode => {
    if (node.$type() === "ivar") {
      const value = values.get(node.$children()[0] as string);
      isWhole &&= value !== undefined;
      return value ?? node;
    }
    return node.$updated(
      node.$type(),
      node.$children().map((child) => (isNode(child) ? replaced(child) : child)),
    );
  };
  const statements = childrenOf(replaced(code));
  return isWhole ? statements : null;
}
