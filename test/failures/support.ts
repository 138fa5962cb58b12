/**
 * What the walk through docs/failures.md shares: the rows of the page as data, so that what a test waits for in the log
 * is what the page says, and servers with one filter.
 */
import { expect } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { LOG_LEVELS } from "../../src/admin/log-level.ts";
import type { Counts } from "../../src/counters.ts";
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import { page } from "../docs/blocks.ts";
import { type Lines, type Pmilter, type PmilterOptions, controlOf, startPmilter } from "../support/pmilter.ts";

export interface Row {
  readonly id: string;
  readonly logged: string;
  /** Names of counters, in backquotes. */
  readonly counters: string;
}

function readRows(): Row[] {
  const rows: Row[] = [];
  for (const line of page("docs/failures.md").prose.filter((each) => each.startsWith("| `"))) {
    const cells = line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (cells.length !== 6) continue;
    const [id = "", , , log = "", counters = ""] = cells;
    const above = rows.at(-1)?.logged ?? "";
    rows.push({ id: id.replaceAll("`", ""), logged: log.replace(/^the same/, above), counters });
  }
  return rows;
}

/** The rows of the page, in its order. "the same" in the column of the log is what the row above says. */
export const ROWS: readonly Row[] = readRows();

function quotedIn(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map((match) => match[1]!);
}

/**
 * How the lines of the log begin that the row names, as patterns; what it quotes besides is not a line. A line of a server
 * that does not start is its message alone.
 */
export function patternsOf(id: string): RegExp[] {
  const row = ROWS.find((each) => each.id === id);
  if (row === undefined) throw new Error(`docs/failures.md has no row ${id}`);
  return quotedIn(row.logged).flatMap((text) => {
    const [, level, rest] = /^(\w+): (.*)$/.exec(text) ?? [];
    const pattern = (line: string) => line.split("…").map(RegExp.escape).join(".*");
    if (level === "pmilter") return [new RegExp(`^${pattern(text)}`)];
    if (rest === undefined || !(LOG_LEVELS as readonly unknown[]).includes(level)) return [];
    return [new RegExp(`^\\[[^\\]]+ GMT\\]\\[${level}\\]: ${pattern(rest)}`)];
  });
}

/** Waits for a line of each pattern of the row; gives them. */
export async function expectLogged(
  { log }: { readonly log: Lines },
  id: string,
  { from = 0, patterns = patternsOf(id) } = {},
): Promise<string[]> {
  if (patterns.length === 0) throw new Error(`the row ${id} names no line`);
  return await Promise.all(patterns.map((pattern) => log.next(pattern, { from })));
}

/** Waits until a line of the row stands so often in the log; no more often, once everything so far is answered. */
export async function expectLoggedTimes(
  server: { readonly log: Lines },
  id: string,
  times: number,
  { from = 0 } = {},
): Promise<void> {
  const pattern = new RegExp(
    patternsOf(id)
      .map(({ source }) => source)
      .join("|"),
  );
  const { log } = server;
  let at = from;
  for (let found = 0; found < times; found++) at = log.all.indexOf(await log.next(pattern, { from: at }), at) + 1;
  expect(log.all.slice(from).filter((line) => pattern.test(line))).toHaveLength(times);
}

/** Lines that tell of something wrong; the warning that a test runs as root is not one. */
export function complaints({ log }: { readonly log: Lines }, from = 0): string[] {
  return log.all
    .slice(from)
    .filter((line) => !/\]\[(?:notice|info|debug)\]: |running as root/.test(line) && line !== "");
}

/** What the server in this folder says of itself, however it was started. */
export async function statusIn(dir: string): Promise<Status> {
  return (await askServer(controlOf(join(dir, "pmilter.toml")), { command: "status" })) as Status;
}

export type Counted = Partial<Counts>;

/** What the server has counted so far. */
export async function countersOf(server: Pmilter): Promise<Counts> {
  return (await statusIn(server.dir)).counters;
}

/** The counters named stand at these values, or have moved by them since an earlier look. */
export async function expectCounters(server: Pmilter, expected: Counted, since: Counted = {}): Promise<void> {
  const counters = await countersOf(server);
  const moved = Object.entries(expected).map(([name]) => {
    const key = name as keyof Counts;
    return [key, counters[key] - (since[key] ?? 0)];
  });
  expect(Object.fromEntries(moved)).toEqual(expected);
}

export const USE_FILTER = '[[filter]]\npath = "filter.ts"\n';

/** `filter.ts`, by the members of its `defineFilter` call; they begin on line 2. */
export function filter(members: string, head = ""): string {
  return `import { accept, defineFilter, discard, reject, skip, tempfail } from "pmilter";${head}
export default defineFilter({ ${members} });
`;
}

export interface StartOptions extends PmilterOptions {
  /** Statements in front of the filter. */
  readonly head?: string;
}

/** A server of one worker with one filter of these members. */
export function start(members: string, { head = "", ...options }: StartOptions = {}): Promise<Pmilter> {
  return startPmilter({
    config: USE_FILTER,
    ...options,
    files: { "filter.ts": filter(members, head), ...options.files },
    server: { workers: 1, stop_timeout: 0.1, ...options.server },
  });
}

/** Milliseconds of processor time that a process has used. */
export function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  // utime and stime, in ticks of 10 ms.
  return (Number(fields[11]) + Number(fields[12])) * 10;
}
