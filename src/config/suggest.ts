/**
 * The known name that a mistyped or misplaced key probably stands for. It only proposes: nothing is accepted here that
 * keys.ts has refused.
 */
import type { Phase } from "../protocol/phases.ts";
import { fold, nearest, sameName } from "./nearest.ts";
import { TABLES, type TableInfo, tableHeader } from "./reference.ts";

interface Candidate {
  readonly name: string;
  readonly table: TableInfo;
}

/** A sentence part to put after "unknown key" or "unknown table": the known name that is near, else all that there are. */
export function suggest(name: string, table: TableInfo): string {
  const own = candidates(table);
  const others = TABLES.filter((other) => other !== table).flatMap(candidates);
  const found =
    sameName(name, own) ??
    sameName(name, others) ??
    nearest(name, own) ??
    nearest(name, others) ??
    own.find((candidate) => fold(candidate.name) === `${fold(name)}handler`) ??
    own.find((candidate) => candidate.name === `${PHASE_MEANT[fold(name).replace(/handler$/, "")]}_handler`);
  if (found === undefined) return `; ${known(table)}`;
  const isTable = found.table.tables.has(found.name);
  const target = found.table.tables.get(found.name);
  if (isTable && target !== undefined) return `; did you mean ${tableHeader(target)}?`;
  if (found.table === table) return `; did you mean "${found.name}"?`;
  return `; "${found.name}" belongs to ${tableHeader(found.table)}`;
}

/** Phases by the names that SMTP, mail servers and other filters have for them. */
const PHASE_MEANT: Readonly<Record<string, Phase>> = {
  ehlo: "helo",
  mail: "envfrom",
  mailfrom: "envfrom",
  sender: "envfrom",
  rcpt: "envrcpt",
  rcptto: "envrcpt",
  recipient: "envrcpt",
  headers: "header",
  endofheaders: "eoh",
  endofmessage: "eom",
  endofbody: "eom",
  quit: "close",
  disconnect: "close",
};

/** The keys that a table may have, in words. */
function known(table: TableInfo): string {
  if (table.keys.size === 0 || table.path.length === 0) {
    const tables = TABLES.filter(
      ({ isNested, path, keys }) =>
        path.length > 0 && !isNested && keys.size > 0 && table.path.every((name, at) => path[at] === name),
    );
    return `the tables are ${inWords(tables.map(tableHeader))}`;
  }
  return `${tableHeader(table)} has ${inWords([...table.keys.keys(), ...table.tables.keys()])}`;
}

function inWords(names: readonly string[]): string {
  return names.length === 1 ? names[0]! : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}

function candidates(table: TableInfo): Candidate[] {
  return [...table.keys.keys(), ...table.tables.keys()].map((name) => ({ name, table }));
}
