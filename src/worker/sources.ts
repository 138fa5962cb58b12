/**
 * One snapshot of the sources of all handlers: read once, and then the only thing that the workers of a generation load
 * from, whatever becomes of the files on disk. It holds the handlers and what they import, code, JSON, TOML and text
 * alike; packages (`node_modules`) and CommonJS modules are left to Bun's own loader.
 */
import { readFileSync } from "node:fs";
import { dirname, extname } from "node:path";

type CodeLoader = "ts" | "tsx" | "js" | "jsx";
type DataLoader = "json" | "toml" | "yaml" | "text";

export interface SourceFile {
  readonly path: string;
  readonly loader: CodeLoader | DataLoader;
  readonly text: string;
}

/** Plain data: it travels between threads. */
export interface Sources {
  readonly files: readonly SourceFile[];
  /** Files that belong to it and that Bun loads itself: CommonJS, and kinds that only Bun knows. */
  readonly others: readonly string[];
  /** What an import led to, by the importing file and the specifier: see {@link importKey}. */
  readonly imports: Readonly<Record<string, string>>;
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

function isCode(loader: SourceFile["loader"]): loader is CodeLoader {
  return !DATA_LOADERS.includes(loader);
}

function importKey(importer: string, specifier: string): string {
  return `${importer}\0${specifier}`;
}

/**
 * Reads the entry files and everything they import, also by `import("…")` with a literal. What cannot be read, resolved
 * or parsed is left out: loading it then gives the error, with its place.
 */
export function readSources(entries: readonly string[]): Sources {
  const files = new Map<string, SourceFile>();
  const others = new Set<string>();
  const imports: Record<string, string> = {};
  const pending: { path: string; as: string | null }[] = entries.map((path) => ({ path, as: null }));
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    const { path, as } = next;
    if (files.has(path) || others.has(path)) continue;
    const extension = extname(path);
    const loader = as ?? CODE[extension] ?? DATA[extension];
    const text = loader === undefined || extension === ".cjs" ? null : readText(path);
    if (text === null || loader === undefined) {
      others.add(path);
      continue;
    }
    if (DATA_LOADERS.includes(loader)) {
      files.set(path, { path, loader: loader as DataLoader, text });
      continue;
    }
    const scanned = scan(loader as CodeLoader, text);
    if (scanned?.isCommonJs === true) others.add(path);
    else files.set(path, { path, loader: loader as CodeLoader, text });
    for (const specifier of scanned?.specifiers ?? []) {
      const target = resolve(specifier, path);
      if (target === null) continue;
      imports[importKey(path, specifier)] = target;
      pending.push({ path: target, as: attributeOf(text, specifier) });
    }
  }
  return { files: [...files.values()], others: [...others], imports };
}

/** From now on, in this thread, the files of the snapshot are loaded from it. Call it before the first import. */
export function serveSources(sources: Sources): void {
  const files = new Map(sources.files.map((file) => [file.path, file]));
  if (files.size === 0) return;
  const paths = [...files.keys()].map((path) => RegExp.escape(path));
  Bun.plugin({
    name: "pmilter-sources",
    setup(build) {
      // A file that is gone from the disk cannot be resolved any more, but it can be loaded.
      build.onResolve({ filter: /^[./]/ }, ({ path, importer }) => {
        const target = sources.imports[importKey(importer, path)] ?? path;
        return files.has(target) ? { path: target } : undefined;
      });
      build.onLoad({ filter: new RegExp(`^(?:${paths.join("|")})$`) }, ({ path }) => {
        const file = files.get(path)!;
        if (isCode(file.loader)) return { contents: file.text, loader: file.loader };
        return { exports: dataModule(file), loader: "object" };
      });
    },
  });
}

/** A file of data as the module that Bun makes of it: the value, and its members by name. */
function dataModule({ path, loader, text }: SourceFile): Record<string, unknown> {
  let value: unknown = text;
  try {
    if (loader === "json") value = JSON.parse(text);
    else if (loader === "toml") value = Bun.TOML.parse(text);
    else if (loader === "yaml") value = Bun.YAML.parse(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw Object.assign(new SyntaxError(message), { position: { file: path, line: 0, column: 0 } });
  }
  const members = typeof value === "object" && value !== null && !Array.isArray(value) ? value : {};
  return { ...members, default: value };
}

/** Whether the disk still holds what the snapshot holds. */
export function isCurrent(sources: Sources): boolean {
  return sources.files.every((file) => readText(file.path) === file.text);
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return null;
  }
}

function scan(loader: CodeLoader, text: string): { specifiers: string[]; isCommonJs: boolean } | null {
  try {
    const { imports, exports } = new Bun.Transpiler({ loader }).scan(text);
    const isModule = exports.length > 0 || imports.some(({ kind }) => kind === "import-statement");
    return {
      specifiers: imports.map((found) => found.path).filter((path) => /^[./]/.test(path)),
      isCommonJs: !isModule && /\b(?:module\.exports|exports\.\w|require\()/.test(text),
    };
  } catch {
    return null;
  }
}

function resolve(specifier: string, importer: string): string | null {
  try {
    const target = Bun.resolveSync(specifier, dirname(importer));
    return target.includes("/node_modules/") ? null : target;
  } catch {
    return null;
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
