/** Log lines and counters of a session whose worker was lost: in the same words as for verdicts that a worker gives. */
import { dirname } from "node:path";
import type { ServerCounter, WorkerCounter } from "../../counters.ts";
import type { SlotRecord } from "../../shared/session-records.ts";
import { decodeText, EMPTY } from "../../protocol/bytes.ts";
import { COMMAND } from "../../protocol/constants.ts";
import { type Client, readClient } from "../../protocol/client.ts";
import { PacketWalk } from "../../protocol/packets.ts";
import { isOfMessage, PHASES } from "../../protocol/phases.ts";
import { VERDICTS } from "../../protocol/verdicts.ts";
import { clientName } from "../../handler/reporter.ts";
import { formatSite, lineOf, type LogLine, subjectFields, verdictHead } from "../../handler/log-lines.ts";
import { versionOf } from "../../load/sources.ts";
import type { PeerName } from "../../net/peer.ts";
import type { Generation } from "../workers/generation.ts";
import type { LossCause } from "../workers/member.ts";
import type { Recovery } from "./recovery.ts";

/** Where it is not known which handler it was: each handler that was awaited is named. */
const SUSPECTED = "handler was awaited when its worker was lost";

const CAUSES: Readonly<Record<LossCause, string>> = {
  blocked: "handler did not return",
  died: "handler ended its worker",
  memory: "handler's worker held too much memory",
};

export interface LossContext {
  readonly cause: LossCause;
  /** Workers that the handlers of the session have cost so far, this loss included. */
  readonly cost: number;
  readonly generation: Pick<Generation, "config" | "sources" | "summary">;
  readonly isSure: boolean;
  readonly peer: PeerName;
}

/**
 * @param isSuspect the worker may have been lost to the handler on record; with `isSure` to no other
 */
export function lossLines(
  record: SlotRecord,
  recovery: Recovery,
  isSuspect: boolean,
  { cause, cost, generation, isSure, peer }: LossContext,
): LogLine[] {
  const { call } = record;
  const subject = subjectOf(record, peer, versionOf(generation.sources));
  const lines: LogLine[] = [];
  const outcome = recovery.kind === "resume" && recovery.verdict !== null ? recovery.verdict.outcome : null;
  if (isSuspect && call !== null) {
    const filter = generation.summary.filters[call.filter];
    const file = filter?.files[call.phase];
    const fields = {
      cause,
      ...subject,
      filter: filter?.name ?? null,
      phase: call.phase,
      ...(file === undefined ? {} : { at: formatSite({ file, line: 0, column: 0 }, dirname(generation.config.file)) }),
      ...(outcome === null ? {} : { fallback: outcome }),
    };
    lines.push(lineOf("error", isSure ? CAUSES[cause] : SUSPECTED, fields));
  }
  if (recovery.kind === "end" && recovery.isFailure) {
    const fields = { ...subject, error: `its worker was lost, and ${recovery.reason}` };
    lines.push(lineOf("error", "connection closed", fields));
  }
  if (recovery.kind === "resume" && recovery.verdict !== null) {
    const { isFallback, outcome, scope } = recovery.verdict;
    const reason =
      scope === "connection" && cost > 1 ? `its handlers have cost ${cost} workers` : "its worker was lost";
    const why = isFallback ? { fallback: true, reason } : {};
    const fields = { verdict: outcome, scope, ...subject, ...why };
    lines.push(lineOf("notice", verdictHead(outcome, scope), fields));
  }
  return lines;
}

export function countersOf(recovery: Recovery): (WorkerCounter | ServerCounter)[] {
  if (recovery.kind === "end") return recovery.isFailure ? ["sessionsLost"] : [];
  if (recovery.verdict === null) return ["sessionsMoved"];
  const { isFallback, outcome, scope } = recovery.verdict;
  const fallbacks = isFallback ? (["fallbacks", "messagesWithFallback"] as const) : [];
  if (scope === "connection") return ["sessionsMoved", "connectionsRefused", ...fallbacks];
  return ["sessionsMoved", "messages", VERDICTS[outcome].counter, ...fallbacks];
}

/** Client, sender and message of the session, as far as they are on record. */
function subjectOf(record: SlotRecord, peer: PeerName, version: string): Record<string, unknown> {
  const { client, helo } = openingOf(record.opening ?? EMPTY);
  const isOpen = hasMessage(record);
  const subject = {
    recipient: null,
    queueId: record.queueId,
    messageId: "",
    client: client === null ? peer : clientName(client),
    helo,
    user: isOpen ? record.user : "",
    sender: isOpen ? (record.sender === "" ? "<>" : (record.sender ?? "")) : "",
    recipients: [],
    moreRecipients: 0,
    size: null,
    ms: isOpen && record.sender !== null ? record.messageMs : null,
  };
  return subjectFields(subject, version);
}

/** Whether the last message on record is still open. */
function hasMessage({ call, firstOwed, state }: SlotRecord): boolean {
  if (call !== null && isOfMessage(PHASES[call.phase])) return true;
  return state === "message" || (state === "decided" && firstOwed !== COMMAND.MAIL);
}

/** The SMTP client and its HELO name, from the opening; null and "" if it does not tell. */
function openingOf(opening: Uint8Array): { readonly client: Client | null; readonly helo: string } {
  let client: Client | null = null;
  let helo = "";
  for (const packets = new PacketWalk(opening); packets.next();) {
    const { code, end, start } = packets;
    if (code === COMMAND.CONNECT) client = readClient(opening, start, end);
    if (code === COMMAND.HELO) helo = decodeText(opening, start, opening.indexOf(0, start));
  }
  return { client, helo };
}
