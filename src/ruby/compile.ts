/**
 * Ruby to JavaScript. The worker that reads the sources of a generation compiles them; the other workers get the result.
 */
import { LoadError, type LoadFailure } from "../handler/load-failure.ts";
import { type LineMap, lineMapOf } from "./line-map.ts";
import { type LibraryClass, LIBRARY_CLASSES, librarySources } from "./library.ts";
import { findUnsupported } from "./unsupported.ts";
import { namesOf } from "./names-of.ts";
import { isNode, newCompiler, type SyntaxNode } from "./opal.ts";

/** A script, ready to be run; plain data, it travels between threads. */
export interface RubyScript {
  readonly path: string;
  /** An expression: a function of Opal and `self`. */
  readonly code: string;
  readonly map: LineMap;
  /** The methods that it calls, for Opal to make errors of those that do not exist. */
  readonly calls: string;
  /** Its global variables, without the `$`. */
  readonly globals: readonly string[];
  /** The constants that it sets. */
  readonly constants: readonly string[];
  /** Classes of the library that it uses and does not define: then it runs in a thread of its own. */
  readonly uses: readonly LibraryClass[];
  /** Names of classes, modules and methods that it defines. */
  readonly defined: readonly string[];
  /** Names of constants and methods that it uses. */
  readonly used: readonly string[];
}

/**
 * @param path of the script, for its errors
 * @throws LoadError
 */
export async function compileRuby(path: string, source: string): Promise<RubyScript> {
  const text = source.replace(/^\uFEFF/, "");
  const astral = new AstralCharacters(text);
  const compiler = await newCompiler(astral.hide(text), { file: path, eval: true, arity_check: true });
  const parse = compiler.$parse.bind(compiler);
  compiler.$parse = () => {
    parse();
    compiler.sexp = interpolateWithToS(compiler.sexp);
  };
  let code: string;
  try {
    code = compiler.$compile();
  } catch (error) {
    throw new LoadError(syntaxFailure(path, error), error);
  }
  const unsupported = findUnsupported(compiler.sexp);
  if (unsupported !== null) throw new LoadError({ file: path, ...unsupported }, undefined);
  const { defined, used } = namesOf(compiler.sexp);
  const map = lineMapOf(compiler.$fragments());
  const calls = /^ *Opal\.add_stubs\('([^']*)'\);$/m.exec(code);
  return {
    path,
    // The script is called here, with the state of its connection. The calls keep their line, or later places would be
    // wrong.
    code: astral
      .show(code)
      .replace(/\(Opal, self\);?\s*$/, "")
      .replace(calls?.[0] ?? "", ""),
    map,
    calls: calls?.[1] ?? "",
    globals: namesIn(code, /\$gvars(?:\.([\w$]+)|\["([^"\]]+)"\])/g),
    constants: namesIn(code, /\$const_set\(\$nesting\[0\], '(\w+)'/g),
    uses: LIBRARY_CLASSES.filter((name) => used.has(name) && !defined.has(name)),
    defined: [...defined],
    used: [...used],
  };
}

/** The sources of classes of the library. */
export async function compileLibrary(names: readonly LibraryClass[]): Promise<RubyScript[]> {
  const scripts: RubyScript[] = [];
  for (const [path, text] of librarySources(names)) scripts.push(await compileRuby(path, text));
  return scripts;
}

/** Opal interpolates as JavaScript does, which shows a Time in words of its own. */
function interpolateWithToS(node: SyntaxNode): SyntaxNode {
  const inner = node.$children().map((child) => (isNode(child) ? interpolateWithToS(child) : child));
  const isText = node.$type() === "dstr" || node.$type() === "dsym";
  const shown = inner.map((child) =>
    isText && isNode(child) && child.$type() !== "str" ? child.$updated("send", [child, "to_s"]) : child,
  );
  return node.$updated(node.$type(), shown);
}

/**
 * Opal's lexer counts characters where JavaScript counts UTF-16 units: behind a character of two units it takes the wrong
 * text. While Opal compiles, each such character is replaced by a single unit that the source does not have.
 */
class AstralCharacters {
  readonly #stands = new Map<string, string>();

  constructor(text: string) {
    let next = 0xe000;
    for (const [character] of text.matchAll(/[\u{10000}-\u{10ffff}]/gu)) {
      if (this.#stands.has(character)) continue;
      while (text.includes(String.fromCharCode(next))) next += 1;
      this.#stands.set(character, String.fromCharCode(next++));
    }
  }

  hide(text: string): string {
    return this.#stands.size === 0
      ? text
      : text.replace(/[\u{10000}-\u{10ffff}]/gu, (character) => this.#stands.get(character)!);
  }

  show(code: string): string {
    for (const [character, stand] of this.#stands) code = code.replaceAll(stand, character);
    return code;
  }
}

function namesIn(code: string, pattern: RegExp): string[] {
  return [...new Set([...code.matchAll(pattern)].map((match) => match[1] ?? match[2]!))];
}

/** Opal tells the line in the backtrace alone. */
export function syntaxFailure(file: string, error: unknown): LoadFailure {
  const { message, stack } = error as Error;
  const line = new RegExp(`${RegExp.escape(file)}:(\\d+)`).exec(stack ?? "")?.[1];
  return { file, line: Number(line ?? 0), column: 0, message: message.split("\n")[0]! };
}
