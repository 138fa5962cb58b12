/**
 * `Pmilter` as Ruby handlers know it, on top of the session that TypeScript handlers get, in plain values: null stands for
 * nil. A value that the mail server has not sent is an empty string.
 */
import type { Session } from "../handler/types.ts";
import { accept, discard, reject, skip, tempfail, withoutCounting } from "../handler/verdict.ts";
import type { JsonValue } from "../json.ts";
import { decodeText } from "../protocol/bytes.ts";
import type { Phase } from "../protocol/phases.ts";

/** The session with the members of all phases. */
export type AnySession = Session<"eom"> & { readonly phase: Phase };

/** The call of a script, with its session. */
export interface SessionCall {
  readonly session: AnySession;
  readonly phase: Phase;
  /** The arguments of the phase besides the session: `PhaseArguments` in `types.ts`. */
  readonly values: readonly unknown[];
  /** The sender before the script changed it. Scripts do not see their changes. */
  sender: string | null;
}

/** A verdict by the name of its function; null continues. */
export type VerdictName = "reject" | "discard" | "accept" | "tempfail" | "skip" | null;

const VERDICTS = { reject, discard, accept, tempfail, skip };

/** The verdict of a name, with the place that calls this; undefined continues. */
export function verdictOf(name: VerdictName): unknown {
  return name === null ? undefined : withoutCounting(() => VERDICTS[name]());
}

/** Whether a verdict has an effect: after the end of a message or connection it has none. */
export function isHeard(phase: Phase): boolean {
  return phase !== "abort" && phase !== "close";
}

/** The phases that have `session.message`. */
export const MESSAGE_PHASES: ReadonlySet<string> = new Set<Phase>([
  "envfrom",
  "envrcpt",
  "data",
  "header",
  "eoh",
  "body",
  "eom",
  "abort",
]);
/** The phases that have `session.message.headers`. */
const HEADER_PHASES: ReadonlySet<Phase> = new Set<Phase>(["header", "eoh", "body", "eom", "abort"]);
const hasMessage = (phase: Phase) => MESSAGE_PHASES.has(phase);
/** Whether libmilter lets a filter change the message: at no other phase does it do anything. */
const mayChange = (phase: Phase) => phase === "eom";
/** The return values of libmilter's functions. */
const SUCCESS = 0;
const FAILURE = -1;

function sender(call: SessionCall): string {
  if (!hasMessage(call.phase)) return "";
  return (call.sender ??= call.session.message.sender.raw);
}

/**
 * The latest recipient, in brackets: it was the macro `{rcpt_addr}`, which the original's own test tool sent with brackets
 * and mail servers send without; scripts were written for the former.
 */
function recipient({ session, phase, values }: SessionCall): string {
  const macro = session.macros.get("{rcpt_addr}") ?? (phase === "envrcpt" ? (values[0] as string) : "");
  return macro === "" || macro.startsWith("<") ? macro : `<${macro}>`;
}

/** The value of a name, by the methods of `Pmilter::Session`. */
export const READERS = {
  client_ipaddr: ({ session }) => session.client.address,
  client_hostname: ({ session }) => session.client.hostname,
  client_daemon: ({ session }) => session.daemonName,
  handler_phase_name: ({ phase }) => `mruby_${phase}_handler`,
  helo_hostname: ({ session }) => session.helo,
  envelope_from: sender,
  envelope_to: recipient,
  rcpt_to: recipient,
  receive_time: ({ session, phase }) => (phase === "eom" ? Math.floor(session.message.receivedAt.getTime() / 1000) : 0),
  mail_addr: ({ session }) => session.macros.get("{mail_addr}") ?? "",
  rcpt_addr: ({ session }) => session.macros.get("{rcpt_addr}") ?? "",
  body_chunk: ({ phase, values }) => (phase === "body" ? decodeText(values[0] as Uint8Array) : ""),
  myhostname: ({ session }) => session.myHostname,
  message_id: ({ session }) => session.queueId,
  auth_type: ({ session }) => session.auth.type,
  auth_authen: ({ session }) => session.auth.authen,
  auth_author: ({ session }) => session.auth.author,
  cert_issuer: ({ session }) => session.tls.certIssuer,
  cert_subject: ({ session }) => session.tls.certSubject,
  cipher_bits: ({ session }) => session.tls.cipherBits,
  cipher: ({ session }) => session.tls.cipher,
  tls_version: ({ session }) => session.tls.version,
  is_local: ({ session }) => session.isLocal,
} satisfies Readonly<Record<string, (call: SessionCall) => unknown>>;

const headers = ({ session, phase }: SessionCall) => (HEADER_PHASES.has(phase) ? session.message.headers : null);

/** What else a script does with its session, by the name that `definePmilter` has for it. */
const OPERATIONS = {
  changeFrom(call: SessionCall, address: string, params: readonly string[]) {
    if (!mayChange(call.phase)) return FAILURE;
    sender(call);
    call.session.message.changeFrom(address, params);
    return SUCCESS;
  },
  addRecipient({ session, phase }: SessionCall, address: string, params: readonly string[]) {
    if (!mayChange(phase)) return FAILURE;
    session.message.addRecipient(address, params);
    return SUCCESS;
  },
  addHeader({ session, phase }: SessionCall, name: string, value: string) {
    if (mayChange(phase)) session.message.addHeader(name, value);
    return null;
  },
  log({ session }: SessionCall, level: "debug" | "info" | "warn" | "error", line: string) {
    if (level === "info") session.log(line);
    else session.log[level](line);
    return null;
  },
  result({ session, phase }: SessionCall, name: string) {
    return hasMessage(phase) ? (session.message.results.get(name) ?? null) : null;
  },
  setResult({ session, phase }: SessionCall, name: string, value: JsonValue) {
    if (hasMessage(phase)) session.message.results.set(name, value);
    return null;
  },
  header({ phase, values }: SessionCall) {
    return phase === "header" ? { [values[0] as string]: values[1] } : {};
  },
  headerValue: (call: SessionCall, name: string) => headers(call)?.get(name) ?? null,
  headerText: (call: SessionCall, name: string) => headers(call)?.text(name) ?? null,
  headerAddresses: (call: SessionCall, name: string) => headers(call)?.addresses(name) ?? [],
} satisfies Readonly<Record<string, (call: SessionCall, ...args: never[]) => unknown>>;

export type SessionOperation = keyof typeof READERS | keyof typeof OPERATIONS;

const ALL: ReadonlyMap<string, (call: SessionCall, ...args: never[]) => unknown> = new Map(
  Object.entries({ ...READERS, ...OPERATIONS }),
);

/** Does what a script asks of its session. */
export function perform(call: SessionCall, operation: SessionOperation, args: readonly unknown[]): unknown {
  return ALL.get(operation)!(call, ...(args as never[]));
}
