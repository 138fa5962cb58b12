/**
 * Opal, as far as it is used here: its runtime, which every worker with a Ruby handler loads, and its compiler, which only
 * the thread that reads the sources needs. Both are loaded at their first use, so other threads do not pay for them.
 */

/** A Ruby object; methods are functions under `$` and their name. */
export type RubyObject = Readonly<Record<string, (...args: unknown[]) => unknown>>;
/** A Ruby class or module. */
export interface RubyModule {
  readonly $$const: Record<string, RubyModule>;
  readonly $new: (...args: unknown[]) => unknown;
  readonly $$is_a_module?: boolean;
}
type Method = (this: never, ...args: never[]) => unknown;

export interface Opal {
  readonly nil: unknown;
  /** `self` of a script. */
  top: object;
  readonly gvars: Record<string, unknown>;
  readonly Object: RubyModule;
  readonly Kernel: RubyModule;
  readonly String: RubyModule;
  readonly Time: RubyModule;
  /** The exception of a `return` outside of methods. */
  readonly t_eval_return: unknown;
  klass(scope: RubyModule, superclass: RubyModule, name: string): RubyModule;
  /** Defines a method; its name begins with `$`. */
  defn(module: RubyModule, name: string, method: Method): void;
  /** Defines a method of the object itself. */
  defs(object: RubyModule, name: string, method: Method): void;
  const_set(scope: RubyModule, name: string, value: unknown): void;
  const_remove(scope: RubyModule, name: string): void;
  add_stubs(names: string): void;
  hash(object: object): RubyObject;
  require(name: string): void;
}

/** Whether it is a string of Ruby. */
export function isText(value: unknown): boolean {
  return (value as { readonly $$is_string?: boolean }).$$is_string === true;
}

/** The runtime of this thread. */
export async function loadRuntime(): Promise<Opal> {
  await import("opal-runtime/src/opal.js");
  // Opal's exceptions are JavaScript's errors, and it makes nil the default of their message. Other code of the thread has
  // them, too.
  Object.assign(Error.prototype, { message: "" });
  return (globalThis as unknown as { readonly Opal: Opal }).Opal;
}

/** The syntax tree of the text, before the compiler rewrites it; the source has to compile. */
export async function parseRuby(path: string, text: string): Promise<SyntaxNode> {
  const opal = await loadRuntime();
  const { Parser } = opal.Object.$$const["Opal"]!.$$const as Record<string, RubyModule & RubyObject>;
  const parser = Parser!["$default_parser"]!() as Record<string, (...args: unknown[]) => unknown>;
  parser["$rewrite"] = (tree) => tree;
  const buffer = Parser!.$$const["SourceBuffer"]!.$new(path, 1) as RubyObject;
  buffer["$source="]!(text);
  return parser["$parse"]!(buffer) as SyntaxNode;
}

/** The options of `Opal::Compiler`. */
export interface Compiler {
  /** Sets `sexp`, the syntax tree. */
  $parse(): unknown;
  /** Parses, and makes code of the tree. */
  $compile(): string;
  $fragments(): readonly CodeFragment[];
  sexp: SyntaxNode;
}

/** A node of the parser gem's trees; the gem's documentation lists the types. */
export interface SyntaxNode {
  $type(): string;
  /** Nodes, names, values, nil. */
  $children(): readonly unknown[];
  /** Nil for a node that the compiler has made up. */
  $location(): unknown;
  /** The same node with other contents. */
  $updated(type: string, children: readonly unknown[]): SyntaxNode;
}

/** Nil is asked by its contents: it has, like all of Opal, a stub of every method that is called anywhere. */
export function isNode(value: unknown): value is SyntaxNode {
  return typeof value === "object" && value !== null && Object.hasOwn(value, "children") && "$updated" in value;
}

/** A piece of the generated code, and where in the source it comes from; nil if it comes from nowhere. */
export interface CodeFragment {
  $code(): string;
  $line(): unknown;
  $column(): unknown;
}

/** A compiler for a source. Compile before scripts run in this thread: they change how strings are shown. */
export async function newCompiler(source: string, options: object): Promise<Compiler> {
  const opal = await loadRuntime();
  if ("Pmilter" in opal.Object.$$const) throw new Error("scripts run in this thread: it cannot compile any more");
  await import("opal-compiler/src/opal-builder.js");
  opal.require("corelib/string/unpack");
  opal.require("opal/compiler");
  const { Compiler } = opal.Object.$$const["Opal"]!.$$const;
  return Compiler!.$new(source, opal.hash(options)) as Compiler;
}
