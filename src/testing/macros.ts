/**
 * The values of the macros that a mail server would send, derived from the session's events. The lists in `habits.ts` say
 * which macros are sent at which stage; values of the caller's come before derived values.
 *
 * A value is derived where the server has one (docs/protocol.md, "Macros"); macros of TLS, authentication and the like have
 * none unless the caller gives it, and are left out, as both servers do.
 */
import type { MacroPair } from "../protocol/commands.ts";
import type { ConnectionFacts } from "./address.ts";
import { type Habit, MACRO_LISTS, type MacroStage } from "./habits.ts";

/** Values by name, as in `{ i: "4ZB1", "{auth_authen}": "ada" }`; braces of longer names may be left out. */
export type Macros = Readonly<Record<string, string>>;

/** The name of the simulated mail server: `j`, and all values derived from it. */
const OWN_NAME = "mail.example.com";
const OWN_VERSION: Readonly<Record<Habit, string>> = { postfix: "Postfix 3.10.2", sendmail: "8.17.1" };

/** `auth_type` and `{auth_type}` to the latter, `{i}` to `i`: the spelling of the wire. */
export function macroName(name: string): string {
  const bare = name.replace(/^\{(.*)\}$/, "$1");
  return bare.length === 1 ? bare : `{${bare}}`;
}

function address(text: string): string {
  return text.replace(/^<(.*)>$/, "$1");
}

function domain(text: string): string {
  return address(text).split("@").at(-1)!;
}

/**
 * The stage at which a macro that no list names is sent: where the servers first have such a value. Of a name they
 * do not know either, with CONNECT, so that every phase sees it.
 */
function homeStage(name: string): MacroStage {
  if (/^\{(tls|cipher|cert|verify|server_|cn_|alg_)/.test(name)) return "helo";
  if (name === "i" || /^\{(auth|mail|msg_size)/.test(name)) return "envfrom";
  if (/^\{(rcpt|nrcpts)/.test(name)) return "envrcpt";
  if (name === "{msg_id}") return "eom";
  return "connect";
}

/** The macros of a milter connection. */
export class MacroBook {
  readonly #habit: Habit;
  #lists: Readonly<Record<MacroStage, readonly string[]>>;
  #connection: Record<string, string> = {};
  #message: Record<string, string> = {};
  #own: Record<string, string> = {};
  /** Own macros outside all lists, with the values that CONNECT or HELO carried. */
  readonly #carried = new Map<string, string>();

  constructor(habit: Habit) {
    this.#habit = habit;
    this.#lists = MACRO_LISTS[habit];
  }

  /** The lists in force after the negotiation. */
  set lists(lists: Readonly<Record<MacroStage, readonly string[]>>) {
    this.#lists = lists;
  }

  get lists(): Readonly<Record<MacroStage, readonly string[]>> {
    return this.#lists;
  }

  /** The caller's values from now on: they override derived values, and add to them. */
  set own(macros: Macros) {
    this.#own = {};
    for (const name in macros) this.#own[macroName(name)] = macros[name]!;
  }

  connected(facts: ConnectionFacts): void {
    const { hostname, address: ip, port } = facts;
    const isKnown = !hostname.startsWith("[") && hostname !== "unknown";
    const reverse = isKnown ? hostname : this.#habit === "postfix" ? "unknown" : "";
    const local = ip.includes(":") ? "::1" : "127.0.0.1";
    this.#carried.clear();
    this.#message = {};
    this.#connection = {
      j: OWN_NAME,
      v: OWN_VERSION[this.#habit],
      _: `${reverse} [${ip}]`.trimStart(),
      "{daemon_name}": this.#habit === "postfix" ? OWN_NAME : "MTA",
      "{daemon_addr}": local,
      "{daemon_port}": "25",
      "{if_name}": OWN_NAME,
      "{if_addr}": local,
      "{client_addr}": facts.family === "inet6" && !ip.startsWith("IPv6:") ? `IPv6:${ip}` : ip,
      "{client_name}": isKnown ? hostname : this.#habit === "postfix" ? "unknown" : hostname,
      "{client_ptr}": isKnown ? hostname : "unknown",
      "{client_port}": String(port),
      "{client_resolve}": isKnown ? "OK" : "FAIL",
      "{client_connections}": this.#habit === "postfix" ? "0" : "1",
    };
    if (this.#habit === "postfix") {
      delete this.#connection["{if_name}"];
      delete this.#connection["{if_addr}"];
    }
  }

  mail(sender: string, queueId: string | undefined): void {
    const isLocal = address(sender) === "";
    this.#message = {
      "{mail_addr}": address(sender),
      "{mail_host}": isLocal ? OWN_NAME : domain(sender),
      "{mail_mailer}": isLocal ? "local" : this.#habit === "postfix" ? "smtp" : "esmtp",
    };
    this.queueId = queueId;
  }

  /** Set once the mail server has a queue id: while it is undefined, `i` is not sent, also not the caller's. */
  queueId: string | undefined;

  rcpt(recipient: string): void {
    this.#message["{rcpt_addr}"] = address(recipient);
    this.#message["{rcpt_host}"] = domain(recipient);
    this.#message["{rcpt_mailer}"] = "local";
  }

  /** A recipient that the mail server itself rejects (docs/protocol.md, "Rejected recipients"). */
  rejectedRcpt(status: string, text: string): void {
    this.#message["{rcpt_addr}"] = text;
    this.#message["{rcpt_host}"] = status;
    this.#message["{rcpt_mailer}"] = "error";
  }

  messageId(value: string): void {
    this.#message["{msg_id}"] = value.trim();
  }

  /** The pairs to send at `stage`: those of its list that have a value, in its order, then the caller's extra macros. */
  at(stage: MacroStage): MacroPair[] {
    const pairs: MacroPair[] = [];
    for (const name of this.#lists[stage]) {
      const value = this.#value(macroName(name), stage);
      if (value !== undefined) pairs.push([name, value]);
    }
    for (const name in this.#own) {
      if (!this.#isListed(name) && this.#isExtraAt(stage, name)) pairs.push([name, this.#own[name]!]);
    }
    return pairs;
  }

  /** CONNECT and HELO are sent once: a macro that they did not carry with this value is sent with each message's MAIL. */
  #isExtraAt(stage: MacroStage, name: string): boolean {
    const home = homeStage(name);
    const isOfConnection = home === "connect" || home === "helo";
    if (home === stage && isOfConnection) this.#carried.set(name, this.#own[name]!);
    return home === stage || (stage === "envfrom" && isOfConnection && this.#carried.get(name) !== this.#own[name]);
  }

  #isListed(name: string): boolean {
    return Object.values(this.#lists).some((list) => list.some((listed) => macroName(listed) === name));
  }

  #value(name: string, stage: MacroStage): string | undefined {
    if (name === "i") return this.queueId === undefined ? undefined : (this.#own["i"] ?? this.queueId);
    const own = this.#own[name];
    // A caller's {rcpt_addr: …} would hide that a recipient is refused by the server itself.
    const isRefused = name.startsWith("{rcpt_") && this.#message["{rcpt_mailer}"] === "error";
    if (own !== undefined && !isRefused) return own;
    if (!isAvailable(name, stage, this.#habit)) return undefined;
    const value = this.#message[name] ?? this.#connection[name];
    // Postfix: the cleanup daemon, which sends EOH and EOM, knows the address without the prefix.
    const isCleanup = this.#habit === "postfix" && (stage === "eoh" || stage === "eom");
    return name === "{client_addr}" && isCleanup ? value?.replace(/^IPv6:/, "") : value;
  }
}

/** Whether a mail server has a value for the macro at that stage (docs/protocol.md, "Values of macros"). */
function isAvailable(name: string, stage: MacroStage, habit: Habit): boolean {
  if (name.startsWith("{rcpt_")) return stage === "envrcpt";
  if (habit === "sendmail") return true;
  if (name.startsWith("{mail_")) return stage === "envfrom";
  if (name === "{client_resolve}") return stage !== "eoh" && stage !== "eom";
  if (name === "{client_ptr}") return stage !== "envrcpt" && stage !== "eoh" && stage !== "eom";
  if (name === "{client_connections}") return stage === "connect";
  return name !== "{msg_id}";
}
