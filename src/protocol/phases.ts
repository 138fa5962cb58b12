/**
 * The phases of an SMTP session as a handler author knows them, each with its command, flags and verdicts. From this table
 * negotiation, the handler types, the configuration keys and the pages in docs are derived from it.
 */
import { COMMAND, type CommandCode, PROTOCOL } from "./constants.ts";
import type { VerdictKind } from "./verdicts.ts";

/** What a verdict of a phase decides on. */
export type Scope = "connection" | "message" | "recipient" | "none";

export interface PhaseInfo {
  readonly name: string;
  /** The position in protocol order, also the index of per-phase arrays. */
  readonly index: number;
  /** The command that leads to the phase; `close` has none: it is the end of the session, however that comes. */
  readonly command: CommandCode | 0;
  /** The flag that switches the command off, 0 if there is none. */
  readonly no: number;
  /** The flag that says the command gets no reply, 0 if there is none. */
  readonly nr: number;
  /** Verdicts that a handler may return, besides nothing (continue). */
  readonly verdicts: readonly VerdictKind[];
  readonly scope: Scope;
  /**
   * A content phase reaches the filter only after the mail server has the whole message (docs/design.md, "Verdicts on
   * content").
   */
  readonly content: boolean;
}

const ofConnection = ["accept", "reject", "tempfail"] as const;
const ofMessage = ["accept", "reject", "tempfail", "discard"] as const;

export const PHASES = {
  connect: {
    name: "connect",
    index: 0,
    command: COMMAND.CONNECT,
    no: PROTOCOL.NOCONNECT,
    nr: PROTOCOL.NR_CONN,
    verdicts: ofConnection,
    scope: "connection",
    content: false,
  },
  helo: {
    name: "helo",
    index: 1,
    command: COMMAND.HELO,
    no: PROTOCOL.NOHELO,
    nr: PROTOCOL.NR_HELO,
    verdicts: ofConnection,
    scope: "connection",
    content: false,
  },
  envfrom: {
    name: "envfrom",
    index: 2,
    command: COMMAND.MAIL,
    no: PROTOCOL.NOMAIL,
    nr: PROTOCOL.NR_MAIL,
    verdicts: ofMessage,
    scope: "message",
    content: false,
  },
  envrcpt: {
    name: "envrcpt",
    index: 3,
    command: COMMAND.RCPT,
    no: PROTOCOL.NORCPT,
    nr: PROTOCOL.NR_RCPT,
    verdicts: ofMessage,
    scope: "recipient",
    content: false,
  },
  data: {
    name: "data",
    index: 4,
    command: COMMAND.DATA,
    no: PROTOCOL.NODATA,
    nr: PROTOCOL.NR_DATA,
    verdicts: ofMessage,
    scope: "message",
    content: false,
  },
  header: {
    name: "header",
    index: 5,
    command: COMMAND.HEADER,
    no: PROTOCOL.NOHDRS,
    nr: PROTOCOL.NR_HDR,
    verdicts: ofMessage,
    scope: "message",
    content: true,
  },
  eoh: {
    name: "eoh",
    index: 6,
    command: COMMAND.EOH,
    no: PROTOCOL.NOEOH,
    nr: PROTOCOL.NR_EOH,
    verdicts: ofMessage,
    scope: "message",
    content: true,
  },
  body: {
    name: "body",
    index: 7,
    command: COMMAND.BODY,
    no: PROTOCOL.NOBODY,
    nr: PROTOCOL.NR_BODY,
    verdicts: ["skip", ...ofMessage] as const,
    scope: "message",
    content: true,
  },
  eom: {
    name: "eom",
    index: 8,
    command: COMMAND.BODYEOB,
    no: 0,
    nr: 0,
    verdicts: ofMessage,
    scope: "message",
    content: false,
  },
  unknown: {
    name: "unknown",
    index: 9,
    command: COMMAND.UNKNOWN,
    no: PROTOCOL.NOUNKNOWN,
    nr: PROTOCOL.NR_UNKN,
    verdicts: ["reject", "tempfail"] as const,
    scope: "none",
    content: false,
  },
  abort: {
    name: "abort",
    index: 10,
    command: COMMAND.ABORT,
    no: 0,
    nr: 0,
    verdicts: [] as const,
    scope: "none",
    content: false,
  },
  close: {
    name: "close",
    index: 11,
    command: 0,
    no: 0,
    nr: 0,
    verdicts: [] as const,
    scope: "none",
    content: false,
  },
} as const satisfies Readonly<Record<string, PhaseInfo>>;

/**
 * The name of a phase.
 * @example const isLate = (phase: Phase) => phase === "eom" || phase === "abort";
 */
export type Phase = keyof typeof PHASES;
/**
 * The verdicts that a phase has.
 * @example const atConnect: VerdictOf<"connect"> = "tempfail";
 */
export type VerdictOf<P extends Phase> = (typeof PHASES)[P]["verdicts"][number];

/** The phases in protocol order. */
export const PHASE_LIST: readonly (PhaseInfo & { readonly name: Phase })[] = Object.values(PHASES);
export const PHASE_NAMES: readonly Phase[] = PHASE_LIST.map((phase) => phase.name);

/** Whether a phase's verdict decides on a message or on a recipient of it. */
export function isOfMessage({ scope }: PhaseInfo): boolean {
  return scope === "message" || scope === "recipient";
}
