/**
 * `Pmilter` as Ruby handlers know it, on top of the session that TypeScript handlers get. A method gives an empty string for
 * a value that the mail server has not sent.
 */
import { decodeText } from "../protocol/bytes.ts";
import type { Phase } from "../protocol/phases.ts";
import type { Session } from "../handler/types.ts";
import type { JsonValue } from "../json.ts";
import { accept, discard, reject, skip, tempfail, withoutCounting } from "../handler/verdict.ts";
import type { Opal, RubyModule } from "./opal.ts";

/** The session with the members of all phases. */
export type AnySession = Session<"eom"> & { readonly phase: Phase };

/** The call of a script: its session and arguments, and the verdict that it has set. */
export interface Call {
  readonly session: AnySession;
  readonly phase: Phase;
  /** The arguments of the phase besides the session: `PhaseArguments` in `types.ts`. */
  readonly values: readonly unknown[];
  /** The sender before the script changed it. Scripts do not see their changes. */
  sender: string | null;
  verdict: unknown;
}

/** The value of a name, by the methods of `Pmilter::Session`. */
const READERS: Readonly<Record<string, (call: Call) => unknown>> = {
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
};

/** `SMFIS_` constants, by libmilter's numbers. */
const STATUS = {
  CONTINUE: 0,
  REJECT: 1,
  DISCARD: 2,
  ACCEPT: 3,
  TEMPFAIL: 4,
  NOREPLY: 7,
  SKIP: 8,
  ALL_OPTS: 10,
} as const;

/** Whether libmilter lets a filter change the message: at no other phase does it do anything. */
const mayChange = (phase: Phase) => phase === "eom";
/** The return values of libmilter's functions. */
const SUCCESS = 0;
const FAILURE = -1;

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

function sender(call: Call): string {
  if (!hasMessage(call.phase)) return "";
  return (call.sender ??= call.session.message.sender.raw);
}

/**
 * The latest recipient, in brackets: it was the macro `{rcpt_addr}`, which the original's own test tool sent with brackets
 * and mail servers send without; scripts were written for the former.
 */
function recipient({ session, phase, values }: Call): string {
  const macro = session.macros.get("{rcpt_addr}") ?? (phase === "envrcpt" ? (values[0] as string) : "");
  return macro === "" || macro.startsWith("<") ? macro : `<${macro}>`;
}

const isText = (value: unknown) => (value as { readonly $$is_string?: boolean }).$$is_string === true;

/**
 * Defines `Pmilter`.
 * @param current the call that runs; null while none does: then there is no session
 */
export function definePmilter(opal: Opal, current: () => Call | null): void {
  const { nil, Object: top } = opal;
  const Pmilter = opal.klass(top, top, "Pmilter");
  const Session = opal.klass(Pmilter, top, "Session");
  const Headers = opal.klass(Session, top, "Headers");
  const raise = (kind: string, message: string): never => {
    throw (top.$$const[kind] as RubyModule).$new(message);
  };
  const call = (): Call =>
    current() ?? raise("RuntimeError", "there is no session here: Pmilter::Session is for handler.session");
  const text = (value: unknown, what: string): string =>
    isText(value) ? String(value) : raise("TypeError", `expected String for ${what}`);
  const params = (value: unknown) =>
    value === undefined || value === nil
      ? []
      : text(value, "the ESMTP arguments")
          .split(" ")
          .filter((word) => word !== "");

  for (const [name, value] of Object.entries(STATUS)) opal.const_set(Pmilter, `SMFIS_${name}`, value);
  opal.defs(Pmilter, "$name", () => "pmilter");
  opal.defs(Pmilter, "$status=", (status: unknown) => {
    call().verdict = withoutCounting(() => verdictOf(status, raise));
    return status;
  });

  for (const [name, read] of Object.entries(READERS)) opal.defn(Session, `$${name}`, () => read(call()));
  opal.defn(Session, "$change_envelope_from", (address: unknown, esmtp: unknown) => {
    const now = call();
    const checked = text(address, "the sender");
    if (!mayChange(now.phase)) return FAILURE;
    sender(now);
    now.session.message.changeFrom(checked, params(esmtp));
    return SUCCESS;
  });
  for (const name of ["$add_envelope_to", "$add_rcpt_to"]) {
    opal.defn(Session, name, (address: unknown, esmtp: unknown) => {
      const { session, phase } = call();
      const checked = text(address, "the recipient");
      if (!mayChange(phase)) return FAILURE;
      session.message.addRecipient(checked, params(esmtp));
      return SUCCESS;
    });
  }

  opal.defn(Session, "$is_local", () => call().session.isLocal);
  opal.defn(Session, "$log", (said: unknown, level: unknown) => {
    const { log } = call().session;
    const line = text(said, "the text of a line");
    switch (level === undefined || level === nil ? "info" : text(level, "the level")) {
      case "debug":
        log.debug(line);
        break;
      case "info":
        log(line);
        break;
      case "warn":
        log.warn(line);
        break;
      case "error":
        log.error(line);
        break;
      default:
        raise("ArgumentError", "expected debug, info, warn or error as the level");
    }
    return nil;
  });
  opal.defn(Session, "$message_state", () => {
    const { session, phase } = call();
    if (!hasMessage(phase)) return opal.hash({});
    return (session.message.state["ruby"] ??= opal.hash({}));
  });

  const Results = opal.klass(Session, top, "Results");
  const result = (name: unknown) => text(name, "the name of a result");
  opal.defn(Results, "$[]", (name: unknown) => {
    const { session, phase } = call();
    return hasMessage(phase) ? (session.message.results.get(result(name)) ?? nil) : nil;
  });
  opal.defn(Results, "$[]=", (name: unknown, value: unknown) => {
    const { session, phase } = call();
    const kept = value === nil ? null : isText(value) ? String(value) : value;
    if (hasMessage(phase)) session.message.results.set(result(name), kept as JsonValue);
    return value;
  });

  opal.defn(Headers, "$header", () => {
    const { phase, values } = call();
    return opal.hash(phase === "header" ? { [values[0] as string]: values[1] } : {});
  });
  const named = (name: unknown) => text(name, "the name of a header");
  const headers = () => {
    const { session, phase } = call();
    return HEADER_PHASES.has(phase) ? session.message.headers : null;
  };
  opal.defn(Headers, "$[]", (name: unknown) => headers()?.get(named(name)) ?? nil);
  opal.defn(Headers, "$text", (name: unknown) => headers()?.text(named(name)) ?? nil);
  opal.defn(Headers, "$addresses", (name: unknown) => {
    const found = headers()?.addresses(named(name)) ?? [];
    return found.map((address) => opal.hash(address));
  });
  opal.defn(Headers, "$[]=", (name: unknown, value: unknown) => {
    const { session, phase } = call();
    const header = [named(name), text(value, "the value of a header")] as const;
    if (mayChange(phase)) session.message.addHeader(...header);
    return value;
  });
}

/** SMFIS_NOREPLY continues: whether a reply is sent was agreed on before the phase, not by it. */
function verdictOf(status: unknown, raise: (kind: string, message: string) => never): unknown {
  switch (status) {
    case STATUS.CONTINUE:
    case STATUS.NOREPLY:
      return undefined;
    case STATUS.REJECT:
      return reject();
    case STATUS.DISCARD:
      return discard();
    case STATUS.ACCEPT:
      return accept();
    case STATUS.TEMPFAIL:
      return tempfail();
    case STATUS.SKIP:
      return skip();
    default:
      return raise(
        "ArgumentError",
        `Pmilter.status takes SMFIS_CONTINUE, _REJECT, _DISCARD, _ACCEPT, _TEMPFAIL or _SKIP`,
      );
  }
}
