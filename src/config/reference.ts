/**
 * The tables and keys of pmilter.toml as data, read from the schema: for telling known names from unknown names, and
 * for the configuration reference. It states no fact of its own.
 */
import * as v from "valibot";
import { type About, ConfigSchema } from "./schema.ts";

export interface KeyInfo extends About {
  readonly name: string;
  readonly description: string;
  /** As it would be written in the file; undefined if the key is then absent. */
  readonly default: unknown;
}

export interface TableInfo {
  /** The names that lead to the table; empty for the file itself. */
  readonly path: readonly string[];
  /** It is an array of tables, `[[filter]]`. */
  readonly isList: boolean;
  /** It belongs to a table of such an array, `[filter.when]`. */
  readonly isNested: boolean;
  readonly keys: ReadonlyMap<string, KeyInfo>;
  readonly tables: ReadonlyMap<string, TableInfo>;
}

/** The structure of a valibot schema. */
export interface Node {
  readonly type: string;
  readonly wrapped?: Node;
  readonly default?: unknown;
  readonly entries?: Readonly<Record<string, Node>>;
  readonly item?: Node;
}

function describeTable(
  path: readonly string[],
  entries: Readonly<Record<string, Node>>,
  isList: boolean,
  isNested = false,
): TableInfo {
  const keys = new Map<string, KeyInfo>();
  const tables = new Map<string, TableInfo>();
  for (const [name, node] of Object.entries(entries)) {
    const inner = node.wrapped ?? node;
    const table = inner.entries ?? inner.item?.entries;
    if (table === undefined) keys.set(name, describeKey(name, node));
    else tables.set(name, describeTable([...path, name], table, inner.item !== undefined, isList));
  }
  return { path, isList, isNested, keys, tables };
}

/** What is known of a key. */
export function describeKey(name: string, node: Node): KeyInfo {
  const schema = node as v.GenericSchema;
  return {
    name,
    description: v.getDescription(schema) ?? "",
    default: node.default,
    ...(v.getMetadata(schema) as About),
  };
}

/** The file as a whole. */
export const ROOT: TableInfo = describeTable([], ConfigSchema.entries, false);

/** Every table, the file itself first, in the order of the schema. */
export const TABLES: readonly TableInfo[] = [...withNested(ROOT)];

function* withNested(table: TableInfo): Generator<TableInfo> {
  yield table;
  for (const nested of table.tables.values()) yield* withNested(nested);
}

/** The default as the reference shows it: as written in the file, or in words, or `-`. */
export function defaultInWords(key: KeyInfo): string {
  if (key.default === undefined) return key.unset ?? "-";
  return `\`${JSON.stringify(key.default)}\``;
}

function meaningOf({ description, restart }: KeyInfo): string {
  return restart === true ? `${description} Needs a restart.` : description;
}

/** The table of the configuration reference for a table of the file, as Markdown. */
export function referenceTable(table: TableInfo): string {
  const rows = [...table.keys.values()].map((key) =>
    [`\`${key.name}\``, defaultInWords(key), key.unit ?? "", meaningOf(key)].join(" | "),
  );
  return ["key | default | unit | meaning", "--- | --- | --- | ---", ...rows].map((row) => `| ${row} |`).join("\n");
}

/** `[handler.config]`, `[[filter]]`; in words for the file itself. */
export function tableHeader({ path, isList }: TableInfo): string {
  if (path.length === 0) return "the top of the file, before the first table";
  const name = path.join(".");
  return isList ? `[[${name}]]` : `[${name}]`;
}
