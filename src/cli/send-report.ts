/**
 * The output of `pmilter send`: an outcome as text for people, or as JSON. Pure; it sends and prints nothing. Text of the
 * filter or the message is escaped, so that it cannot move the terminal's cursor.
 */
import type { SmtpReply } from "../protocol/replies.ts";
import type { HandlerFailure } from "../server/control/recent-failures.ts";
import { harmless } from "../terminal.ts";
import type { Modification, Outcome, PhaseOutcome } from "../testing/outcome.ts";

const INDENT = "  ";

/** The outcome of a message sent to a server, with the failures of the server's handlers. */
export interface SendOutcome extends Outcome {
  readonly failures: readonly HandlerFailure[];
}

/** The shape of the testing kit as it is, indented by two spaces, with a line end. */
export function formatJson(outcome: SendOutcome): string {
  return `${JSON.stringify(outcome, null, 2)}\n`;
}

/**
 * The phases with verdict, milliseconds and reply text in columns (headers and pieces of body with the same verdict
 * share a line), the recipients if any was refused, the modifications, the failures, the verdict, and at the end the
 * message as it would be delivered. No colours; ends with a line end.
 * @param more sections behind the failures
 */
export function formatOutcome(outcome: SendOutcome, more: readonly string[] = []): string {
  const rows = groupPhases(outcome.phases).map((group) => [
    group.count > 1 ? `${group.phase} ×${group.count}` : group.phase,
    verdictText(group),
    `${group.ms.toFixed(3)} ms`,
    replyText(group.reply),
  ]);
  const parts = [section("phases", table(rows))];
  if (outcome.recipients.some((recipient) => recipient.verdict !== "accept")) {
    const lines = outcome.recipients.map(({ address, verdict, reply }) => [
      printable(`<${address}>`),
      verdict,
      replyText(reply),
    ]);
    parts.push(section("recipients", table(lines)));
  }
  if (outcome.modifications.length > 0) {
    parts.push(
      section(
        "modifications",
        outcome.modifications.map((change) => INDENT + modificationText(change)),
      ),
    );
  }
  if (outcome.failures.length > 0) parts.push(section("failures", outcome.failures.map(failureText)));
  parts.push(...more);
  const reply = replyText(outcome.reply);
  parts.push(`verdict: ${outcome.verdict}${reply === "" ? "" : `, ${reply}`}\n`);
  if (outcome.verdict === "accept") parts.push(section("message", messageLines(outcome.message)));
  return parts.join("\n");
}

function failureText({ fallback, message, ...place }: HandlerFailure): string {
  return placed(place, `${message}${fallback === null ? "" : `; the fallback: ${fallback}`}`);
}

type Place = { readonly [part in "filter" | "phase" | "place"]: string | null };

/** A line about a filter's handler. */
export function placed(place: Place, text: string): string {
  return `${INDENT}${placeText(place)}: ${printable(text)}`.replace(`${INDENT}: `, INDENT);
}

export function placeText({ filter, phase, place }: Place): string {
  const where = [filter === null ? "" : `filter ${filter}`, phase ?? "", place === null ? "" : `at ${place}`];
  return printable(where.filter((part) => part !== "").join(", "));
}

interface PhaseGroup {
  readonly phase: string;
  readonly verdict: string;
  readonly reply: SmtpReply | null;
  count: number;
  ms: number;
  progress: number;
}

function groupPhases(phases: readonly PhaseOutcome[]): PhaseGroup[] {
  const groups: PhaseGroup[] = [];
  for (const { phase, verdict, reply, ms, progress = 0 } of phases) {
    const last = groups.at(-1);
    const isContent = phase === "header" || phase === "body";
    if (isContent && last?.phase === phase && last.verdict === verdict && reply === null && last.reply === null) {
      last.count += 1;
      last.ms += ms;
      last.progress += progress;
    } else {
      groups.push({ phase, verdict, reply, count: 1, ms, progress });
    }
  }
  return groups;
}

function verdictText({ verdict, progress }: PhaseGroup): string {
  const text = verdict === "none" ? "(no reply wanted)" : verdict;
  return progress > 0 ? `${text}, progress ×${progress}` : text;
}

export function replyText(reply: SmtpReply | null): string {
  if (reply === null) return "";
  const enhanced = reply.enhanced === "" ? "" : ` ${reply.enhanced}`;
  return `${reply.code}${enhanced} ${printable(reply.lines.join(" / "))}`.trimEnd();
}

function modificationText(change: Modification): string {
  switch (change.kind) {
    case "addHeader":
      return `addHeader ${printable(`${change.name}: ${change.value}`)}`;
    case "insertHeader":
      return `insertHeader at ${change.index} ${printable(`${change.name}: ${change.value}`)}`;
    case "changeHeader":
      return `changeHeader no. ${change.index} ${printable(`${change.name}: ${change.value}`)}`;
    case "deleteHeader":
      return `deleteHeader no. ${change.index} ${printable(change.name)}`;
    case "changeFrom":
    case "addRecipient":
      return `${change.kind} ${printable([change.address, ...change.params].join(" "))}`;
    case "deleteRecipient":
      return `deleteRecipient ${printable(change.address)}`;
    case "replaceBody": // Its text stands in the resulting message.
      return `replaceBody, ${change.body.length} characters`;
    case "quarantine":
      return `quarantine ${printable(change.reason)}`;
    default:
      return change satisfies never;
  }
}

/** Left-aligned columns; numbers of milliseconds end in the same column. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  return rows.map((row) => {
    const cells = row.map((cell, at) => (cell.endsWith(" ms") ? cell.padStart(widths[at]!) : cell.padEnd(widths[at]!)));
    return `${INDENT}${cells.join("  ")}`.trimEnd();
  });
}

export function section(title: string, lines: readonly string[]): string {
  return `${title}\n${lines.join("\n")}\n`;
}

function messageLines(message: string): string[] {
  const lines = message.split("\r\n");
  if (lines.at(-1) === "") lines.pop();
  return lines.map((line) => printable(line, "\t"));
}

/** Text of the filter or the message, with each unsafe character as its byte or code in hex. */
export function printable(text: string, kept?: string): string {
  return harmless(text, inHex, kept);
}

function inHex(character: string): string {
  const code = character.codePointAt(0)!;
  if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16)}`;
  if (code === 0x0a) return "\\n";
  if (code === 0x0d) return "\\r";
  if (code === 0x09) return "\\t";
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u{${code.toString(16)}}`;
}
