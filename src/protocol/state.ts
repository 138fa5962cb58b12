/**
 * Which command may come when, as a table. libmilter ignores a command that does not fit, without a reply, and the mail
 * server waits for its timeout. Here each order of commands gets its replies, and no order gets a message past the handlers
 * (docs/protocol.md, "Order of commands"):
 *
 * - `take`: the command is an event of its phase.
 * - `abort`: the open message is over first (its `abort` event), then the command is looked at again.
 * - `close`: the session is over first (`abort` if a message is open, `close`), then the command is looked at again.
 * - `drop`: nothing happens, and no reply is awaited (ABORT without a message).
 * - `repeat`: the message, or the connection, has its final reply already; a mail server that goes on gets it again.
 * - `error`: the peer broke the protocol.
 *
 * MACRO is in no row: it fits wherever negotiation is over, and changes no state.
 */
import type { CommandName } from "./constants.ts";

export type Transition = "take" | "abort" | "close" | "drop" | "repeat" | "error";

/**
 * - `start`: nothing was negotiated yet.
 * - `idle`: negotiated, no session (also after QUIT_NC).
 * - `connected`: in a session, between messages.
 * - `message`: a message is open.
 * - `decided`: the message got its final reply before its end.
 * - `refused`: the connection got its final reply (refused, or accepted as a whole).
 */
export const SESSION_STATES = ["start", "idle", "connected", "message", "decided", "refused"] as const;
export type SessionState = (typeof SESSION_STATES)[number];

export type SessionCommand = Exclude<CommandName, "MACRO">;

// RCPT and content without MAIL open a message: an odd mail server's mail is filtered rather than let through or left
// waiting. The handlers then see a sender that was not sent ("").
export const TRANSITIONS: Readonly<Record<SessionState, Readonly<Record<SessionCommand, Transition>>>> = {
  start: {
    OPTNEG: "take",
    CONNECT: "error",
    HELO: "error",
    MAIL: "error",
    RCPT: "error",
    DATA: "error",
    HEADER: "error",
    EOH: "error",
    BODY: "error",
    BODYEOB: "error",
    ABORT: "error",
    QUIT: "take",
    QUIT_NC: "error",
    UNKNOWN: "error",
  },
  idle: {
    OPTNEG: "error",
    CONNECT: "take",
    HELO: "take",
    MAIL: "take",
    RCPT: "take",
    DATA: "take",
    HEADER: "take",
    EOH: "take",
    BODY: "take",
    BODYEOB: "take",
    ABORT: "drop",
    QUIT: "take",
    QUIT_NC: "take",
    UNKNOWN: "take",
  },
  connected: {
    OPTNEG: "error",
    CONNECT: "close",
    HELO: "take",
    MAIL: "take",
    RCPT: "take",
    DATA: "take",
    HEADER: "take",
    EOH: "take",
    BODY: "take",
    BODYEOB: "take",
    ABORT: "drop",
    QUIT: "take",
    QUIT_NC: "take",
    UNKNOWN: "take",
  },
  message: {
    OPTNEG: "error",
    CONNECT: "close",
    HELO: "abort",
    MAIL: "abort",
    RCPT: "take",
    DATA: "take",
    HEADER: "take",
    EOH: "take",
    BODY: "take",
    BODYEOB: "take",
    ABORT: "take",
    QUIT: "abort",
    QUIT_NC: "abort",
    UNKNOWN: "take",
  },
  decided: {
    OPTNEG: "error",
    CONNECT: "close",
    HELO: "take",
    MAIL: "take",
    RCPT: "repeat",
    DATA: "repeat",
    HEADER: "repeat",
    EOH: "repeat",
    BODY: "repeat",
    BODYEOB: "repeat",
    ABORT: "drop",
    QUIT: "take",
    QUIT_NC: "take",
    UNKNOWN: "take",
  },
  refused: {
    OPTNEG: "error",
    CONNECT: "close",
    HELO: "repeat",
    MAIL: "repeat",
    RCPT: "repeat",
    DATA: "repeat",
    HEADER: "repeat",
    EOH: "repeat",
    BODY: "repeat",
    BODYEOB: "repeat",
    ABORT: "drop",
    QUIT: "take",
    QUIT_NC: "take",
    UNKNOWN: "repeat",
  },
};
