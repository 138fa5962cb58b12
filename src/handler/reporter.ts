/**
 * Makes the reports of a conversation: their subject, and the handler's file and line. Reports are made only if they
 * are logged.
 */
import type { Client } from "../protocol/client.ts";
import type { EventPhase, MilterSession } from "../protocol/session.ts";
import type { ChainFilter } from "./chain.ts";
import type { FilterChanges } from "./message/changes.ts";
import type { Difference } from "./message/difference.ts";
import type { ReceivedMessage } from "./message/received.ts";
import { recipientsUnder } from "./message/view.ts";
import type { FailureReport, NoteReport, Report, Subject, VerdictReport } from "./report.ts";
import { type NoteLevel, noteFields, noteText } from "./notes.ts";
import { describeThrown, type Site, siteOf } from "./site.ts";
import { fileOf } from "./start.ts";
import type { Address, CallPhase } from "./types.ts";
import type { Unreturned } from "./unreturned.ts";
import type { EncodedVerdict } from "./verdict.ts";
import type { Phase } from "../protocol/phases.ts";

/** The parts of a conversation that reports are made from. */
export interface ReportSource {
  readonly session: MilterSession;
  readonly message: ReceivedMessage | null;
  readonly helo: string;
  /** The recipient of the event at hand; null if that is about none. */
  readonly recipientAtHand: Address | null;
  /** All of the message has come: headers, body and end. */
  readonly isWhole: boolean;
  /** Milliseconds since MAIL came; null where no message is open. */
  readonly messageMs: number | null;
  /** The changes that count, in chain order. */
  allChanges(): readonly FilterChanges[];
}

/** A verdict with where it comes from. */
export interface AppliedVerdict {
  readonly verdict: EncodedVerdict;
  /** Null for a limit, and for a message that no filter has anything left to do with. */
  readonly filter: ChainFilter | null;
  readonly phase: Phase;
  /** The recipient that it was found at; null if it was at none. */
  readonly recipient: Address | null;
  /** It stands for a handler that failed, or for a limit. */
  readonly isFallback: boolean;
  /** Has the place in the handler: an error with the verdict's stack, or for a fallback the exception. */
  readonly origin: unknown;
  /** The condition that it comes from, by its key; absent for verdicts of handlers and limits. */
  readonly reason?: string;
}

/** The receiver of reports. */
export interface ReportSink {
  report(report: Report): void;
}

/** The macro of the name that a client has authenticated as. */
export const USER_MACRO = "{auth_authen}";
/** Most recipients that a report names; further recipients are counted. */
const MAX_NAMED = 10;

/** It has no state: it is made when there is something to report, since most connections report nothing. */
export class Reporter {
  readonly #source: ReportSource;
  readonly #sink: ReportSink;

  constructor(source: ReportSource, sink: ReportSink) {
    this.#source = source;
    this.#sink = sink;
  }

  verdict(
    { verdict, filter, phase, reason, recipient, isFallback, origin }: AppliedVerdict,
    scope: VerdictReport["scope"],
  ): void {
    if (verdict.kind === "skip") return;
    this.#sink.report({
      ...this.subject(recipient),
      kind: "verdict",
      verdict: verdict.kind,
      scope,
      filter: filter?.loaded.name ?? null,
      phase,
      site: filter === null || reason !== undefined ? null : placeOf(origin, filter, phase),
      reply: verdict.reply,
      reason: reason ?? null,
      isFallback,
      isObserved: filter?.isObserved ?? false,
      changes: 0,
    });
  }

  /**
   * A message was accepted, and perhaps quarantined.
   * @param filter the filter that quarantines it, or in observe mode would have changed it
   * @param difference what was sent, or in observe mode not sent; null if no filter changed anything
   */
  accepted(filter: ChainFilter | null, difference: Difference | null): void {
    const quarantine = difference?.quarantine ?? null;
    this.#sink.report({
      ...this.subject(),
      kind: "verdict",
      verdict: quarantine === null ? "accept" : "quarantine",
      scope: "message",
      filter: filter?.loaded.name ?? null,
      phase: "eom",
      site: filter === null || quarantine === null ? null : placeOf(quarantine.origin, filter, "eom"),
      reply: null,
      reason: quarantine?.reason ?? null,
      isFallback: false,
      isObserved: filter?.isObserved ?? false,
      changes: difference?.count ?? 0,
    });
  }

  failure(
    cause: FailureReport["cause"],
    filter: ChainFilter | null,
    phase: EventPhase,
    error: unknown,
    fallback: FailureReport["fallback"],
    subject: Subject | null = null,
  ): void {
    this.#sink.report(failureReport(subject ?? this.subject(), filter, phase.name, cause, error, fallback));
  }

  skippedBody({ loaded }: ChainFilter, message: string): void {
    this.#sink.report({
      ...this.subject(),
      kind: "skipped body",
      filter: loaded.name,
      phase: "body",
      site: null,
      message,
    });
  }

  unreturned({ verdict, filter, phase }: Unreturned): void {
    this.#sink.report({
      ...this.subject(),
      kind: "warning",
      verdict: verdict.kind,
      filter: filter.loaded.name,
      phase: phase.name,
      site: placeOf(verdict.origin, filter, phase.name),
    });
  }

  note(filter: ChainFilter, phase: EventPhase, said: Said): void {
    this.#sink.report(noteReport(this.subject(), filter, phase.name, said));
  }

  /** The subject of a report at this moment. */
  subject(recipient: Address | null = this.#source.recipientAtHand): Subject {
    const { helo, isWhole, message, messageMs, session } = this.#source;
    const { client, macros } = session;
    const all = message === null ? [] : recipientsUnder(message, this.#source.allChanges()).all;
    const accepted = recipient === null ? all : all.filter((each) => each !== recipient);
    return {
      recipient: recipient?.raw ?? null,
      queueId: macros.get("i") ?? "",
      messageId: message?.messageId ?? "",
      client: clientName(client),
      helo,
      user: macros.get(USER_MACRO) ?? "",
      sender: senderOf(message),
      recipients: accepted.slice(0, MAX_NAMED).map(({ raw }) => raw),
      moreRecipients: Math.max(0, accepted.length - MAX_NAMED),
      size: message !== null && isWhole ? message.size : null,
      ms: messageMs,
    };
  }
}

/** Postfix sends the null sender of mail that it made a session up for as an empty string. */
function senderOf(message: ReceivedMessage | null): string {
  if (message === null || !message.hasSender) return "";
  return message.sender.raw === "" ? "<>" : message.sender.raw;
}

/** The SMTP client as logs name it: `hostname [address]`, or the part that is known. */
export function clientName({ address, family, hostname }: Client): string {
  return `${hostname} [${address === "" ? family : address}]`;
}

export function failureReport(
  subject: Subject,
  filter: ChainFilter | null,
  phase: CallPhase,
  cause: FailureReport["cause"],
  error: unknown,
  fallback: FailureReport["fallback"],
): FailureReport {
  return {
    ...subject,
    kind: "failure",
    cause,
    filter: filter?.loaded.name ?? null,
    phase,
    site: filter === null ? null : placeOf(error, filter, phase),
    message: describeThrown(error),
    fallback,
  };
}

/** What a handler says with `session.log`. */
export interface Said {
  readonly level: NoteLevel;
  readonly text: unknown;
  readonly fields: unknown;
  readonly isKept: boolean;
}

export function noteReport(subject: Subject, filter: ChainFilter, phase: CallPhase, said: Said): NoteReport {
  return {
    ...subject,
    kind: "note",
    level: said.level,
    text: noteText(said.text),
    fields: noteFields(said.fields),
    filter: filter.loaded.name,
    phase,
    site: placeOf(new Error(), filter, phase),
    isKept: said.isKept,
  };
}

/** Where a handler did something; its file alone, if the stack does not say (a thrown string has none). */
function placeOf(origin: unknown, filter: ChainFilter, phase: CallPhase): Site | null {
  const file = phase === "outcome" ? fileOf(filter) : filter.files[phase];
  return siteOf(origin) ?? (file === undefined || file === "" ? null : { file, line: 0, column: 0 });
}
