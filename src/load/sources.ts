/**
 * A snapshot of the sources of all handlers: read once, and then the only source that the workers of a generation load
 * from, also when the files on disk change. It has the handlers and their imports, code, JSON, TOML and text alike;
 * packages (`node_modules`) and CommonJS modules are left to Bun's own loader.
 *
 * A module is known by its real path, as in Bun and Node: symbolic links are followed once, when the snapshot is read,
 * and where each of them led is part of it. Relative imports begin at the real path.
 */
import { extname } from "node:path";
import { placeOfDefault, placeOfMember, type TextPlace } from "./source-text.ts";
import type { DataLoader } from "./data-module.ts";
import type { RubyScript } from "../ruby/compile.ts";
import type { ShippedName } from "../shipped.ts";
import { VERSION } from "../version.ts";
import { readText, realPath, statOf } from "./files.ts";
import { ImportResolver } from "./imports.ts";
import { type LoadFailure, placeOfSpecifier, whyUnreadable } from "../handler/load-failure.ts";

export type CodeLoader = "ts" | "tsx" | "js" | "jsx";
/** Ruby imports nothing and is no module: see `src/ruby`. */
type ScriptLoader = "ruby";

export interface SourceFile {
  /** Its real path. */
  readonly path: string;
  readonly loader: CodeLoader | DataLoader | ScriptLoader;
  readonly text: string;
}

/** A file that is not in the snapshot, but belongs to it: its change is a change of the sources. */
export interface OtherFile {
  /** As it was named: links are not followed. */
  readonly path: string;
  /** The file's stamp: see {@link stampOf}. */
  readonly stamp: string;
}

/** Plain data: it travels between threads. */
export interface Sources {
  readonly files: readonly SourceFile[];
  /** CommonJS and kinds that only Bun knows, which Bun loads itself; and files that are missing. */
  readonly others: readonly OtherFile[];
  /** The real path of each path that was named, by the configuration or an import. */
  readonly targets: ReadonlyMap<string, string>;
  /** For each importing file, by its real path: the real path that each specifier led to, null if it led nowhere. */
  readonly imports: ReadonlyMap<string, ReadonlyMap<string, string | null>>;
  /** The shipped filters that are used: they are part of the code, by name and version. */
  readonly shipped: readonly ShippedName[];
  /** The JavaScript of Ruby files, by real path. */
  readonly scripts: Readonly<Record<string, RubyScript>>;
  /** The JavaScript of the classes that they use besides: see `src/ruby/library.ts`. */
  readonly library: readonly RubyScript[];
  /** Ruby files that do not load, by real path, or as they were named if there is none. */
  readonly broken: Readonly<Record<string, LoadFailure>>;
  /** A file that is needed and cannot be read: then there is no use in loading the rest. */
  readonly problem: LoadFailure | null;
}

const CODE: Readonly<Record<string, CodeLoader>> = {
  ".ts": "ts",
  ".mts": "ts",
  ".tsx": "tsx",
  ".js": "js",
  ".mjs": "js",
  ".jsx": "jsx",
};
const DATA: Readonly<Record<string, DataLoader>> = {
  ".json": "json",
  ".toml": "toml",
  ".yaml": "yaml",
  ".yml": "yaml",
  ".txt": "text",
};
const CODE_LOADERS: readonly string[] = Object.values(CODE);
const DATA_LOADERS: readonly string[] = Object.values(DATA);

export function isCode(loader: SourceFile["loader"]): loader is CodeLoader {
  return CODE_LOADERS.includes(loader);
}

/** Whether a file is taken for Ruby. */
export function isRuby(path: string): boolean {
  return extname(path).toLowerCase() === ".rb";
}

/** Whether a file is taken for TypeScript. */
export function isTypeScript(path: string): boolean {
  return /\.[mc]?tsx?$/.test(path);
}

/** A file still to be read, and where it is named. */
interface Pending {
  readonly path: string;
  /** The loader that an import attribute asks for. */
  readonly as: string | null;
  /** The error if the file is not there; null if the import may fail at run time, or never comes. */
  readonly failure: LoadFailure | null;
}

/** Snapshots do not change, and the log asks often. */
const versions = new WeakMap<Sources, string>();

/** A short name of the code, the same wherever the same texts lie: 12 hexadecimal digits; "" without code. */
export function versionOf(sources: Sources | null): string {
  if (sources === null || sources.files.length + sources.shipped.length === 0) return "";
  const known = versions.get(sources) ?? nameOf(sources);
  versions.set(sources, known);
  return known;
}

function nameOf({ files, shipped }: Sources): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const { text } of files.toSorted((a, b) => (a.path < b.path ? -1 : 1))) hash.update(`${text.length}\0${text}`);
  for (const name of shipped.toSorted()) hash.update(`${name}\0${VERSION}`);
  return hash.digest("hex").slice(0, 12);
}

/** How often a snapshot is read anew because links were turned meanwhile. */
const MAX_READINGS = 5;

/**
 * Reads the entry files and everything they import, also by `import("…")` with a literal.
 * @param shipped the shipped filters that are used: no file of theirs is read
 */
export function readSources(entries: readonly string[], shipped: readonly ShippedName[] = []): Sources {
  for (let reading = 1; ; reading++) {
    const sources = new Reader().read(entries, shipped);
    // Files of two releases make no version.
    if (reading === MAX_READINGS || leadWhereTheyLed(sources)) return sources;
  }
}

class Reader {
  readonly #files = new Map<string, SourceFile>();
  readonly #others = new Map<string, OtherFile>();
  readonly #targets = new Map<string, string>();
  readonly #imports = new Map<string, Map<string, string | null>>();
  readonly #broken: Record<string, LoadFailure> = {};
  readonly #pending: Pending[] = [];
  readonly #resolver = new ImportResolver();
  #problem: LoadFailure | null = null;

  read(entries: readonly string[], shipped: readonly ShippedName[]): Sources {
    for (const path of entries.toReversed()) {
      const message = whyUnreadable(path) ?? "it cannot be read";
      this.#pending.push({ path, as: null, failure: { file: path, line: 0, column: 0, message } });
    }
    for (let next = this.#pending.pop(); next !== undefined; next = this.#pending.pop()) this.#readFile(next);
    for (const path of this.#resolver.configs) this.#waitFor(path);
    return {
      files: [...this.#files.values()],
      others: [...this.#others.values()],
      targets: this.#targets,
      imports: this.#imports,
      shipped,
      scripts: {},
      library: [],
      broken: this.#broken,
      problem: this.#problem,
    };
  }

  #readFile({ path, as, failure }: Pending): void {
    if (this.#targets.has(path) || this.#others.has(path)) return;
    const real = realPath(path);
    const text = real === null ? null : readText(real);
    if (real === null || text === null) {
      this.#waitFor(path);
      if (failure !== null && isRuby(path)) this.#broken[path] = failure;
      else this.#problem ??= failure;
      return;
    }
    this.#targets.set(path, real);
    const loader = loaderOf(path, real, as);
    if (loader === undefined) {
      this.#waitFor(path);
      return;
    }
    if (this.#files.has(real)) return;
    if (!isCode(loader)) {
      this.#files.set(real, { path: real, loader, text });
      return;
    }
    const scanned = scan(loader, text);
    if (scanned?.isCommonJs === true) this.#waitFor(path);
    else this.#files.set(real, { path: real, loader, text });
    if (!this.#imports.has(real)) this.#follow(real, text, scanned?.imports ?? []);
  }

  #follow(importer: string, text: string, imports: Scanned["imports"]): void {
    const led = new Map<string, string | null>();
    this.#imports.set(importer, led);
    for (const { specifier, isStatic } of imports) {
      const found = this.#resolver.resolve(importer, specifier);
      if (found === null) continue;
      if (found.kind === "package") {
        led.set(specifier, found.target);
        this.#targets.set(found.link, found.folder);
        continue;
      }
      const { candidates, path } = found;
      const message = `Cannot find module '${specifier}' imported from ${importer}`;
      const missing = isStatic ? { file: importer, ...placeOfSpecifier(text, specifier), message } : null;
      led.set(specifier, path === null ? null : realPath(path));
      if (path !== null) this.#pending.push({ path, as: attributeOf(text, specifier), failure: missing });
      else this.#problem ??= missing;
      // A module that is made later under any of these names is noticed under all of them.
      if (path === null) for (const candidate of candidates) this.#waitFor(candidate);
    }
  }

  /** The snapshot does not hold this file; another look of it is a change. */
  #waitFor(path: string): void {
    this.#others.set(path, { path, stamp: stampOf(path) });
  }
}

function loaderOf(path: string, real: string, as: string | null): SourceFile["loader"] | undefined {
  if (isRuby(path)) return "ruby";
  // The target of a link may have a name without an extension.
  const [byTarget, byName] = [real, path].map((name) => CODE[extname(name)] ?? DATA[extname(name)]);
  return (as as DataLoader | null) ?? byTarget ?? byName;
}

/** Where a name is imported that its module does not export, from the loader's message; null for other messages. */
export function placeOfMissingExport(sources: Sources, message: string): Omit<LoadFailure, "message"> | null {
  const match = /^Export named '(.+)' not found in module '(.+)'/.exec(message);
  if (match === null) return null;
  for (const [importer, specifiers] of sources.imports) {
    for (const [specifier, target] of specifiers) {
      if (target !== match[2]) continue;
      const text = sources.files.find((file) => file.path === importer)?.text ?? "";
      const named = new RegExp(`\\b${RegExp.escape(match[1]!)}\\b[^;]*["']${RegExp.escape(specifier)}["']`);
      if (named.test(text)) return { file: importer, ...placeOfSpecifier(text, specifier) };
    }
  }
  return null;
}

/** The text of a file that was named by this path; undefined if the snapshot does not hold it. */
export function textOf({ files, targets }: Sources, path: string): string | undefined {
  const real = targets.get(path) ?? path;
  return files.find((file) => file.path === real)?.text;
}

/**
 * The place of an export that does not fit, or of the member of it that the message names; null if the failure has a
 * place already.
 */
export function placeOfModule(sources: Sources, { file, line, message }: LoadFailure): TextPlace | null {
  const text = line > 0 ? undefined : textOf(sources, file);
  if (text === undefined) return null;
  const [, name] = /"(\w+)"/.exec(message) ?? [];
  return (name === undefined ? null : placeOfMember(text, name)) ?? placeOfDefault(text);
}

/** The paths whose change is a change of the sources, as they were named: turning a link is a change, too. */
export function pathsOf({ targets, others }: Sources): string[] {
  return [...targets.keys(), ...others.map((file) => file.path)];
}

/** Whether the files on disk are still those of the snapshot. */
export function isCurrent(sources: Sources): boolean {
  return (
    leadWhereTheyLed(sources) &&
    sources.files.every((file) => readText(file.path) === file.text) &&
    sources.others.every((file) => stampOf(file.path) === file.stamp)
  );
}

function leadWhereTheyLed({ targets }: Sources): boolean {
  return targets.entries().every(([path, real]) => realPath(path) === real);
}

/** The stamp of a file, from its metadata: another content has another stamp. "" if it is not there. */
function stampOf(path: string): string {
  const stats = statOf(path);
  return stats === null ? "" : `${realPath(path)} ${stats.mtimeMs} ${stats.ctimeMs} ${stats.size} ${stats.ino}`;
}

interface Scanned {
  readonly imports: readonly { readonly specifier: string; readonly isStatic: boolean }[];
  readonly isCommonJs: boolean;
}

/** Null if the text does not parse: loading it gives the error. */
function scan(loader: CodeLoader, text: string): Scanned | null {
  try {
    const { imports, exports } = new Bun.Transpiler({ loader }).scan(text);
    const isStatic = ({ kind }: { kind: string }) => kind === "import-statement";
    return {
      imports: imports.map((found) => ({ specifier: found.path, isStatic: isStatic(found) })),
      isCommonJs:
        exports.length === 0 && !imports.some(isStatic) && /\b(?:module\.exports|exports\.\w|require\()/.test(text),
    };
  } catch {
    return null;
  }
}

/** The syntax error of a file of code; null if it parses. Errors in other files come up when they are loaded. */
export function syntaxErrorOf({ loader, text }: SourceFile): unknown {
  if (!isCode(loader)) return null;
  try {
    new Bun.Transpiler({ loader }).transformSync(text);
    return null;
  } catch (error) {
    return error;
  }
}

/** The type that `import … from "…" with { type: "…" }` asks for; the scanner does not tell. */
function attributeOf(text: string, specifier: string): string | null {
  const quoted = RegExp.escape(specifier);
  const match = new RegExp(`["']${quoted}["']\\s*,?\\s*\\{?\\s*with\\s*:?\\s*\\{\\s*type\\s*:\\s*["'](\\w+)["']`).exec(
    text,
  );
  return match !== null && DATA_LOADERS.includes(match[1]!) ? match[1]! : null;
}
