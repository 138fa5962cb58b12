/**
 * The known differences between libmilter and pmilter: each is named, recognised as narrowly as it can be, and has the
 * reason why pmilter's answer is the better one. What is not here fails the test; so does what is here and never seen.
 * `docs/differential.md` has the same list for readers, and is checked against this one.
 */
import type { OptnegReply } from "../../src/protocol/replies.ts";
import type { Answer, Command, Reply } from "./commands.ts";
import type { MacrosSeen } from "./context.ts";
import type { Fate } from "./libmilter.ts";
import { MACROS } from "./rules.ts";
import { flagsOf, type Offer } from "./streams.ts";

export interface Seen {
  readonly command: Command;
  readonly fate: Fate;
  readonly libmilter: Answer;
  readonly pmilter: Answer;
  /** What pmilter has said that ended the message, and what ended the connection; null if nothing. */
  readonly messageFinal: Reply | null;
  readonly connectionFinal: Reply | null;
  /** Which command brought `messageFinal`. */
  readonly decidedBy: string;
  readonly isNegotiated: boolean;
  /** A difference went before in this stream: the two may have counted different ends of messages. */
  readonly isTainted: boolean;
  /** Postfix made the session up: `i` and its `v` came for CONNECT. */
  readonly isSimulated: boolean;
  /** The macro `v` is a bare version. */
  readonly isSendmail: boolean;
  readonly macros: MacrosSeen;
  /** The sender of the last MAIL, without brackets; null if none came. */
  readonly sender: string | null;
}

/** How far the two are in different states, so that answers cannot be compared: up to the next MAIL, CONNECT, or never. */
export type Until = "same" | "message" | "session" | "end";

export interface Known {
  readonly name: string;
  /** Why pmilter's answer is the better one. */
  readonly reason: string;
}

export interface Difference extends Known {
  readonly is: (seen: Seen) => boolean;
  readonly until: Until;
  /** Takes out what is explained: the rest has to be the same. */
  readonly settle?: (seen: Seen) => Seen;
}

/** An offer, and what both answered; null for a connection that was closed. */
export interface Negotiation {
  readonly offer: Offer;
  readonly libmilter: OptnegReply | null;
  readonly pmilter: OptnegReply | null;
}

export interface NegotiationDifference extends Known {
  readonly is: (seen: Negotiation) => boolean;
}

export const NEGOTIATION_DIFFERENCES: readonly NegotiationDifference[] = [
  {
    name: "newer-than-the-version",
    is: ({ offer, libmilter, pmilter }) => {
      if (offer.version >= 6 || libmilter === null || pmilter === null) return false;
      const { actions, protocol } = flagsOf(offer.version);
      const hasNewer = (libmilter.actions & ~actions) !== 0 || (libmilter.protocol & ~protocol) !== 0;
      return (
        hasNewer &&
        pmilter.version === libmilter.version &&
        pmilter.actions === (libmilter.actions & actions) &&
        pmilter.protocol === (libmilter.protocol & protocol) &&
        pmilter.lists.length === 0
      );
    },
    reason:
      "A mail server with an older version cannot mean flags that this version does not have. libmilter grants all offered bits.",
  },
];

function isReply(left: Reply | null | undefined, right: Reply | null | undefined): boolean {
  return left != null && right != null && left.code === right.code && left.payload.equals(right.payload);
}

/** Whether both sides said the same. The order of changes is each side's own. */
export function isSame({ libmilter, pmilter }: Seen): boolean {
  const isFinalSame =
    libmilter.final === undefined ? pmilter.final === undefined : isReply(libmilter.final, pmilter.final);
  const left = texts(libmilter.changes);
  const right = texts(pmilter.changes);
  return (
    isFinalSame &&
    libmilter.second === undefined &&
    libmilter.isClosed === pmilter.isClosed &&
    left.length === right.length &&
    left.every((text, at) => text === right[at])
  );
}

function texts(changes: readonly Reply[]): string[] {
  return changes.map(({ code, payload }) => code + payload.toString("latin1")).sort();
}

// The stream.

const OF_MESSAGE = "RTLNBE";

const lackOfNul = ({ payload }: Command): boolean => payload.length > 0 && payload.at(-1) !== 0;

/** What no mail server sends: pmilter closes the connection when it looks at it. */
function isMalformed(command: Command): boolean {
  const { code, payload } = command;
  if ("HMRULC".includes(code) && payload.length === 0) return true;
  if ("HMRUL".includes(code) && lackOfNul(command)) return true;
  if (code === "L") return payload.indexOf(0) === payload.length - 1;
  if (code === "C") return !/^[^\0]*\0(?:U|[46L][^]{2}[^\0]*\0)/.test(payload.toString("latin1"));
  return false;
}

/** A command that may close a connection. */
export function isOdd(command: Command): boolean {
  if (command.length !== undefined) return true;
  const { code, payload } = command;
  if (code === "D") return payload.length > 1 && lackOfNul(command);
  if (code === "C" && payload.toString("latin1").includes("example.org\0")) return true;
  return (
    isMalformed(command) ||
    payload.length > 65_535 ||
    (code === "B" && payload.length === 0) ||
    (code === "L" && payload[0] === 0)
  );
}

const isIgnored = ({ fate, libmilter }: Seen): boolean => fate.isIgnored && !libmilter.isClosed;
const onlyPmilterCloses = ({ libmilter, pmilter }: Seen): boolean => pmilter.isClosed && !libmilter.isClosed;
const onlyLibmilterCloses = ({ libmilter, pmilter }: Seen): boolean => libmilter.isClosed && !pmilter.isClosed;
/** pmilter said that again, or nothing where no reply is awaited. */
const isAgain = ({ pmilter }: Seen, final: Reply): boolean =>
  pmilter.changes.length === 0 && (pmilter.final === undefined || isReply(pmilter.final, final));

// Changes at the end of a message.

interface HeaderChange {
  readonly index: number;
  readonly name: string;
  readonly value: string;
}

/** A header that is added or inserted, or undefined. */
function addedHeader({ code, payload }: Reply): HeaderChange | undefined {
  if (code !== "h" && code !== "i") return undefined;
  const [name = "", value = ""] = payload
    .subarray(code === "i" ? 4 : 0)
    .toString("latin1")
    .split("\0");
  return { index: code === "i" ? payload.readUInt32BE(0) : -1, name, value };
}

function findAdded(changes: readonly Reply[], name: string): HeaderChange | undefined {
  for (const change of changes) {
    const added = addedHeader(change);
    if (added?.name === name) return added;
  }
  return undefined;
}

/** Both sides without the changes that fit. */
function without(seen: Seen, fits: (change: Reply) => boolean): Seen {
  const left = (answer: Answer): Answer => ({ ...answer, changes: answer.changes.filter((change) => !fits(change)) });
  return { ...seen, libmilter: left(seen.libmilter), pmilter: left(seen.pmilter) };
}

const isNewSender = ({ code }: Reply): boolean => code === "e";

/** The sender that a side asks for, without brackets; undefined if it asks for none, or gives it arguments. */
function newSender({ changes }: Answer): string | undefined {
  const payload = changes.find(isNewSender)?.payload.toString("latin1");
  return /^<?([^\0>]*)>?\0$/.exec(payload ?? "")?.[1];
}

const isNamed = (name: string) => (change: Reply) => addedHeader(change)?.name === name;

/** Both add a header of that name, with different values. */
function differsIn(seen: Seen, name: string): readonly [libmilter: string, pmilter: string] | undefined {
  const libmilter = findAdded(seen.libmilter.changes, name);
  const pmilter = findAdded(seen.pmilter.changes, name);
  if (libmilter === undefined || pmilter === undefined || libmilter.value === pmilter.value) return undefined;
  return [libmilter.value.trim(), pmilter.value.trim()];
}

/** The macros of a message that differ. */
function macrosThatDiffer(seen: Seen): { name: string; pmilter: string }[] {
  const values = differsIn(seen, "X-Macros")?.map((value) => value.split(" ").slice(1));
  if (values === undefined) return [];
  const [libmilter, pmilter] = values as [string[], string[]];
  return MACROS.map((name, at) => ({ name, libmilter: libmilter[at], pmilter: pmilter[at]! })).filter(
    (macro) => macro.libmilter !== macro.pmilter,
  );
}

/** Macros that pmilter kept from another message. */
export function staleMacros({ pmilter, macros }: Seen): string[] {
  const values = findAdded(pmilter.changes, "X-Macros")?.value.trim().split(" ").slice(1) ?? [];
  return MACROS.filter((name, at) => at < values.length && !macros.isFresh(name) && !macros.early.has(values[at]!));
}

// In the order in which they are tried.
export const DIFFERENCES: readonly Difference[] = [
  {
    name: "before-negotiation",
    is: (seen) => !seen.isNegotiated && seen.command.code !== "Q" && seen.pmilter.final === undefined,
    until: "end",
    reason:
      "No reply is valid before the rules are negotiated: pmilter closes. libmilter accepts MAIL and HELO, and ignores other commands.",
  },
  {
    name: "second-optneg",
    is: (seen) => seen.isNegotiated && seen.command.code === "O" && isIgnored(seen) && seen.pmilter.isClosed,
    until: "end",
    reason:
      "libmilter ignores the second OPTNEG, and the mail server waits for its timeout. pmilter closes at once, with a line in the log.",
  },
  {
    name: "missing-nul",
    is: (seen) =>
      onlyPmilterCloses(seen) && !seen.fate.isIgnored && "HMRU".includes(seen.command.code) && lackOfNul(seen.command),
    until: "end",
    reason:
      "A cut string is not the string that the client sent: pmilter closes. libmilter continues without the last argument, or does not reply to a HELO at all.",
  },
  {
    name: "impossible-length",
    is: (seen) => onlyPmilterCloses(seen) && seen.command.length !== undefined,
    until: "end",
    reason:
      "A length of 0 leaves no room for a command, and 0xFFFFFFFF is no possible length: pmilter closes, as the bytes that follow are no packets. libmilter treats both as an empty packet.",
  },
  {
    name: "macro-without-nul",
    is: (seen) => onlyPmilterCloses(seen) && seen.command.code === "D" && lackOfNul(seen.command),
    until: "end",
    reason:
      "Half of a value could be taken for another queue id or login: pmilter closes. libmilter continues without the macro.",
  },
  {
    name: "malformed-and-ignored",
    is: (seen) => onlyPmilterCloses(seen) && isIgnored(seen) && isMalformed(seen.command),
    until: "end",
    reason:
      "libmilter does not check commands that it ignores. pmilter checks them, and closes on a malformed packet as everywhere.",
  },
  {
    name: "malformed-after-verdict",
    is: (seen) =>
      onlyLibmilterCloses(seen) &&
      isMalformed(seen.command) &&
      (seen.connectionFinal !== null || seen.messageFinal !== null),
    until: "end",
    reason:
      "After a verdict, pmilter repeats the verdict for each further command without checking its packet. libmilter checks the packet, and closes.",
  },
  {
    name: "empty-body-packet",
    is: (seen) => onlyLibmilterCloses(seen) && seen.command.code === "B" && seen.command.payload.length === 0,
    until: "end",
    reason:
      "pmilter treats a BODY without bytes like any other chunk of the body. libmilter closes, and the mail server continues without its filter.",
  },
  {
    name: "header-without-name",
    is: (seen) => onlyLibmilterCloses(seen) && seen.command.code === "L" && seen.command.payload[0] === 0,
    until: "end",
    reason:
      "In pmilter handlers get an empty name and decide. libmilter closes, and the mail server continues without its filter.",
  },
  {
    name: "address-that-is-none",
    is: (seen) => onlyLibmilterCloses(seen) && seen.command.code === "C" && !isMalformed(seen.command),
    until: "end",
    reason:
      "The client's address is information, and handlers get it as it was sent. libmilter closes, and the mail server continues without its filter.",
  },
  {
    name: "large-packet",
    is: (seen) => onlyLibmilterCloses(seen) && seen.command.payload.length > 65_535,
    until: "end",
    reason:
      "Postfix sends headers of 100 KB. libmilter closes on more than 65,535 bytes; pmilter accepts packets up to `limits.packet`.",
  },
  {
    name: "second-connect",
    is: (seen) => seen.command.code === "C" && isIgnored(seen) && !seen.pmilter.isClosed,
    until: "session",
    reason:
      "libmilter ignores the second CONNECT, and the mail server waits; the filter judges the following commands by the earlier client. In pmilter a second CONNECT begins a session.",
  },
  {
    name: "quit-nc",
    is: (seen) => seen.command.code === "K" && isIgnored(seen),
    until: "session",
    reason:
      "libmilter accepts QUIT_NC only after the end of a message or an unknown command. Elsewhere it keeps the old session, and ignores the CONNECT of the next.",
  },
  {
    name: "after-the-connection",
    is: (seen) =>
      seen.connectionFinal !== null &&
      `HMU${OF_MESSAGE}`.includes(seen.command.code) &&
      !seen.libmilter.isClosed &&
      isAgain(seen, seen.connectionFinal),
    until: "session",
    reason:
      "In pmilter a refused connection stays refused. libmilter calls the filter again for each command, so a message could get past it.",
  },
  {
    name: "after-a-discarded-recipient",
    is: (seen) =>
      seen.messageFinal?.code === "d" &&
      seen.decidedBy === "R" &&
      OF_MESSAGE.includes(seen.command.code) &&
      !seen.fate.isIgnored &&
      !seen.libmilter.isClosed &&
      isAgain(seen, seen.messageFinal),
    until: "message",
    reason:
      "In pmilter DISCARD at RCPT applies to the message. libmilter continues the message as if there were no verdict.",
  },
  {
    name: "after-the-message",
    is: (seen) =>
      seen.messageFinal !== null &&
      OF_MESSAGE.includes(seen.command.code) &&
      (seen.fate.isIgnored || seen.fate.before === "unkn") &&
      !seen.libmilter.isClosed &&
      isAgain(seen, seen.messageFinal),
    until: "message",
    reason:
      "A message that has its verdict gets the verdict again. libmilter does not reply, or after an unknown command begins a message without sender.",
  },
  {
    name: "content-after-unknown",
    is: (seen) =>
      isIgnored(seen) &&
      seen.fate.before === "unkn" &&
      OF_MESSAGE.includes(seen.command.code) &&
      !seen.pmilter.isClosed,
    until: "message",
    reason:
      "An unknown command says nothing about the message. After one, libmilter ignores headers and end of a message, without a reply.",
  },
  {
    name: "out-of-order",
    is: (seen) => isIgnored(seen) && OF_MESSAGE.includes(seen.command.code) && !seen.pmilter.isClosed,
    until: "message",
    reason:
      "libmilter ignores a command that does not fit, and drops the message without a reply, so that the mail server waits for its timeout. pmilter runs the message through the handlers.",
  },
  {
    name: "unknown-in-content",
    is: (seen) => seen.command.code === "U" && seen.fate.endsMessage && isSame(seen),
    until: "message",
    reason:
      "In libmilter an unknown command in the content ends the message. In pmilter it is like any other command, and the message continues.",
  },
  {
    name: "body-in-bodyeob",
    is: (seen) => {
      const { command, fate, libmilter, pmilter } = seen;
      if (command.code !== "E" || command.payload.length === 0 || fate.replies === 1) return false;
      if (libmilter.isClosed || pmilter.final === undefined) return false;
      return fate.replies === 0 || libmilter.final?.code === "s" || isReply(libmilter.final, pmilter.final);
    },
    until: "message",
    reason:
      "One command gets one reply. libmilter sends the verdict on the last chunk of body twice, and none at all if body gets no replies: `eom` is not run.",
  },
  {
    name: "made-up-session",
    is: (seen) =>
      seen.isSimulated &&
      "RLNB".includes(seen.command.code) &&
      "artyd".includes(seen.libmilter.final?.code ?? "-") &&
      seen.pmilter.final?.code === "c",
    until: "message",
    reason:
      "If a filter refuses a recipient in such a session, Postfix keeps its own mail in the queue, with an error. So pmilter gives the verdict for the message at `eom`.",
  },
  {
    name: "accept-at-eom",
    is: ({ command, libmilter, pmilter }) =>
      command.code === "E" && libmilter.final?.code === "a" && pmilter.final?.code === "c",
    until: "same",
    settle: (seen) => ({ ...seen, libmilter: { ...seen.libmilter, final: seen.pmilter.final } }),
    reason: "CONTINUE at the end of a message means ACCEPT to every mail server.",
  },
  {
    name: "sender-that-is-there",
    is: ({ libmilter, pmilter, sender }) =>
      sender !== null && newSender(libmilter) === sender && newSender(pmilter) === undefined,
    until: "same",
    settle: (seen) => without(seen, isNewSender),
    reason: "A change to the sender that the message has already changes nothing: pmilter does not send it.",
  },
  {
    name: "spelling-of-a-header",
    is: (seen) => namesOfChanged(seen.libmilter) !== namesOfChanged(seen.pmilter),
    until: "same",
    settle: (seen) => settleNames(seen),
    reason: "A changed header keeps the spelling of its name as it was received.",
  },
  {
    name: "white-space-of-a-header",
    is: (seen) => spacesOfChanged(seen.libmilter) !== spacesOfChanged(seen.pmilter),
    until: "same",
    settle: (seen) => settleSpaces(seen),
    reason: "A changed header keeps the white space after its colon as it was received.",
  },
  {
    name: "macros-of-the-message-before",
    is: (seen) => {
      const macros = macrosThatDiffer(seen);
      return (
        macros.length > 0 &&
        macros.every(({ name, pmilter }) => seen.macros.early.has(pmilter) && !seen.macros.isFresh(name))
      );
    },
    until: "same",
    settle: (seen) => without(seen, isNamed("X-Macros")),
    reason:
      "libmilter keeps the macros of a message until others arrive for the same command. pmilter drops them: a queue id or a login must not pass from one message to the next.",
  },
  {
    name: "empty-macro-packet",
    is: (seen) => seen.macros.hadEmpty && macrosThatDiffer(seen).length > 0,
    until: "same",
    settle: (seen) => without(seen, isNamed("X-Macros")),
    reason:
      "In pmilter a MACRO packet replaces the macros of its command. In libmilter an empty MACRO packet leaves the macros of the earlier message or recipient.",
  },
  {
    name: "count-of-aborts",
    is: (seen) => seen.isTainted && differsIn(seen, "X-Aborts") !== undefined,
    until: "same",
    settle: (seen) => without(seen, isNamed("X-Aborts")),
    reason:
      "This follows from differences above: libmilter calls no `abort` for a message with an unknown command in it, and additional ones for commands that it ignores.",
  },
  {
    name: "place-of-insertion",
    is: (seen) => {
      const libmilter = findAdded(seen.libmilter.changes, "X-Mid");
      const pmilter = findAdded(seen.pmilter.changes, "X-Mid");
      if (libmilter === undefined || pmilter === undefined) return false;
      return libmilter.index !== pmilter.index;
    },
    until: "same",
    settle: (seen) =>
      findAdded(seen.pmilter.changes, "X-Mid")!.index === END ? settleAppended(seen) : without(seen, isNamed("X-Mid")),
    reason:
      "An index of a handler counts the headers that the handler sees. Postfix also counts its own Received, at a place that it does not tell. So pmilter deletes the headers behind the new header and appends them again, which needs no index.",
  },
  {
    name: "header-for-sendmail",
    is: (seen) => seen.isSendmail && seen.pmilter.changes.some((change) => addedHeader(change)?.index === END),
    until: "same",
    settle: (seen) => settleAppended(seen),
    reason:
      "Sendmail's ADDHEADER inserts in front of a header of the same name, and its indexes count headers that it does not show. So pmilter adds headers by INSHEADER past the end.",
  },
];

/** An index past the end of the headers. */
const END = 0x7fffffff;

function namesOfChanged({ changes }: Answer): string {
  const names = changes.filter(({ code }) => code === "m");
  return names
    .map(({ payload }) => payload.toString("latin1", 4, payload.indexOf(0, 4)))
    .sort()
    .join();
}

/** The white space in front of the values of changed headers, in order of the rest. */
function spacesOfChanged({ changes }: Answer): string {
  const changed = changes.filter(({ code }) => code === "m").map(({ payload }) => payload.toString("latin1"));
  return changed
    .map((text) => /^([^]{4}[^\0]*\0)(\s*)([^]*)$/.exec(text)!.slice(1))
    .map(([name, space, rest]) => `${name!.toLowerCase()}${rest}${space}`)
    .sort()
    .join();
}

/** Names of changed headers in one spelling. */
function settleNames(seen: Seen): Seen {
  return settleChanged(seen, (name, value) => `${name.toLowerCase()}\0${value}\0`);
}

/** Values of changed headers without white space in front. */
function settleSpaces(seen: Seen): Seen {
  return settleChanged(seen, (name, value) => `${name}\0${value.trimStart()}\0`);
}

function settleChanged(seen: Seen, text: (name: string, value: string) => string): Seen {
  const settle = (answer: Answer): Answer => ({
    ...answer,
    changes: answer.changes.map((change) => {
      if (change.code !== "m") return change;
      const [name = "", value = ""] = change.payload.subarray(4).toString("latin1").split("\0");
      return {
        code: "m",
        payload: Buffer.concat([change.payload.subarray(0, 4), Buffer.from(text(name, value), "latin1")]),
      };
    }),
  });
  return { ...seen, libmilter: settle(seen.libmilter), pmilter: settle(seen.pmilter) };
}

/** What libmilter's filter adds is added too, and in the place of changes that a mail server would count differently. */
function settleAppended(seen: Seen): Seen {
  const isOfHeader = ({ code }: Reply): boolean => "him".includes(code);
  const key = (change: Reply): string => {
    const added = addedHeader(change);
    return added === undefined ? "" : `${added.name}\0${added.value}`;
  };
  const sent = new Set(seen.pmilter.changes.map(key));
  const isAllSent = seen.libmilter.changes.every(
    (change) => sent.has(key(change)) || !isOfHeader(change) || change.code === "m",
  );
  return isAllSent ? without(seen, isOfHeader) : seen;
}
