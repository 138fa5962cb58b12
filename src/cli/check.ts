/** `pmilter check`: does everything that a start does but listen, judges the handlers, and prints the result. */
import { dirname, relative } from "node:path";
import { withCheckFolder } from "../check/folder.ts";
import { judgeHandlers } from "../check/judge.ts";
import { formatProblem, type Problem } from "../check/problem.ts";
import { type Config, entryFiles, shippedFilters } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { ACTION, namesOf, PROTOCOL } from "../protocol/constants.ts";
import { PHASE_LIST } from "../protocol/phases.ts";
import type { Need } from "../handler/needs.ts";
import { describeConditions } from "./describe-conditions.ts";
import { PlainError } from "../errors.ts";
import { PrivilegeError, resolveGroup, resolveUser } from "../server/rights/privileges.ts";
import { checkHandlers } from "../server/workers/tasks.ts";
import { LoadError, type LoadFailure } from "../handler/load-failure.ts";
import type { ChainSummary } from "../shared/messages.ts";
import { KEEPS_CONTENT } from "../shipped.ts";
import { readSources } from "../load/sources.ts";

/** The mistakes in handlers; said to the user as it is. */
export class CheckError extends PlainError {
  override readonly name = "CheckError";
  readonly #problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(problems.join("\n"));
    this.#problems = problems;
  }

  override get problems(): readonly string[] {
    return this.#problems;
  }
}

export interface CheckOptions {
  readonly config: string;
  /** Whether filters are started. */
  readonly starts: boolean;
  /** Whether types are judged. */
  readonly types: boolean;
}

/**
 * @returns the exit code
 * @throws ConfigError, CheckError
 */
export async function check({ config: configFile, starts, types }: CheckOptions, workerUrl: URL): Promise<number> {
  const config = loadConfig(configFile);
  const sources = readSources(entryFiles(config), shippedFilters(config));
  const judging = types
    ? withCheckFolder((folder) => judgeHandlers(config, sources, folder)).catch((error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error);
        throw new CheckError([`the types were not checked, which --no-types leaves out: ${reason}`]);
      })
    : judgeHandlers(config, sources, null);
  const loading = checkHandlers(workerUrl, config, starts, (message) => {
    if (message.kind === "print") process.stdout.write(message.text);
    else process.stderr.write(`${message.level}: ${message.text}\n`);
  }).catch((error: unknown) => {
    if (error instanceof LoadError) return error;
    throw error;
  });
  const [summary, judgement] = await Promise.all([loading, judging]);
  for (const remark of judgement.remarks) process.stderr.write(`warning: ${remark}\n`);
  const failure = summary instanceof LoadError ? summary.failure : null;
  const problems = judgement.problems.filter((problem) => failure === null || !isSame(problem, failure));
  if (summary instanceof LoadError || problems.length > 0) {
    throw new CheckError([
      ...(summary instanceof LoadError ? summary.problems : []),
      ...problems.map((problem) => formatProblem(problem, process.cwd())),
    ]);
  }
  const warnings = [
    ...config.notices.map(({ level, text }) => `${level}: ${text}\n`),
    ...unknownAccounts(config).map((text) => `warning: ${text}\n`),
    ...behindSigning(config, summary).map((text) => `warning: ${text}\n`),
  ];
  process.stdout.write(
    `${config.file}: ok\n${describeIncluded(config)}\n${describeChain(summary, config)}${warnings.length > 0 ? `\n${warnings.join("")}` : ""}`,
  );
  return 0;
}

/** The files that it includes, in order; "" if it includes none by its text. */
function describeIncluded({ file, include, included }: Config): string {
  if (include.length === 0) return "";
  if (included.length === 0) return `\nIncluded files: none yet (${include.join(", ")})\n`;
  const folder = dirname(file);
  const names = included.map((path) => (path.startsWith(`${folder}/`) ? relative(folder, path) : path));
  return `\nIncluded files, in order: ${names.join(", ")}\n`;
}

/** Filters that may change a message that has been signed. What a filter of one's own does is not known. */
function behindSigning({ filters }: Config, { filters: loaded }: ChainSummary): string[] {
  const signing = filters.findIndex(({ use }) => use === "dkim-sign");
  if (signing === -1) return [];
  // The phase files are a filter without a table.
  const first = loaded.length - filters.length;
  return filters.flatMap(({ use }, index) => {
    const { isObserved, name } = loaded[first + index]!;
    if (index <= signing || isObserved || (use !== null && KEEPS_CONTENT.has(use))) return [];
    return [`the filter ${name} runs behind dkim-sign: what it changes breaks the signatures; put dkim-sign last`];
  });
}

/** Accounts that a start would not find. The check may run on another machine than the server. */
function unknownAccounts({ server }: Config): string[] {
  const warnings: string[] = [];
  const look = (key: string, account: string | null, resolve: (account: string) => unknown) => {
    try {
      if (account !== null) resolve(account);
    } catch (error) {
      if (!(error instanceof PrivilegeError)) throw error;
      warnings.push(`${key}: ${error.message}`);
    }
  };
  look("server.user", server.user, resolveUser);
  look("server.group", server.group, resolveGroup);
  look("server.socket_user", server.socketUser, resolveUser);
  look("server.socket_group", server.socketGroup, resolveGroup);
  return warnings;
}

/** The type checker finds the errors of loading a file as well, in its own words. */
function isSame({ file, line, text }: Problem, failure: LoadFailure): boolean {
  return file === failure.file && (line === failure.line || /^TS1\d{3}:/.test(text));
}

const NEEDS: Readonly<Record<Need, string>> = {
  reply: "sent, and a reply is awaited",
  deferred: "sent without waiting; a verdict is given at eom (where the mail server allows it)",
  context: "sent without waiting: no handler, but handlers of other phases read what it brings",
  none: "not sent: no handler reads it",
};

/** The filters and the negotiation, for people. */
export function describeChain(summary: ChainSummary, { filters, switchedOff }: Config): string {
  const lines = ["Filters, in order:"];
  if (summary.filters.length === 0) lines.push("  none: every message passes");
  // The phase files are a filter without a table.
  const first = summary.filters.length - filters.length;
  for (const [index, { hasOutcome, isObserved, name, phases }] of summary.filters.entries()) {
    const calls = hasOutcome ? [...phases, "outcome"] : phases;
    lines.push(`  ${name}${isObserved ? " (observe: logged, not applied)" : ""}: ${calls.join(" ")}`);
    const when = filters[index - first]?.when ?? null;
    for (const line of describeConditions(when, index, summary)) lines.push(`    ${line}`);
  }
  for (const name of switchedOff) lines.push(`  ${name}: switched off`);
  lines.push("", "Events, as the mail server is asked to send them:");
  for (const { name } of PHASE_LIST) {
    if (name === "abort" || name === "close") continue;
    lines.push(`  ${name.padEnd(8)} ${NEEDS[summary.needs[name]]}`);
  }
  lines.push(
    "",
    `Actions asked for: ${namesOf(ACTION, summary.actions).join(" ") || "none"}`,
    `Protocol flags asked for: ${namesOf(PROTOCOL, summary.protocol).join(" ") || "none"}`,
  );
  for (const [stage, names] of Object.entries(summary.macros))
    lines.push(`Macros asked for at ${stage}: ${names?.join(" ")}`);
  return `${lines.join("\n")}\n`;
}
