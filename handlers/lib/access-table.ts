/** The text of a list of access-lists.ts, as tables to look in. */
import { type Address, reject, tempfail } from "pmilter";
import { nameEntry, NameTable, normalDomain } from "./access-names.ts";
import { NetworkTable } from "./access-networks.ts";
import type { Refusal } from "./options.ts";

/** The kind of value that the entries of a list are compared with. */
export const MATCHES = ["client", "helo", "sender", "recipient"] as const;
export type Match = (typeof MATCHES)[number];

export const ACTIONS = ["allow", "reject", "tempfail"] as const;
export type Action = (typeof ACTIONS)[number];

/** For lines that say no more than an entry, or no text. */
export interface Defaults {
  readonly action: Action;
  readonly reject: Refusal;
  readonly tempfail: Refusal;
}

/** A text in words gets these codes. */
const CODES = { reject: "550 5.7.1", tempfail: "451 4.7.1" } as const;

/** A mistake in a list, and its line, from 1. */
export class LineError extends Error {
  readonly line: number;

  constructor(line: number, message: string) {
    super(message);
    this.line = line;
  }
}

class Entries<T> {
  readonly #networks = new NetworkTable<T>();
  readonly #names = new NameTable<T>();

  /** @throws RangeError with the expected form */
  add(match: Match, entry: string, value: T): void {
    if (match === "client" && /^[\d.]+(?:\/|$)|:/.test(entry)) this.#networks.add(entry, value);
    else this.#names.add(KEY_OF[match](entry), value);
  }

  client(address: string, hostname: string): T | undefined {
    return this.#networks.find(address) ?? this.#names.find(normalDomain(hostname));
  }

  helo(name: string): T | undefined {
    return this.#names.find(normalDomain(name));
  }

  mailbox(address: Address): T | undefined {
    return this.#names.findMailbox(address);
  }
}

export class AccessTable {
  readonly allow = new Entries<true>();
  readonly block = new Entries<Refusal>();
  size = 0;
}

/**
 * Each line is `ENTRY [ACTION [TEXT]]`; empty lines and comments are passed over.
 * @throws LineError
 */
export function parseTable(text: string, match: Match, defaults: Defaults): AccessTable {
  const table = new AccessTable();
  const verdicts = new Map<string, Refusal>();
  const lines = text.split("\n");
  if (lines.pop() !== "") throw new LineError(lines.length + 1, "has no line end, the file may be half-written");
  for (const [index, line] of lines.entries()) {
    const [, entry, word = "", words = ""] = /^(\S+)(?:\s+(\S+)(?:\s+(.*))?)?$/.exec(line.trim()) ?? [];
    if (entry === undefined || entry.startsWith("#")) continue;
    try {
      const action = word === "" || word.startsWith("#") ? defaults.action : actionOf(word);
      if (action === "allow") {
        table.allow.add(match, entry, true);
      } else {
        const reply = word.startsWith("#") || words.startsWith("#") ? "" : words;
        let verdict = reply === "" ? defaults[action] : verdicts.get(`${action} ${reply}`);
        verdict ??= refusalOf(action, reply);
        if (reply !== "") verdicts.set(`${action} ${reply}`, verdict);
        table.block.add(match, entry, verdict);
      }
      table.size += 1;
    } catch (error) {
      throw new LineError(index + 1, error instanceof Error ? error.message : String(error));
    }
  }
  return table;
}

function actionOf(word: string): Action {
  const action = ACTIONS.find((each) => each === word.toLowerCase());
  if (action === undefined) throw new RangeError(`"${word}" is no action, expected one of ${ACTIONS.join(", ")}`);
  return action;
}

/** @throws UsageError of `reject` and `tempfail` */
function refusalOf(action: "reject" | "tempfail", words: string): Refusal {
  const text = /^\d{3}\b/.test(words) ? words : `${CODES[action]} ${words}`;
  return action === "reject" ? reject(text) : tempfail(text);
}

/** How an entry stands in the table of names. */
const KEY_OF: Readonly<Record<Match, (entry: string) => string>> = {
  client(entry) {
    // 192.0.2.x: no top-level domain is a single character, or a number.
    if (/(?:^|\.)(?:\d+|.)$/.test(entry)) throw new RangeError(`${show(entry)} is no address, network or host name`);
    return nameKey(entry);
  },
  helo: (entry) => (/^\[[\da-f.:]+\]$|^\[ipv6:[\da-f.:]+\]$/i.test(entry) ? entry.toLowerCase() : nameKey(entry)),
  sender: mailboxKey,
  recipient(entry) {
    if (entry === "<>") throw new RangeError("<> is no recipient");
    return mailboxKey(entry);
  },
};

function nameKey(entry: string): string {
  const name = nameEntry(entry);
  if (name === null) throw new RangeError(`${show(entry)} is no host name, expected mail.example.com or .example.com`);
  return name;
}

function mailboxKey(entry: string): string {
  if (entry === "<>") return entry;
  if (entry.startsWith(".")) return nameKey(entry);
  const [, quoted, plain = "", name = ""] = /^<?(?:"(.*)"|([^"]*?))@(.*?)>?$/.exec(entry) ?? [];
  // "john.doe"@example.com is john.doe@example.com (RFC 5321 4.1.2).
  const local = (quoted?.replace(/\\(.)/g, "$1") ?? plain).toLowerCase();
  const domain = normalDomain(name);
  // oxlint-disable-next-line no-control-regex
  if (nameEntry(domain) === null || domain.startsWith(".") || /[\u0000-\u0020\u007f]/.test(local)) {
    throw new RangeError(`${show(entry)} is no address, expected user@example.com, @example.com or .example.com`);
  }
  return `${local}@${domain}`;
}

function show(entry: string): string {
  return JSON.stringify(entry.length > 80 ? `${entry.slice(0, 80)}…` : entry);
}
