/** `pmilter check`: loads everything as a start would, and prints what would happen. */
import { loadConfig } from "../config/load.ts";
import { ACTION, namesOf, PROTOCOL } from "../protocol/constants.ts";
import { PHASE_LIST } from "../protocol/phases.ts";
import type { Need } from "../handler/chain.ts";
import { checkHandlers } from "../server/tasks.ts";
import type { ChainSummary } from "../worker/messages.ts";

/**
 * @returns the exit code
 * @throws ConfigError, LoadError
 */
export async function check(configFile: string, workerUrl: URL): Promise<number> {
  const config = loadConfig(configFile);
  const summary = await checkHandlers(workerUrl, config, (message) => {
    if (message.kind === "print") process.stdout.write(message.text);
    else process.stderr.write(`${message.level}: ${message.text}\n`);
  });
  const warnings = config.notices.map(({ level, text }) => `${level}: ${text}\n`);
  process.stdout.write(
    `${config.file}: ok\n\n${describeChain(summary, config.switchedOff)}${warnings.length > 0 ? `\n${warnings.join("")}` : ""}`,
  );
  return 0;
}

const NEEDS: Readonly<Record<Need, string>> = {
  reply: "sent, and a reply is awaited",
  deferred: "sent without waiting; a verdict is given at eom (where the mail server allows it)",
  context: "sent without waiting: no handler, but others read what it brings",
  none: "not sent: nobody reads it",
};

/** The filters, and what the mail server is asked, for people. */
export function describeChain(summary: ChainSummary, switchedOff: readonly string[]): string {
  const lines = ["Filters, in order:"];
  if (summary.filters.length === 0) lines.push("  none: every message passes");
  for (const { name, phases, isObserved } of summary.filters) {
    lines.push(`  ${name}${isObserved ? " (observe: logged, not applied)" : ""}: ${phases.join(" ")}`);
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
