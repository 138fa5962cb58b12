/** The paths that `paths` and `baseUrl` of the nearest tsconfig.json give a module's name, as Bun reads them. */
import { dirname, join, resolve } from "node:path";
import { readText } from "./files.ts";

/** The two options of a tsconfig.json. */
interface PathMap {
  /** Where names of modules begin; null if it does not say. */
  readonly baseUrl: string | null;
  /** Where `paths` are relative to if there is no `baseUrl`. */
  readonly base: string;
  /** By pattern, with at most a single `*`; null if there are none. */
  readonly paths: Readonly<Record<string, readonly string[]>> | null;
}

const NONE: PathMap = { baseUrl: null, base: "/", paths: null };
/** Most configurations in a chain of `extends`. */
const MAX_EXTENDS = 10;

export class TsconfigPaths {
  readonly #maps = new Map<string, PathMap>();
  /** The files that were read. */
  readonly files = new Set<string>();

  /** The paths that a name may mean for a file of this folder, best first. */
  candidates(folder: string, name: string): string[] {
    const { base, baseUrl, paths } = this.#mapOf(folder);
    // An exact name is the best match, then the pattern with the longest beginning.
    const best = Object.keys(paths ?? {})
      .filter((pattern) => matched(pattern, name) !== null)
      .sort((a, b) => weightOf(b) - weightOf(a))[0];
    const targets = best === undefined ? [] : paths![best]!;
    const mapped = targets.map((target) =>
      resolve(
        baseUrl ?? base,
        target.replace("*", () => matched(best!, name)!),
      ),
    );
    return baseUrl === null ? mapped : [...mapped, join(baseUrl, name)];
  }

  /** Of the nearest tsconfig.json, from this folder up. */
  #mapOf(folder: string): PathMap {
    const known = this.#maps.get(folder);
    if (known !== undefined) return known;
    const above = dirname(folder);
    const map =
      this.#read(join(folder, "tsconfig.json"), MAX_EXTENDS) ?? (above === folder ? NONE : this.#mapOf(above));
    this.#maps.set(folder, map);
    return map;
  }

  /** @returns null if there is none, or it is no JSON */
  #read(file: string, extendsLeft: number): PathMap | null {
    const text = readText(file);
    if (text === null) return null;
    this.files.add(file);
    let config: unknown;
    try {
      config = Bun.JSONC.parse(text);
    } catch {
      // Bun goes on without it as well.
      return NONE;
    }
    const folder = dirname(file);
    const { compilerOptions, extends: parents } = objectOf(config);
    const { baseUrl, paths } = objectOf(compilerOptions);
    const inherited = [parents]
      .flat()
      .filter((parent) => typeof parent === "string")
      .filter((parent) => extendsLeft > 0 && /^[./]/.test(parent))
      .map((parent) => this.#read(resolve(folder, withEnding(parent)), extendsLeft - 1) ?? NONE)
      .reduce(extend, NONE);
    const ownUrl = typeof baseUrl === "string" ? resolve(folder, baseUrl) : null;
    return extend(inherited, { baseUrl: ownUrl, base: folder, paths: pathsOf(paths) });
  }
}

function extend(parent: PathMap, child: PathMap): PathMap {
  const { base, paths } = child.paths === null ? parent : child;
  return { baseUrl: child.baseUrl ?? parent.baseUrl, base, paths };
}

const withEnding = (path: string) => (path.endsWith(".json") ? path : `${path}.json`);

/** The text in the place of the `*`, null if the name does not match. */
function matched(pattern: string, name: string): string | null {
  const star = pattern.indexOf("*");
  if (star === -1) return pattern === name ? "" : null;
  const [start, end] = [pattern.slice(0, star), pattern.slice(star + 1)];
  const isMatch = name.length >= start.length + end.length && name.startsWith(start) && name.endsWith(end);
  return isMatch ? name.slice(start.length, name.length - end.length) : null;
}

function weightOf(pattern: string): number {
  const star = pattern.indexOf("*");
  return star === -1 ? Infinity : star;
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function pathsOf(value: unknown): PathMap["paths"] {
  if (typeof value !== "object" || value === null) return null;
  const isText = (target: unknown) => typeof target === "string";
  return Object.fromEntries(
    Object.entries(value).map(([pattern, targets]) => [pattern, Array.isArray(targets) ? targets.filter(isText) : []]),
  );
}
