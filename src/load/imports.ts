/**
 * Where imports lead, by Bun's rules. Bun's own resolver remembers for the life of the process what folders held and where
 * links led, so a module that is made later would not be found, and behind a link that was turned it would find the old
 * one (Bun 1.4.5; docs/bun.md, "Modules"). Packages in real folders are left to it.
 */
import { isBuiltin } from "node:module";
import { dirname, extname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { isFile, readText, realPath } from "./files.ts";
import { TsconfigPaths } from "./tsconfig-paths.ts";

/** A module that belongs to the handlers. */
interface OwnModule {
  readonly kind: "module";
  /** The file, links not followed; null if there is none. */
  readonly path: string | null;
  /** The names that it may have. */
  readonly candidates: readonly string[];
}

/** A package whose folder is reached by a link, as `npm link` and pnpm make it. */
interface LinkedPackage {
  readonly kind: "package";
  /** The folder, links not followed, and where it leads. */
  readonly link: string;
  readonly folder: string;
  /** The file that is imported, by its real path. */
  readonly target: string;
}

/** Modules that handlers import from the program itself. */
const OWN_MODULES: ReadonlySet<string> = new Set(["pmilter", "pmilter/options"]);

/** Resolves the imports of a snapshot. */
export class ImportResolver {
  /** Folders of packages, by the folder that they are asked for from and their name; null if there is none. */
  readonly #packages = new Map<string, string | null>();
  readonly #tsconfig = new TsconfigPaths();

  /**
   * @param importer the importing file's real path
   * @returns null for modules that Bun has to find: its own, Node's, and packages in real folders
   */
  resolve(importer: string, specifier: string): OwnModule | LinkedPackage | null {
    const path = pathOf(importer, specifier);
    if (path === null) return this.#named(dirname(importer), specifier);
    const candidates = candidatesOf(path);
    return { kind: "module", path: candidates.find(isFile) ?? null, candidates };
  }

  /** Files that say where names lead. */
  get configs(): Iterable<string> {
    return this.#tsconfig.files;
  }

  #named(from: string, specifier: string): OwnModule | LinkedPackage | null {
    if (OWN_MODULES.has(specifier) || specifier.includes(":") || isBuiltin(specifier)) return null;
    for (const path of this.#tsconfig.candidates(from, specifier)) {
      const found = candidatesOf(path).find(isFile);
      // A module of a package is left to Bun, like the package.
      if (found !== undefined && !found.includes("/node_modules/"))
        return { kind: "module", path: found, candidates: [] };
    }
    return this.#linkedPackage(from, specifier);
  }

  #linkedPackage(from: string, specifier: string): LinkedPackage | null {
    const [, name, rest] = /^((?:@[^/]+\/)?[^@#./][^/]*)((?:\/.*)?)$/.exec(specifier) ?? [];
    if (name === undefined || rest === undefined) return null;
    const link = this.#packageFolder(from, name);
    const folder = link === null ? null : realPath(link);
    if (link === null || folder === null || folder === link) return null;
    const target = fileInPackage(folder, rest);
    return target === null ? null : { kind: "package", link, folder, target };
  }

  /** The nearest folder of the package, from this folder up. */
  #packageFolder(from: string, name: string): string | null {
    const key = `${from}\0${name}`;
    const known = this.#packages.get(key);
    if (known !== undefined) return known;
    const path = join(from, "node_modules", name);
    const above = dirname(from);
    const found = realPath(path) !== null ? path : above === from ? null : this.#packageFolder(above, name);
    this.#packages.set(key, found);
    return found;
  }
}

/** The path that a specifier names, null if it names a package or one of Bun's own modules. */
function pathOf(importer: string, specifier: string): string | null {
  if (/^(?:\.{0,2}\/|\.{1,2}$)/.test(specifier)) return resolve(dirname(importer), specifier);
  return specifier.startsWith("file:") && URL.canParse(specifier) ? fileURLToPath(specifier) : null;
}

/**
 * The file that a package gives for a sub-path, found by Bun without the link: a package that names its exports may
 * import itself by name; any other package is a folder.
 */
function fileInPackage(folder: string, rest: string): string | null {
  try {
    const { exports, name } = JSON.parse(readText(join(folder, "package.json")) ?? "{}") as Record<string, unknown>;
    return exports === undefined
      ? Bun.resolveSync(folder + rest, "/")
      : Bun.resolveSync(`${String(name)}${rest}`, folder);
  } catch {
    // Bun reports the package's error at the import.
    return null;
  }
}

const EXTENSIONS = [".tsx", ".jsx", ".ts", ".mts", ".mjs", ".js", ".cjs", ".json"] as const;
/** TypeScript lets a source be imported by the name of its compiled file. */
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
