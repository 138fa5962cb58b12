/**
 * The names in a configuration, before their values are judged: the original's names become ours, unknown names and
 * tables of the wrong shape are reported. The result has only known keys, in tables where tables belong.
 */
import { show } from "./errors.ts";
import type { KeyPath } from "./locate.ts";
import { ROOT, type TableInfo, tableHeader } from "./reference.ts";
import { suggest } from "./suggest.ts";
import { isTable } from "./values.ts";

export interface Notice {
  readonly level: "notice" | "warning";
  readonly text: string;
}

/** A fault by the path of its key; `text` needs no further words. */
export interface Fault {
  readonly path: KeyPath;
  readonly text: string;
}

export interface Names {
  readonly input: Record<string, unknown>;
  readonly faults: readonly Fault[];
  readonly notices: readonly Notice[];
  /** The path as the file has it, for a path in `input`. */
  readonly written: (path: KeyPath) => KeyPath;
}

type Table = Record<string, unknown>;

/** Resolves and checks the names of a parsed file; `raw` is left as it is. */
export function readNames(raw: Table): Names {
  const faults: Fault[] = [];
  const notices: Notice[] = [];
  const aliases = new Map<string, KeyPath>();

  function readTable(info: TableInfo, table: Table, path: KeyPath): Table {
    const aliasOf = new Map([...info.keys.values()].map((known) => [known.alias, known.name]));
    const result: Table = {};
    for (const [name, value] of Object.entries(table)) {
      const here = [...path, name];
      const nested = info.tables.get(name);
      const ours = aliasOf.get(name);
      if (nested !== undefined) {
        const inner = readNested(nested, value, here);
        if (inner !== undefined) result[name] = inner;
      } else if (info.keys.has(name)) {
        result[name] = value;
      } else if (ours !== undefined) {
        if (Object.hasOwn(table, ours)) faults.push({ path: here, text: `"${ours}" is set as well; keep one` });
        result[ours] = value;
        aliases.set(JSON.stringify([...path, ours]), here);
      } else if (here.join(".") === "server.min_worker") {
        notices.push({
          level: "notice",
          text: "server.min_worker is ignored: it counted the original's threads; server.workers rules",
        });
      } else {
        const isTables = isTable(value) || (Array.isArray(value) && value.length > 0 && value.every(isTable));
        const what = isTables ? "unknown table" : "unknown key";
        faults.push({ path: here, text: `${what}${suggest(name, info)}` });
      }
    }
    return result;
  }

  /** Undefined stands for "as if it were not there", so that a fault does not bring further faults. */
  function readNested(info: TableInfo, value: unknown, path: KeyPath): Table | Table[] | undefined {
    if (!info.isList) {
      if (isTable(value)) return readTable(info, value, path);
      faults.push({ path, text: `expected a table, ${tableHeader(info)}, got ${show(value)}` });
      return undefined;
    }
    if (Array.isArray(value) && value.every(isTable)) {
      return value.map((entry, index) => readTable(info, entry, [...path, index]));
    }
    const hint = isTable(value) ? "; the brackets are double" : "";
    faults.push({ path, text: `expected tables, each under ${tableHeader(info)}, got ${show(value)}${hint}` });
    return undefined;
  }

  const input = readTable(ROOT, raw, []);
  return { input, faults, notices, written: (path) => aliases.get(JSON.stringify(path)) ?? path };
}

/**
 * As {@link readNames}, for an included file: only `[[filter]]` tables may stand in it.
 * @param main the configuration that includes it, as messages name it
 */
export function readIncludedNames(raw: Table, main: string): Names {
  const faults: Fault[] = [];
  const own: Table = {};
  for (const [name, value] of Object.entries(raw)) {
    const table = ROOT.tables.get(name);
    const isFilter = table !== undefined && table.isList;
    if (isFilter || (table === undefined && !ROOT.keys.has(name))) own[name] = value;
    else {
      const where = table === undefined ? "" : `; ${tableHeader(table)} belongs to ${main}`;
      const what = name === "include" ? "an included file includes no other" : `an included file has only [[filter]]`;
      faults.push({ path: [name], text: `${what}${where}` });
    }
  }
  const names = readNames(own);
  return { ...names, faults: [...faults, ...names.faults] };
}
