/**
 * Every error code, with what it means and what to do about it, for docs/errors.md. The rooms that throw them have the codes
 * and their meanings; a code without a row here does not compile.
 */
import type { AddressError } from "./config/address.ts";
import type { ConfigError } from "./config/errors.ts";
import { USAGE_ERRORS, type UsageError } from "./usage-error.ts";
import { PROTOCOL_ERRORS, type ProtocolError } from "./protocol/errors.ts";
import type { ListenError } from "./server/listening/listen-error.ts";
import type { PrivilegeError } from "./server/rights/privileges.ts";
import type { StateFolderError } from "./server/rights/state-folder.ts";
import { type ClientUsageError, CONVERSATION_ERRORS, type ConversationError } from "./testing/errors.ts";

/** The error classes that have a code, by name. */
interface Classes {
  UsageError: UsageError;
  ProtocolError: ProtocolError;
  ConversationError: ConversationError;
  ClientUsageError: ClientUsageError;
  ConfigError: ConfigError;
  AddressError: AddressError;
  ListenError: ListenError;
  PrivilegeError: PrivilegeError;
  StateFolderError: StateFolderError;
}

export interface ErrorRow {
  readonly means: string;
  /** What its reader can do. */
  readonly remedy: string;
}

type Codes = { readonly [C in keyof Classes]: Readonly<Record<Classes[C]["code"], ErrorRow>> };

function row(means: string, remedy: string): ErrorRow {
  return { means, remedy };
}

const FROM_PEER = "Find out what connects: the log line names the peer. It is no mail server, or has a fault.";

export const ERROR_CODES: Codes = {
  UsageError: {
    PMILTER_ERR_REPLY_TEXT: row(
      USAGE_ERRORS.PMILTER_ERR_REPLY_TEXT,
      'Write a code, perhaps an enhanced code of the same class, and text in ASCII: `reject("550 5.7.1 No")`, `tempfail("451 4.7.1 Later")`.',
    ),
    PMILTER_ERR_VERDICT: row(
      USAGE_ERRORS.PMILTER_ERR_VERDICT,
      "Return nothing or a verdict that the phase has; the handler guide lists them. Import the verdicts from `pmilter`.",
    ),
    PMILTER_ERR_ARGUMENT: row(
      USAGE_ERRORS.PMILTER_ERR_ARGUMENT,
      "The message says what does not fit. Check or encode what comes from a client before you write it.",
    ),
    PMILTER_ERR_NOT_GRANTED: row(
      USAGE_ERRORS.PMILTER_ERR_NOT_GRANTED,
      "An old mail server, or an old version of the protocol (`milter_protocol` of Postfix), does not have the change. Use a newer one, or do without.",
    ),
    PMILTER_ERR_NOT_HERE: row(
      USAGE_ERRORS.PMILTER_ERR_NOT_HERE,
      "Use the member in a phase that has it: `Session<phase>` has only what is there. Headers need a handler at `eoh` or `eom`.",
    ),
    PMILTER_ERR_OVER: row(
      USAGE_ERRORS.PMILTER_ERR_OVER,
      "Change a message before the handler returns, or await what the change waits for: after `accept()`, a timeout or the end of the message it is too late. Keep no header object past its message. Copy bytes that a thread of yours is to get: `postMessage(bytes.slice())`.",
    ),
    PMILTER_ERR_SEALED: row(
      USAGE_ERRORS.PMILTER_ERR_SEALED,
      "Leave such a message as it is (`mime.isSealed`, `part.isSealed`), or give `{ breakSeal: true }`: then its signature does not verify any more.",
    ),
    PMILTER_ERR_MODULE: row(
      USAGE_ERRORS.PMILTER_ERR_MODULE,
      "Export a default function from the file of a phase, `defineFilter({…})` from a filter. The message says what is wrong with it.",
    ),
    PMILTER_ERR_OPTIONS: row(
      USAGE_ERRORS.PMILTER_ERR_OPTIONS,
      "The message has each key and what was expected: correct the table `[filter.options]`, or `options` of a test.",
    ),
  },
  ProtocolError: {
    PMILTER_ERR_LENGTH_ZERO: row(PROTOCOL_ERRORS.PMILTER_ERR_LENGTH_ZERO, FROM_PEER),
    PMILTER_ERR_PACKET_TOO_LARGE: row(
      PROTOCOL_ERRORS.PMILTER_ERR_PACKET_TOO_LARGE,
      "Raise `limits.packet` if the peer is a mail server; a length far beyond it comes from another protocol.",
    ),
    PMILTER_ERR_COMMAND: row(PROTOCOL_ERRORS.PMILTER_ERR_COMMAND, FROM_PEER),
    PMILTER_ERR_MISSING_NUL: row(PROTOCOL_ERRORS.PMILTER_ERR_MISSING_NUL, FROM_PEER),
    PMILTER_ERR_TOO_SHORT: row(PROTOCOL_ERRORS.PMILTER_ERR_TOO_SHORT, FROM_PEER),
    PMILTER_ERR_FAMILY: row(PROTOCOL_ERRORS.PMILTER_ERR_FAMILY, FROM_PEER),
    PMILTER_ERR_VERSION: row(
      PROTOCOL_ERRORS.PMILTER_ERR_VERSION,
      "Use a mail server that speaks milter version 2 or later; for Postfix, look at `milter_protocol`.",
    ),
    PMILTER_ERR_ORDER: row(PROTOCOL_ERRORS.PMILTER_ERR_ORDER, FROM_PEER),
    PMILTER_ERR_REPLY: row(
      PROTOCOL_ERRORS.PMILTER_ERR_REPLY,
      "In tests: the filter under test has answered with what the mail server would not take.",
    ),
  },
  ConfigError: {
    PMILTER_ERR_CONFIG: row(
      "a configuration that cannot be used",
      "Each line names a file, a line and a column, what stands there and what was expected. `pmilter check` shows all of them.",
    ),
  },
  AddressError: {
    PMILTER_ERR_ADDRESS: row(
      "a text that is no listen address, or no address or network",
      "The message shows the forms that can be written.",
    ),
  },
  ListenError: {
    PMILTER_ERR_LISTEN: row(
      "an address that cannot be listened on",
      "The message says why: another server has it, a folder is missing, or a permission.",
    ),
  },
  PrivilegeError: {
    PMILTER_ERR_PRIVILEGES: row(
      "a user or group that is unknown, or that the process may not become",
      "Correct `server.user`, `server.group` or `server.socket_group`, or start as root.",
    ),
  },
  StateFolderError: {
    PMILTER_ERR_STATE: row(
      "a state folder that cannot be made, written or locked",
      "Look at its owner and mode, and whether another server runs with it; `server.state` names another one.",
    ),
  },
  ConversationError: {
    PMILTER_ERR_CONNECT: row(
      CONVERSATION_ERRORS.PMILTER_ERR_CONNECT,
      "Start the filter first, and check address and permissions.",
    ),
    PMILTER_ERR_CLOSED: row(
      CONVERSATION_ERRORS.PMILTER_ERR_CLOSED,
      "Look into the filter's log. The filter may have been stopped, or have refused the connection (`server.allow`).",
    ),
    PMILTER_ERR_TIMEOUT: row(
      CONVERSATION_ERRORS.PMILTER_ERR_TIMEOUT,
      "The filter is slow or hangs: its log says where. The client's `timeoutMs` is how long it waits.",
    ),
  },
  ClientUsageError: {
    PMILTER_ERR_USAGE: row(
      "a call of the testing kit out of order, or an argument that cannot be sent",
      "Call the methods in the order of SMTP: the message says what was expected.",
    ),
  },
};

/** The rows of an error class for docs/errors.md, as Markdown. */
export function errorTable(name: keyof typeof ERROR_CODES): string {
  const rows = Object.entries<ErrorRow>(ERROR_CODES[name]).map(([code, { means, remedy }]) =>
    [`\`${code}\``, means, remedy].join(" | "),
  );
  return ["code | meaning | what to do", "--- | --- | ---", ...rows].map((each) => `| ${each} |`).join("\n");
}
