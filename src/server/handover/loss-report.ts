/** What is logged and counted of a session whose worker was lost: the same words as for verdicts that a worker gives. */
import { dirname } from "node:path";
import type { ServerCounter, WorkerCounter } from "../../counters.ts";
import type { SlotRecord } from "../../shared/ledger.ts";
import { decodeText, EMPTY, readU32 } from "../../protocol/bytes.ts";
import { COMMAND, LENGTH_BYTES } from "../../protocol/constants.ts";
import { type Client, readClient } from "../../protocol/client.ts";
import { isOfMessage, PHASES } from "../../protocol/phases.ts";
import { VERDICTS } from "../../protocol/verdicts.ts";
import { clientName } from "../../handler/reporter.ts";
import { formatSite, lineOf, type LogLine, subjectFields, verdictHead } from "../../handler/log-lines.ts";
import { versionOf } from "../../load/sources.ts";
import type { PeerName } from "../../net/peer.ts";
import type { Generation } from "../workers/generation.ts";
import type { LossCause } from "../workers/member.ts";
import type { Recovery } from "./recovery.ts";

/** Where it is not known whose handler it was: each that was awaited is named. */
const SUSPECTED = "handler was awaited when its worker was lost";

const CAUSES: Readonly<Record<LossCause, string>> = {
  blocked: "handler did not return",
  died: "handler ended its worker",
  memory: "handler's worker held too much memory",
};

export interface LossContext {
  readonly cause: LossCause;
  /** Workers that the handlers of the session have cost so far, with this one. */
  readonly cost: number;
  readonly generation: Generation;
  readonly isSure: boolean;
  readonly peer: PeerName;
}

/**
 * @param isSuspect (and `isSure`, that it was no other) the handler on record may be what the worker was lost to
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

/** Who and what the session was about, as far as that is on record. */
function subjectOf(record: SlotRecord, peer: PeerName, version: string): Record<string, unknown> {
  const { client, helo } = beginningOf(record.context ?? EMPTY);
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

/** Whether the message that was begun last is the one at hand. */
function hasMessage({ call, firstOwed, state }: SlotRecord): boolean {
  if (call !== null && isOfMessage(PHASES[call.phase])) return true;
  return state === "message" || (state === "decided" && firstOwed !== COMMAND.MAIL);
}

/** Who the SMTP client is, from the packets that began its session: null and "" if they do not tell. */
function beginningOf(context: Uint8Array): { readonly client: Client | null; readonly helo: string } {
  let client: Client | null = null;
  let helo = "";
  for (let at = 0; at < context.length;) {
    const end = at + LENGTH_BYTES + readU32(context, at);
    const payload = at + LENGTH_BYTES + 1;
    const code = context[payload - 1];
    if (code === COMMAND.CONNECT) client = readClient(context, payload, end);
    if (code === COMMAND.HELO) helo = decodeText(context, payload, context.indexOf(0, payload));
    at = end;
  }
  return { client, helo };
}
