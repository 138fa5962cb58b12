/**
 * What the types of a phase refuse, line by line: `bun check` fails if one of the expected errors is missing. Nothing
 * here runs.
 */
import {
  accept,
  defineFilter,
  discard,
  type Handler,
  type Header,
  type Message,
  reject,
  type Session,
  skip,
  tempfail,
  type Verdict,
} from "../../src/index.ts";

// Verdicts that a phase lacks.
// @ts-expect-error connect cannot discard
export const connectDiscard = (() => discard()) satisfies Handler<"connect">;
// @ts-expect-error connect cannot skip
export const connectSkip = (() => skip()) satisfies Handler<"connect">;
// @ts-expect-error helo cannot discard
export const heloDiscard = (() => discard()) satisfies Handler<"helo">;
// @ts-expect-error helo cannot skip
export const heloSkip = (() => skip()) satisfies Handler<"helo">;
// @ts-expect-error envfrom cannot skip
export const envfromSkip = (() => skip()) satisfies Handler<"envfrom">;
// @ts-expect-error envrcpt cannot skip
export const envrcptSkip = (() => skip()) satisfies Handler<"envrcpt">;
// @ts-expect-error data cannot skip
export const dataSkip = (() => skip()) satisfies Handler<"data">;
// @ts-expect-error header cannot skip
export const headerSkip = (() => skip()) satisfies Handler<"header">;
// @ts-expect-error eoh cannot skip
export const eohSkip = (() => skip()) satisfies Handler<"eoh">;
// @ts-expect-error eom cannot skip
export const eomSkip = (() => skip()) satisfies Handler<"eom">;
// @ts-expect-error unknown cannot accept
export const unknownAccept = (() => accept()) satisfies Handler<"unknown">;
// @ts-expect-error unknown cannot discard
export const unknownDiscard = (() => discard()) satisfies Handler<"unknown">;
// @ts-expect-error abort decides nothing
export const abortReject = (() => reject()) satisfies Handler<"abort">;
// @ts-expect-error close decides nothing
export const closeTempfail = (() => tempfail()) satisfies Handler<"close">;
// @ts-expect-error the same behind a promise
export const asyncSkip = (async () => skip()) satisfies Handler<"eom">;
// @ts-expect-error a string is no verdict
export const text = (() => "reject") satisfies Handler<"envfrom">;
// @ts-expect-error a verdict is made by its function, never by hand
export const byHand: Verdict<"reject"> = { kind: "reject" };

// Verdicts take what they take.
// @ts-expect-error accept has no text
accept("250 ok");
// @ts-expect-error a text is a string
reject(550);

/** Members of the session that a phase lacks. */
export function members(
  plain: Session,
  connect: Session<"connect">,
  helo: Session<"helo">,
  unknown: Session<"unknown">,
  close: Session<"close">,
  envfrom: Session<"envfrom">,
): void {
  // @ts-expect-error not in every phase
  void plain.helo;
  // @ts-expect-error not in every phase
  void plain.message;
  // @ts-expect-error not in every phase
  void plain.auth;
  // @ts-expect-error helo comes after connect
  void connect.helo;
  // @ts-expect-error TLS comes after connect
  void connect.tls;
  // @ts-expect-error there is no message yet
  void connect.message;
  // @ts-expect-error nobody has authenticated yet
  void helo.auth;
  // @ts-expect-error there is no message yet
  void helo.message;
  // @ts-expect-error unknown is of no message
  void unknown.message;
  // @ts-expect-error unknown may come before helo
  void unknown.helo;
  // @ts-expect-error the message is over
  void close.message;
  // @ts-expect-error there is no such member
  void envfrom.sender;
  // @ts-expect-error a session is read only
  envfrom.phase = "envfrom";
  // @ts-expect-error another phase
  void ((phase: "connect") => phase)(envfrom.phase);
}

/** Members of the message that a phase lacks. */
export function ofMessage(
  envfrom: Message<"envfrom">,
  envrcpt: Message<"envrcpt">,
  data: Message<"data">,
  header: Message<"header">,
  eoh: Message<"eoh">,
  body: Message<"body">,
  eom: Message<"eom">,
  abort: Message<"abort">,
  found: Header,
): void {
  // @ts-expect-error there are no headers yet, and so none to name
  envfrom.changeHeader(found, "1");
  // @ts-expect-error nor to insert beside
  envrcpt.insertBefore(found, "X", "1");
  // @ts-expect-error nor to insert beside
  data.insertAfter(found, "X", "1");
  // @ts-expect-error the block is not whole yet
  void header.rawHeaders();
  // @ts-expect-error the only option has another name
  void eoh.rawHeaders({ received: true });
  // @ts-expect-error an aborted message cannot be changed
  abort.deleteHeader(found);
  // @ts-expect-error a header has no index
  eoh.changeHeader(found, "1", 1);
  // @ts-expect-error a header is a thing of its own, no name
  eoh.insertBefore("Subject", "X", "1");
  // @ts-expect-error a header that was not read
  body.deleteHeader({ name: "X", value: "1" });
  // @ts-expect-error the first header may not be there
  eom.changeHeader(eom.headers.first("X"), "1");
  // @ts-expect-error a header is changed by changeHeader
  found.value = "x";
  // @ts-expect-error parts of an address are read only
  eom.sender.domain = "example.org";
  // @ts-expect-error addresses are objects
  void ((address: string) => address)(eom.headers.addresses("From")[0]!);
  // @ts-expect-error headers come later
  void envfrom.headers;
  // @ts-expect-error headers come later
  void envrcpt.headers;
  // @ts-expect-error headers come later
  void data.headers;
  // @ts-expect-error the body comes at eom
  void header.body();
  // @ts-expect-error the whole body comes at eom
  void body.body();
  // @ts-expect-error the end has not come
  void body.receivedAt;
  // @ts-expect-error an aborted message cannot be changed
  abort.addHeader("X", "1");
  // @ts-expect-error nor its sender
  abort.changeFrom("");
  // @ts-expect-error an aborted message has no end
  void abort.receivedAt;
  // @ts-expect-error a value is needed
  eom.addHeader("X");
  // @ts-expect-error an index comes first
  eom.insertHeader("X", "1");
  // @ts-expect-error ESMTP arguments are a list
  eom.addRecipient("a@b", "NOTIFY=NEVER");
  // @ts-expect-error recipients are changed by addRecipient
  eom.recipients.push({ raw: "", address: "", params: [] });
  // @ts-expect-error the sender is changed by changeFrom
  eom.sender.address = "a@b";
}

// Arguments of handlers.
// @ts-expect-error connect gets none
export const connectArguments = ((_session, _name: string) => undefined) satisfies Handler<"connect">;
// @ts-expect-error a chunk is no string
export const bodyArguments = ((_session, _chunk: string) => undefined) satisfies Handler<"body">;
// @ts-expect-error params cannot be changed
export const params = ((_session, _sender, params) => void params.push("x")) satisfies Handler<"envfrom">;

// Filters.
// @ts-expect-error a phase misspelt
export const misspelt = defineFilter({ envFrom() {} });
// @ts-expect-error a verdict that the phase lacks
export const wrongVerdict = defineFilter({ connect: () => discard() });
// @ts-expect-error macros cannot be asked for at header
export const wrongMacros = defineFilter({ header() {}, macros: { header: ["i"] } });
// @ts-expect-error collectBody is a boolean, or { max, over }
export const wrongOption = defineFilter({ eom() {}, collectBody: "yes" });
// @ts-expect-error over says what happens to the message
export const wrongOver = defineFilter({ eom() {}, collectBody: { max: "10MB", over: "drop" } });
