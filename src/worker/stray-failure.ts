/**
 * A failure that no call of a handler can be blamed for: thrown in a timer, or a promise that nobody awaited, as with a
 * forgotten `await`. Its stack tells where, and mostly whose it is.
 */
import type { ChainFilter } from "../handler/chain.ts";
import { describeThrown, type Site, sitesOf } from "../handler/site.ts";
import { type CodeName, formatSite, lineOf, type LogLine } from "../handler/log-lines.ts";
import type { Sources } from "../load/sources.ts";

export const STRAY_FAILURE = "a handler failed outside of any call";

export function strayLine(
  error: unknown,
  filters: readonly ChainFilter[],
  sources: Sources | null,
  code: CodeName,
): LogLine {
  const sites = [...sitesOf(error)];
  const filter = filterOf(sites, filters, sources);
  const [site] = sites;
  const { level, text, fields } = lineOf("error", STRAY_FAILURE, {
    ...(filter === null ? {} : { filter: filter.loaded.name }),
    ...(site === undefined ? {} : { at: formatSite(site, code.folder) }),
    error: describeThrown(error),
  });
  return { level, text, fields: { cause: "late", ...fields } };
}

/** The filter that has one of the places in its own files, or else the only one that imports one; null if that is not known. */
function filterOf(
  sites: readonly Site[],
  filters: readonly ChainFilter[],
  sources: Sources | null,
): ChainFilter | null {
  if (filters.length === 1) return filters[0]!;
  const entries = new Map(filters.map((filter) => [filter, realFilesOf(filter, sources)]));
  const places = sites.map(({ file }) => file);
  for (const has of [
    (files: ReadonlySet<string>, file: string) => files.has(file),
    (files: ReadonlySet<string>, file: string) => importedBy(files, sources).has(file),
  ]) {
    for (const place of places) {
      const [filter, ...others] = filters.filter((each) => has(entries.get(each)!, place));
      if (filter !== undefined && others.length === 0) return filter;
    }
  }
  return null;
}

/** Frames name the real paths of files. */
function realFilesOf({ files }: ChainFilter, sources: Sources | null): ReadonlySet<string> {
  return new Set(Object.values(files).map((file) => sources?.targets.get(file) ?? file));
}

/** The files themselves and all that they import. */
function importedBy(files: ReadonlySet<string>, sources: Sources | null): ReadonlySet<string> {
  const all = new Set(files);
  for (const file of all) {
    for (const target of sources?.imports.get(file)?.values() ?? []) if (target !== null) all.add(target);
  }
  return all;
}
