/**
 * Option negotiation (OPTNEG) as pure functions: from the wants of a filter and the offer of the mail server to the answer
 * (docs/protocol.md, "Negotiation").
 */
import { readU32 } from "./bytes.ts";
import {
  ACTION,
  ALL_ACTIONS,
  ALL_PROTOCOL,
  MIN_VERSION,
  PROTOCOL,
  SYMLIST_STAGE,
  VERSION,
  VERSION_1_ACTIONS,
  VERSION_1_PROTOCOL,
} from "./constants.ts";
import type { MacroList } from "./encode.ts";
import { ProtocolError } from "./errors.ts";
import { PHASE_LIST } from "./phases.ts";

export interface Options {
  readonly version: number;
  /** Action flags, see `ACTION`. */
  readonly actions: number;
  /** Protocol flags, see `PROTOCOL`. */
  readonly protocol: number;
}

export type MacroStage = keyof typeof SYMLIST_STAGE;

/** The wishes of a filter; each bit is granted only if it is offered. */
export interface Wants {
  readonly actions: number;
  readonly protocol: number;
  /** Macro names by stage; a stage that is not named keeps the mail server's default list. */
  readonly macros: Readonly<Partial<Record<MacroStage, readonly string[]>>>;
}

export interface Answer extends Options {
  readonly lists: readonly MacroList[];
}

/** The macros of each stage that either mail server sends by default (docs/protocol.md, "Default macro lists"). */
export const DEFAULT_MACROS: Readonly<Record<MacroStage, readonly string[]>> = {
  CONNECT: ["j", "_", "{daemon_name}", "{if_name}", "{if_addr}", "{daemon_addr}"],
  HELO: ["{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"],
  MAIL: [
    "i",
    "{auth_type}",
    "{auth_authen}",
    "{auth_ssf}",
    "{auth_author}",
    "{mail_mailer}",
    "{mail_host}",
    "{mail_addr}",
  ],
  RCPT: ["i", "{rcpt_mailer}", "{rcpt_host}", "{rcpt_addr}"],
  DATA: ["i"],
  EOH: ["i"],
  EOM: ["i", "{msg_id}"],
};

/** Sendmail takes at most this many names a list (`MAXFILTERMACROS`). */
export const MAX_MACRO_NAMES = 50;

const VERSION_2_ACTIONS = 0x3f;
const VERSION_2_PROTOCOL = 0x7f;

/** Flags that a version has: other bits of the offer mean nothing. Postfix offers NR_HDR to old versions too. */
function actionsOf(version: number): number {
  return version < VERSION ? VERSION_2_ACTIONS : ALL_ACTIONS;
}

function protocolOf(version: number): number {
  if (version >= VERSION) return ALL_PROTOCOL;
  let mask = VERSION_2_PROTOCOL | PROTOCOL.NR_HDR;
  if (version >= 3) mask |= PROTOCOL.NOUNKNOWN;
  if (version >= 4) mask |= PROTOCOL.NODATA;
  return mask;
}

/**
 * Reads the mail server's OPTNEG payload; further bytes than the three words are ignored.
 * @throws ProtocolError PMILTER_ERR_TOO_SHORT, PMILTER_ERR_VERSION
 */
export function readOffer(bytes: Uint8Array, start: number, end: number): Options {
  if (end - start < 12) {
    throw new ProtocolError("PMILTER_ERR_TOO_SHORT", `OPTNEG of ${end - start} bytes, expected 12`);
  }
  const version = readU32(bytes, start);
  if (version < MIN_VERSION) {
    throw new ProtocolError("PMILTER_ERR_VERSION", `protocol version ${version}, expected at least ${MIN_VERSION}`);
  }
  return { version, actions: readU32(bytes, start + 4), protocol: readU32(bytes, start + 8) };
}

/** The answer to an offer: the lower version, and the flags that are wanted and offered. */
export function negotiate(offer: Options, wants: Wants): Answer {
  const version = Math.min(offer.version, VERSION);
  const offeredActions = (offer.actions === 0 ? VERSION_1_ACTIONS : offer.actions) & actionsOf(version);
  const offeredProtocol = (offer.protocol === 0 ? VERSION_1_PROTOCOL : offer.protocol) & protocolOf(version);
  const lists = (offeredActions & ACTION.SETSYMLIST) === 0 ? [] : listsOf(wants.macros);
  let actions = wants.actions & offeredActions & ~ACTION.SETSYMLIST;
  if (lists.length > 0) actions |= ACTION.SETSYMLIST;
  return { version, actions, protocol: wants.protocol & offeredProtocol, lists };
}

/** Lists by wish: all sessions of a chain have the same. */
const known = new WeakMap<Wants["macros"], readonly MacroList[]>();

function listsOf(macros: Wants["macros"]): readonly MacroList[] {
  let lists = known.get(macros);
  if (lists === undefined) {
    lists = macroLists(macros);
    known.set(macros, lists);
  }
  return lists;
}

/**
 * The macro lists in stage order. EOM and EOH go together or not at all: Sendmail uses an EOM list only if there is an
 * EOH list too, and an EOH list alone leaves its EOM without macros.
 */
function macroLists(macros: Wants["macros"]): MacroList[] {
  const asked = { ...macros };
  if (asked.EOH !== undefined || asked.EOM !== undefined) {
    asked.EOH ??= DEFAULT_MACROS.EOH;
    asked.EOM ??= DEFAULT_MACROS.EOM;
  }
  const lists: MacroList[] = [];
  for (const [name, stage] of Object.entries(SYMLIST_STAGE) as [MacroStage, number][]) {
    const names = asked[name];
    if (names !== undefined) lists.push({ stage, names });
  }
  return lists;
}

/**
 * Whether the negotiated options of a connection suffice for other handlers, after a reload: they get every event that they
 * read, the mail server awaits every reply that they give, and no action is missing that it might have granted.
 *
 * @param first the wishes that were negotiated
 */
export function suffices(granted: Options, first: Wants, wants: Wants): boolean {
  const isServed = PHASE_LIST.every(({ no, nr }) => {
    if ((wants.protocol & no) !== 0) return true;
    const isUnanswered = (granted.protocol & nr) !== 0 && (wants.protocol & nr) === 0;
    return (granted.protocol & no) === 0 && !isUnanswered;
  });
  const isNew = wants.actions & ~first.actions & ~ACTION.SETSYMLIST;
  const isUntold = wants.protocol & ~first.protocol & PROTOCOL.RCPT_REJ;
  return isServed && isNew === 0 && isUntold === 0;
}
