/**
 * The habits of the two mail servers, as tables: their offers, the macros that they send, the replies that they take.
 * Nothing here sends anything; `client.ts` reads the tables. Sources: Postfix `milter8.c` and `MILTER_README`, Sendmail
 * `milter.c` (8.17).
 */
import { ACTION, COMMAND, type CommandCode, PROTOCOL, SYMLIST_STAGE } from "../protocol/constants.ts";
import type { MacroList } from "../protocol/encode.ts";
import type { Phase } from "../protocol/phases.ts";
import type { ModificationReply, ReplyKind } from "../protocol/replies.ts";

export type Habit = "postfix" | "sendmail";

/** Phases that the client sends and that can get a reply. */
export type EventPhase = Exclude<Phase, "abort" | "close">;
/** Stages that have a macro list. */
export type MacroStage = "connect" | "helo" | "envfrom" | "envrcpt" | "data" | "eoh" | "eom";

export interface Offer {
  readonly version: number;
  readonly actions: number;
  readonly protocol: number;
}

/** The offer of both servers for a version: since version 6 (Postfix 2.6, Sendmail 8.14) the same bytes. */
export function defaultOffer(version: number): Offer {
  if (version >= 6) return { version, actions: 0x1ff, protocol: 0x1fffff };
  let protocol: number = 0x7f;
  if (version >= 3) protocol |= PROTOCOL.NOUNKNOWN;
  if (version >= 4) protocol |= PROTOCOL.NODATA;
  return { version, actions: 0x3f, protocol };
}

const TLS = ["{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"];

/** The macros sent at a stage unless the filter sends a list (docs/protocol.md, "Default macro lists"). */
export const MACRO_LISTS: Readonly<Record<Habit, Readonly<Record<MacroStage, readonly string[]>>>> = {
  postfix: {
    connect: ["j", "{daemon_name}", "{daemon_addr}", "v", "_"],
    helo: TLS,
    envfrom: ["i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}", "{mail_host}", "{mail_mailer}"],
    envrcpt: ["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"],
    data: ["i"],
    eoh: ["i"],
    eom: ["i"],
  },
  sendmail: {
    connect: ["j", "_", "{daemon_name}", "{if_name}", "{if_addr}"],
    helo: TLS,
    envfrom: [
      "i",
      "{auth_type}",
      "{auth_authen}",
      "{auth_ssf}",
      "{auth_author}",
      "{mail_mailer}",
      "{mail_host}",
      "{mail_addr}",
    ],
    envrcpt: ["{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"],
    data: [],
    eoh: [],
    eom: ["{msg_id}"],
  },
};

const STAGE_OF_NUMBER: Readonly<Record<number, MacroStage>> = {
  [SYMLIST_STAGE.CONNECT]: "connect",
  [SYMLIST_STAGE.HELO]: "helo",
  [SYMLIST_STAGE.MAIL]: "envfrom",
  [SYMLIST_STAGE.RCPT]: "envrcpt",
  [SYMLIST_STAGE.DATA]: "data",
  [SYMLIST_STAGE.EOM]: "eom",
  [SYMLIST_STAGE.EOH]: "eoh",
};

/** Sendmail keeps no more names of a list (`MAXFILTERMACROS`). */
const SENDMAIL_MAX_NAMES = 50;

/**
 * The lists in force after the filter's answer (docs/protocol.md, "Asking for macros"). A list replaces the default of its
 * stage; an empty list leaves Postfix at its default and makes Sendmail send no macros. Postfix skips an unknown stage
 * number, Sendmail drops it and the lists after it. Sendmail tests the wrong flag for EOM: the filter's EOM list counts only
 * together with an EOH list, and an EOH list alone leaves EOM without macros.
 */
export function effectiveMacroLists(habit: Habit, asked: readonly MacroList[]): Record<MacroStage, readonly string[]> {
  const lists = { ...MACRO_LISTS[habit] };
  const own: Partial<Record<MacroStage, readonly string[]>> = {};
  for (const { stage: number, names } of asked) {
    const stage = STAGE_OF_NUMBER[number];
    if (stage !== undefined) own[stage] = habit === "sendmail" ? names.slice(0, SENDMAIL_MAX_NAMES) : names;
    else if (habit === "sendmail") break;
  }
  if (habit === "sendmail") {
    if (own.eoh === undefined) delete own.eom;
    else own.eom ??= [];
  }
  for (const stage of Object.keys(own) as MacroStage[]) {
    const names = own[stage]!;
    if (names.length > 0 || habit === "sendmail") lists[stage] = names;
  }
  return lists;
}

/** The command byte that MACRO names for a phase. */
export function isMacroStage(phase: EventPhase): phase is MacroStage {
  return phase !== "header" && phase !== "body" && phase !== "unknown";
}

/** Names that the MACRO commands of each phase carry. */
export const PHASE_COMMAND: Readonly<Record<EventPhase, CommandCode>> = {
  connect: COMMAND.CONNECT,
  helo: COMMAND.HELO,
  envfrom: COMMAND.MAIL,
  envrcpt: COMMAND.RCPT,
  data: COMMAND.DATA,
  header: COMMAND.HEADER,
  eoh: COMMAND.EOH,
  body: COMMAND.BODY,
  eom: COMMAND.BODYEOB,
  unknown: COMMAND.UNKNOWN,
};

const OF_CONNECTION: readonly ReplyKind[] = ["continue", "accept", "reject", "tempfail", "replycode"];
const OF_MESSAGE: readonly ReplyKind[] = [...OF_CONNECTION, "discard"];
const OF_MESSAGE_OR_SKIP: readonly ReplyKind[] = [...OF_MESSAGE, "skip"];

/**
 * The final replies that a server takes in a phase (docs/protocol.md, "Which reply where"). SKIP is listed where the server
 * knows it; it must also have been negotiated. ACCEPT and DISCARD at `unknown` are taken, though a filter should avoid them.
 */
export const FINAL_REPLIES: Readonly<Record<Habit, Readonly<Record<EventPhase, readonly ReplyKind[]>>>> = {
  postfix: {
    connect: OF_CONNECTION,
    helo: OF_CONNECTION,
    envfrom: OF_MESSAGE,
    envrcpt: OF_MESSAGE_OR_SKIP,
    data: OF_MESSAGE,
    header: OF_MESSAGE_OR_SKIP,
    eoh: OF_MESSAGE_OR_SKIP,
    body: OF_MESSAGE_OR_SKIP,
    eom: OF_MESSAGE,
    unknown: OF_MESSAGE,
  },
  sendmail: {
    connect: OF_CONNECTION,
    helo: OF_CONNECTION,
    envfrom: OF_MESSAGE,
    envrcpt: OF_MESSAGE,
    data: OF_MESSAGE,
    header: OF_MESSAGE,
    eoh: OF_MESSAGE,
    body: OF_MESSAGE_OR_SKIP,
    eom: OF_MESSAGE,
    unknown: OF_MESSAGE,
  },
};

/** PROGRESS belongs to the end of the message; Postfix takes it wherever it waits, apart from `unknown`. */
export function takesProgress(habit: Habit, phase: EventPhase): boolean {
  return phase === "eom" || (habit === "postfix" && phase !== "unknown");
}

/** The action that a modification needs. */
export function actionOf(modification: ModificationReply): number {
  switch (modification.kind) {
    case "addHeader":
    case "insertHeader":
      return ACTION.ADDHDRS;
    case "changeHeader":
      return ACTION.CHGHDRS;
    case "replaceBody":
      return ACTION.CHGBODY;
    case "addRecipient":
      return modification.withParams ? ACTION.ADDRCPT_PAR : ACTION.ADDRCPT;
    case "deleteRecipient":
      return ACTION.DELRCPT;
    case "changeFrom":
      return ACTION.CHGFROM;
    case "quarantine":
      return ACTION.QUARANTINE;
    default:
      return modification satisfies never;
  }
}
