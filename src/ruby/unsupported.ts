/**
 * Things that Ruby handlers could do in the original and cannot do here, each with its counterpart in TypeScript.
 * `docs/from-the-original.md` lists the same.
 */
import { namesOf, nodesOf } from "./names-of.ts";
import { isNode, type Opal, type SyntaxNode } from "./opal.ts";

/** Methods called without a receiver. */
export const METHODS: Readonly<Record<string, string>> = {
  require: "import the package in a TypeScript handler",
  require_relative: "import the module in a TypeScript handler",
  load: "import the module in a TypeScript handler",
  autoload: "import the module in a TypeScript handler",
  open: "use File.open",
  gets: "a handler has no standard input",
  system: "use Bun.spawn() in a TypeScript handler, and await it",
  exec: "use Bun.spawn() in a TypeScript handler, and await it",
  spawn: "use Bun.spawn() in a TypeScript handler, and await it",
  fork: "use Bun.spawn() in a TypeScript handler, and await it",
  sleep:
    "use await Bun.sleep() in a TypeScript handler: here it would block every session of the worker; a script with a Mutex may use it",
  eval: "write the code into the handler",
  exit: "a handler cannot end the server; use return to end the script",
  abort: "a handler cannot end the server; use return to end the script",
  at_exit: "use handler.config.master_exit_handler",
};

/** Classes of mruby and of its gems. */
export const CONSTANTS: Readonly<Record<string, string>> = {
  Dir: "use node:fs in a TypeScript handler",
  ENV: "use process.env in a TypeScript handler",
  Process: "use process, or Bun.spawn(), in a TypeScript handler",
  Socket: "use Bun.connect() in a TypeScript handler",
  BasicSocket: "use Bun.connect() in a TypeScript handler",
  IPSocket: "use Bun.connect() in a TypeScript handler",
  TCPSocket: "use Bun.connect() in a TypeScript handler",
  TCPServer: "use Bun.connect() in a TypeScript handler",
  UDPSocket: "use Bun.udpSocket() in a TypeScript handler",
  UNIXSocket: "use Bun.connect() in a TypeScript handler",
  UNIXServer: "use Bun.connect() in a TypeScript handler",
  Addrinfo: "use node:dns in a TypeScript handler",
  HttpRequest: "use fetch() in a TypeScript handler, and await it",
  SimpleHttp: "use fetch() in a TypeScript handler, and await it",
  Redis: "use Bun.redis in a TypeScript handler, and await it",
  Memcached: "import a package in a TypeScript handler",
  MySQL: "use Bun.SQL in a TypeScript handler, and await it",
  SQLite3: "use bun:sqlite in a TypeScript handler",
  JSON: "use JSON.parse() in a TypeScript handler",
  Digest: "use Bun.CryptoHasher in a TypeScript handler",
  Fiber: "write an async TypeScript handler",
  Thread: "write an async TypeScript handler",
  ObjectSpace: "there is no counterpart",
};

/** Methods of `IO` that its counterpart here has not. */
export const IO_METHODS: Readonly<Record<string, string>> = {
  popen: "use Bun.spawn() in a TypeScript handler, and await it",
  pipe: "there is no counterpart",
  select: "write an async TypeScript handler",
  sysopen: "use File.open",
  for_fd: "use File.open",
};
const IO_CLASSES = new Set(["IO", "File"]);

/** Methods that change a string in place. */
export const MUTATORS: Readonly<Record<string, string>> = {
  "<<": "write s += other",
  concat: "write s += other",
  "[]=": "make a new string, with sub",
  insert: "make a new string, with slices",
  prepend: "write s = other + s",
  replace: "write s = other",
  clear: 'write s = ""',
  setbyte: "make a new string",
  ...Object.fromEntries(
    ["capitalize", "chomp", "chop", "downcase", "gsub", "lstrip", "next", "reverse", "rstrip", "slice", "squeeze"]
      .concat(["strip", "sub", "succ", "swapcase", "tr", "tr_s", "upcase", "delete"])
      .map((name) => [`${name}!`, `write s = s.${name}(…)`]),
  ),
};

const IN_TYPESCRIPT = "in TypeScript, strings are the same and have +=, replace() and slice()";
const PAGE = "docs/from-the-original.md";

export interface Unsupported {
  readonly line: number;
  readonly column: number;
  readonly message: string;
}

/** The first construct of a script that cannot run here, or null. A name that may be defined elsewhere does not count. */
export function findUnsupported(tree: SyntaxNode): Unsupported | null {
  const { defined: own, used } = namesOf(tree);
  const maySleep = used.has("Mutex") && !own.has("Mutex");
  for (const node of nodesOf(tree)) {
    const [first, name] = node.$children();
    const isBare = !isNode(first) || BARE.has(first.$type()) || first.$children()[1] === "Kernel";
    const receiver = isNode(first) && first.$type() === "const" ? (first.$children()[1] as string) : "";
    let found: [construct: string, way: string | undefined] | null = null;
    if (node.$type() === "xstr") found = ["a command in backticks", METHODS["system"]];
    else if (node.$type() === "send" && IO_CLASSES.has(receiver) && !own.has(receiver)) {
      found = [`${receiver}.${String(name)}`, IO_METHODS[name as string]];
    } else if (typeof name !== "string" || own.has(name) || !isBare) continue;
    else if (name === "sleep" && maySleep) continue;
    else if (node.$type() === "send") found = [name, METHODS[name]];
    else if (node.$type() === "const") found = [name, CONSTANTS[name]];
    if (found?.[1] === undefined) continue;
    return { ...placeOf(node), message: `${found[0]} cannot be used in a Ruby handler here: ${found[1]} (${PAGE})` };
  }
  return null;
}

/** Receivers that are as good as none. */
const BARE = new Set(["cbase", "self"]);

/** From 1; 0 if the node has none. */
export function placeOf(node: SyntaxNode): { line: number; column: number } {
  const location = node.$location() as { $line(): unknown; $column(): unknown };
  const line = location.$line();
  const column = location.$column();
  return typeof line === "number" && typeof column === "number" ? { line, column: column + 1 } : { line: 0, column: 0 };
}

/** Strings cannot be changed in place: makes each try an error that says so. */
export function refuseMutation(opal: Opal): void {
  for (const [name, way] of Object.entries(MUTATORS)) {
    opal.defn(opal.String, `$${name}`, () => {
      const message = `String#${name} would change a string in place, which a Ruby handler here cannot do: ${way}; ${IN_TYPESCRIPT} (${PAGE})`;
      throw opal.Object.$$const["NotImplementedError"]!.$new(message);
    });
  }
}
