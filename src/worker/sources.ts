/**
 * One snapshot of the sources of all handlers: read once, and then the only thing that the workers of a generation load
 * from, whatever becomes of the files on disk. It holds the handlers and what they import, code, JSON, TOML and text
 * alike; packages (`node_modules`) and CommonJS modules are left to Bun's own loader.
 */
import { readFileSync, statSync } from "node:fs";
import { dirname, extname, resolve } from "node:path";
import { type DataLoader, dataModule } from "./data-module.ts";
import type { RubyScript } from "../ruby/compile.ts";
import { type LoadFailure, placeOfSpecifier, whyUnreadable } from "./load-failure.ts";

type CodeLoader = "ts" | "tsx" | "js" | "jsx";
/** Ruby imports nothing and is no module: see `src/ruby`. */
type ScriptLoader = "ruby";

export interface SourceFile {
  readonly path: string;
  readonly loader: CodeLoader | DataLoader | ScriptLoader;
  readonly text: string;
}

/** A file that is not in the snapshot, but belongs to it: its change is a change of the sources. */
export interface OtherFile {
  readonly path: string;
  /** What it looked like: see {@link stampOf}. */
  readonly stamp: string;
}

/** Plain data: it travels between threads. */
export interface Sources {
  readonly files: readonly SourceFile[];
  /** CommonJS and kinds that only Bun knows, which Bun loads itself; and files that are missing. */
  readonly others: readonly OtherFile[];
  /** What an import led to, by the importing file and the specifier: see {@link importKey}. */
  readonly imports: Readonly<Record<string, string>>;
  /** What the Ruby files became, by path. */
  readonly scripts: Readonly<Record<string, RubyScript>>;
  /** Ruby files that do not load, by path. */
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
const DATA_LOADERS: readonly string[] = Object.values(DATA);

function isCode(loader: CodeLoader | DataLoader): loader is CodeLoader {
  return !DATA_LOADERS.includes(loader);
}

function importKey(importer: string, specifier: string): string {
  return `${importer}\0${specifier}`;
}

/** Whether a file is taken for Ruby. */
export function isRuby(path: string): boolean {
  return extname(path).toLowerCase() === ".rb";
}

/** A file still to be read, and where it is named. */
interface Pending {
  readonly path: string;
  /** The loader that an import attribute asks for. */
  readonly as: string | null;
  /** What to say if it is not there; null if the import may fail at run time, or never comes. */
  readonly failure: LoadFailure | null;
}

/** A short name of the code, the same wherever the same texts lie: 12 hexadecimal digits. */
export function versionOf({ files }: Sources): string {
  const hash = new Bun.CryptoHasher("sha256");
  for (const { text } of files.toSorted((a, b) => (a.path < b.path ? -1 : 1))) hash.update(`${text.length}\0${text}`);
  return hash.digest("hex").slice(0, 12);
}

/** Reads the entry files and everything they import, also by `import("…")` with a literal. */
export function readSources(entries: readonly string[]): Sources {
  const files = new Map<string, SourceFile>();
  const others = new Map<string, OtherFile>();
  const imports: Record<string, string> = {};
  const broken: Record<string, LoadFailure> = {};
  let problem: LoadFailure | null = null;
  const pending: Pending[] = entries.toReversed().map((path) => ({
    path,
    as: null,
    failure: { file: path, line: 0, column: 0, message: whyUnreadable(path) ?? "it cannot be read" },
  }));
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { path, as, failure } = next;
    if (files.has(path) || others.has(path)) continue;
    const loader = as ?? CODE[extname(path)] ?? DATA[extname(path)] ?? (isRuby(path) ? "ruby" : undefined);
    const text = readText(path);
    if (text === null || loader === undefined) others.set(path, { path, stamp: stampOf(path) });
    if (text === null && failure !== null && isRuby(path)) broken[path] = failure;
    else if (text === null) problem ??= failure;
    if (text === null || loader === undefined) continue;
    if (loader === "ruby" || DATA_LOADERS.includes(loader)) {
      files.set(path, { path, loader: loader as DataLoader | ScriptLoader, text });
      continue;
    }
    const scanned = scan(loader as CodeLoader, text);
    if (scanned?.isCommonJs === true) others.set(path, { path, stamp: stampOf(path) });
    else files.set(path, { path, loader: loader as CodeLoader, text });
    for (const { specifier, isStatic } of scanned?.imports ?? []) {
      const candidates = candidatesOf(resolve(dirname(path), specifier));
      const target = candidates.find(isFile) ?? candidates[0]!;
      imports[importKey(path, specifier)] = target;
      const message = `Cannot find module '${specifier}' imported from ${path}`;
      const missing = isStatic ? { file: path, ...placeOfSpecifier(text, specifier), message } : null;
      // What may be made later under any of these names is waited for under all of them.
      for (const candidate of isFile(target) ? [] : candidates) others.set(candidate, { path: candidate, stamp: "" });
      if (!isFile(target)) problem ??= missing;
      else pending.push({ path: target, as: attributeOf(text, specifier), failure: missing });
    }
  }
  return { files: [...files.values()], others: [...others.values()], imports, scripts: {}, broken, problem };
}

/** From now on, in this thread, the files of the snapshot are loaded from it. Call it before the first import. */
export function serveSources(sources: Sources): void {
  const files = new Map(sources.files.map((file) => [file.path, file]));
  if (files.size === 0) return;
  const paths = [...files.keys()].map((path) => RegExp.escape(path));
  Bun.plugin({
    name: "pmilter-sources",
    setup(build) {
      // Bun's resolver looks at the disk, where a file may be gone by now, and remembers folders as they were.
      build.onResolve({ filter: /^[./]/ }, ({ path, importer }) => {
        const target = sources.imports[importKey(importer, path)] ?? (files.has(path) ? path : undefined);
        return target === undefined ? undefined : { path: target };
      });
      build.onLoad({ filter: new RegExp(`^(?:${paths.join("|")})$`) }, ({ path }) => {
        const { loader, text } = files.get(path)!;
        if (loader === "ruby") throw new SyntaxError("a Ruby file cannot be imported");
        if (isCode(loader)) return { contents: text, loader };
        return { exports: dataModule(path, loader, text), loader: "object" };
      });
    },
  });
}

/** Where a name is imported that its module does not export, from the loader's message; null if that is not what it says. */
export function placeOfMissingExport(sources: Sources, message: string): Omit<LoadFailure, "message"> | null {
  const match = /^Export named '(.+)' not found in module '(.+)'/.exec(message);
  if (match === null) return null;
  for (const [key, target] of Object.entries(sources.imports)) {
    if (target !== match[2]) continue;
    const [importer = "", specifier = ""] = key.split("\0");
    const text = sources.files.find((file) => file.path === importer)?.text ?? "";
    const isNamed = new RegExp(`\\b${RegExp.escape(match[1]!)}\\b[^;]*["']${RegExp.escape(specifier)}["']`).test(text);
    if (isNamed) return { file: importer, ...placeOfSpecifier(text, specifier) };
  }
  return null;
}

/** The files whose change is a change of the sources. */
export function pathsOf(sources: Sources): string[] {
  return [...sources.files.map((file) => file.path), ...sources.others.map((file) => file.path)];
}

/** Whether the disk still holds what the snapshot holds. */
export function isCurrent(sources: Sources): boolean {
  return (
    sources.files.every((file) => readText(file.path) === file.text) &&
    sources.others.every((file) => stampOf(file.path) === file.stamp)
  );
}

/** What a file looks like from outside: another content has another stamp. "" if it is not there. */
function stampOf(path: string): string {
  try {
    const { mtimeMs, size, ino } = statSync(path);
    return `${mtimeMs} ${size} ${ino}`;
  } catch {
    return "";
  }
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
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
      imports: imports
        .filter(({ path }) => /^[./]/.test(path))
        .map((found) => ({ specifier: found.path, isStatic: isStatic(found) })),
      isCommonJs:
        exports.length === 0 && !imports.some(isStatic) && /\b(?:module\.exports|exports\.\w|require\()/.test(text),
    };
  } catch {
    return null;
  }
}

const EXTENSIONS = [".tsx", ".jsx", ".ts", ".mts", ".mjs", ".js", ".cjs", ".json"] as const;
/** TypeScript lets a source be imported by the name of what it is compiled to. */
const SOURCE_OF: Readonly<Record<string, readonly string[]>> = {
  ".js": [".ts", ".tsx"],
  ".mjs": [".mts"],
  ".jsx": [".tsx"],
};

/** The files that an import of this path may mean, in Bun's order. */
function candidatesOf(path: string): string[] {
  const extension = extname(path);
  const stem = extension === "" ? path : path.slice(0, -extension.length);
  return [
    path,
    ...EXTENSIONS.map((known) => path + known),
    ...(SOURCE_OF[extension] ?? []).map((source) => stem + source),
    ...EXTENSIONS.map((known) => resolve(path, `index${known}`)),
  ];
}

/** The type that `import … from "…" with { type: "…" }` asks for; the scanner does not tell. */
function attributeOf(text: string, specifier: string): string | null {
  const quoted = RegExp.escape(specifier);
  const match = new RegExp(`["']${quoted}["']\\s*,?\\s*\\{?\\s*with\\s*:?\\s*\\{\\s*type\\s*:\\s*["'](\\w+)["']`).exec(
    text,
  );
  return match !== null && DATA_LOADERS.includes(match[1]!) ? match[1]! : null;
}
