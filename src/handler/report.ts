/** Reports of a conversation to its owner, for the log: facts, no formatting. */
import type { VerdictKind } from "../protocol/verdicts.ts";
import type { ReplyText } from "../protocol/reply-text.ts";
import type { Fallback } from "./fallback.ts";
import type { NoteFields, NoteLevel } from "./notes.ts";
import type { Site } from "./site.ts";
import type { CallPhase } from "./types.ts";

/** The subject of a report. Strings are as the client sent them, to be escaped where they are printed. */
export interface Subject {
  /** The recipient that is or was decided on, as in `envrcpt`; null where it is the message, or the connection. */
  readonly recipient: string | null;
  readonly queueId: string;
  /** "" if the message's headers were not sent, or hold none. */
  readonly messageId: string;
  /** `hostname [address]`, or the part that is known. */
  readonly client: string;
  readonly helo: string;
  /** The name that the client has authenticated as; "" for none. */
  readonly user: string;
  /** `<>` for the null sender, "" where no MAIL was sent. */
  readonly sender: string;
  /** The first of the accepted recipients. */
  readonly recipients: readonly string[];
  /** Number of accepted recipients beyond those. */
  readonly moreRecipients: number;
  /** Bytes of the message as it came; null unless all of it came. */
  readonly size: number | null;
  /** Milliseconds since MAIL came; null where no message is open. */
  readonly ms: number | null;
}

export interface VerdictReport extends Subject {
  readonly kind: "verdict";
  /** `quarantine`: accepted, and held back by the mail server. */
  readonly verdict: Exclude<VerdictKind, "skip"> | "quarantine";
  /** The object of the verdict. */
  readonly scope: "connection" | "message" | "recipient" | "command";
  /** The filter that decided; null for a message that all let pass, and for a limit. */
  readonly filter: string | null;
  readonly phase: CallPhase;
  readonly site: Site | null;
  readonly reply: ReplyText | null;
  /** The reason of a quarantine. */
  readonly reason: string | null;
  /** The verdict is the fallback for a handler that failed, was too slow, or for a limit. */
  readonly isFallback: boolean;
  /** Observe mode: it was logged and not applied. */
  readonly isObserved: boolean;
  /** In observe mode at `eom`: how many changes were not applied. Else the changes sent. */
  readonly changes: number;
}

export interface FailureReport extends Subject {
  readonly kind: "failure";
  /**
   * `error`: it threw or rejected; `timeout`: it was too slow; `late`: it failed after its verdict; `limit`: a limit of
   * the configuration, without a filter, or the filter's own `collectBody.max`; `spool`: the body that it collects could
   * not be written to the spool, or read from it.
   */
  readonly cause: "error" | "timeout" | "late" | "limit" | "spool";
  readonly filter: string | null;
  readonly phase: CallPhase;
  readonly site: Site | null;
  readonly message: string;
  /** The fallback that was applied; `none` at phases that decide nothing. */
  readonly fallback: Fallback | "none";
}

/** A handler's call ended without a verdict and had made one: a `return` is missing, most likely. */
export interface WarningReport extends Subject {
  readonly kind: "warning";
  readonly verdict: VerdictKind;
  readonly filter: string;
  readonly phase: CallPhase;
  /** Where the verdict was made; of a constant verdict only the handler's file is known. */
  readonly site: Site | null;
}

/** A filter goes on without the body, which is larger than it collects, as its `collectBody.over` says. */
export interface SkippedBodyReport extends Subject {
  readonly kind: "skipped body";
  readonly filter: string;
  readonly phase: CallPhase;
  readonly site: null;
  readonly message: string;
}

/** A line that a handler logs. */
export interface NoteReport extends Subject {
  readonly kind: "note";
  readonly level: NoteLevel;
  readonly text: string;
  readonly fields: NoteFields;
  readonly filter: string;
  readonly phase: CallPhase;
  readonly site: Site | null;
  /** One of the first of its message: the record of the message keeps it. */
  readonly isKept: boolean;
}

export type Report = VerdictReport | FailureReport | WarningReport | SkippedBodyReport | NoteReport;

/** The place of a warning: each place is reported once. */
export function placeOfWarning({ filter, phase, site, verdict }: WarningReport): string {
  return site === null || site.line === 0 ? `${filter} ${phase} ${verdict}` : `${site.file}:${site.line}`;
}
