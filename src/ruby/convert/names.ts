/** The names of `Pmilter::Session` in TypeScript, phase by phase. */
import type { Phase } from "../../protocol/phases.ts";
import { MESSAGE_PHASES } from "../session-calls.ts";

/** The use of a script: a phase, or the start or the end of the process. */
export type Role = Phase | "postconfig" | "master_exit";

/** The parameters of a phase's handler after `session`, with their types. */
export const PARAMETERS: Readonly<Partial<Record<Role, readonly string[]>>> = {
  helo: ["hostname: string"],
  envfrom: ["sender: string"],
  envrcpt: ["recipient: string"],
  header: ["name: string", "value: string"],
  body: ["chunk: Uint8Array"],
};

/** File names of the original's examples, with their uses. */
export const ROLE_OF_FILE: Readonly<Record<string, Role>> = { mail_from: "envfrom", rcpt_to: "envrcpt" };

const macro = (name: string) => `(session.macros.get("{${name}}") ?? "")`;
const BEFORE_HELO: ReadonlySet<Role> = new Set(["connect", "unknown"]);

/** A value in TypeScript. */
export interface Value {
  readonly code: string;
  /** `unknown`: nil or of a type that only shows at run time. */
  readonly type: "string" | "number" | "boolean" | "unknown";
  /** It is a text that may end in a line end, which `puts` does not double. */
  readonly mayEndLine?: boolean;
  /** Nil may be null, not only undefined. */
  readonly mayBeNull?: boolean;
  /** Notes for a person to check. */
  readonly look?: string;
}

const text = (code: string): Value => ({ code, type: "string" });

/** Undefined if there is no such method. */
export function sessionValue(name: string, role: Role): Value | undefined {
  switch (name) {
    case "client_ipaddr":
      return text("session.client.address");
    case "client_hostname":
      return text("session.client.hostname");
    case "client_daemon":
      return text("session.daemonName");
    case "handler_phase_name":
      return text(JSON.stringify(`mruby_${role}_handler`));
    case "helo_hostname":
      if (role === "helo") return text("hostname");
      return text(BEFORE_HELO.has(role) ? '""' : "session.helo");
    case "envelope_from":
      return text(MESSAGE_PHASES.has(role) ? "sender" : '""');
    case "envelope_to":
    case "rcpt_to":
      if (role === "envrcpt") return text("recipient");
      if (!MESSAGE_PHASES.has(role) || role === "envfrom") return text('""');
      return {
        ...text('(session.message.recipients.at(-1)?.raw ?? "")'),
        look: "this is the latest recipient, as in the original; session.message.recipients has them all",
      };
    case "receive_time":
      return role === "eom"
        ? { code: "Math.floor(session.message.receivedAt.getTime() / 1000)", type: "number" }
        : { code: "0", type: "number" };
    case "mail_addr":
    case "rcpt_addr":
      return text(macro(name));
    case "body_chunk":
      return { ...text(role === "body" ? "new TextDecoder().decode(chunk)" : '""'), mayEndLine: role === "body" };
    case "myhostname":
      return text("session.myHostname");
    case "message_id":
      return text("session.queueId");
    case "is_local":
      return { code: "session.isLocal", type: "boolean" };
    case "cert_issuer":
      return text(BEFORE_HELO.has(role) ? macro(name) : "session.tls.certIssuer");
    case "cert_subject":
      return text(BEFORE_HELO.has(role) ? macro(name) : "session.tls.certSubject");
    case "cipher_bits":
      return text(BEFORE_HELO.has(role) ? macro(name) : "session.tls.cipherBits");
    case "cipher":
      return text(BEFORE_HELO.has(role) ? macro(name) : "session.tls.cipher");
    case "tls_version":
      return text(BEFORE_HELO.has(role) ? macro(name) : "session.tls.version");
    case "auth_type":
    case "auth_authen":
    case "auth_author":
      return text(MESSAGE_PHASES.has(role) ? `session.auth.${name.slice("auth_".length)}` : macro(name));
    default:
      return undefined;
  }
}

/** The call for each level of `log`. */
export const LOG_CALLS: Readonly<Record<string, string>> = {
  debug: "session.log.debug",
  info: "session.log",
  warn: "session.log.warn",
  error: "session.log.error",
};

/** The sender as it was when the script began: a script does not see its own change. */
export function senderDeclaration(role: Role): string | null {
  return role !== "envfrom" && MESSAGE_PHASES.has(role) ? "const sender = session.message.sender.raw;" : null;
}
