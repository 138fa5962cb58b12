/** The rules of rate-limit.ts: their options, and the values that they count by. */
import { type Address, reject } from "pmilter";
import {
  array,
  custom,
  duration,
  expected,
  type InferOutput,
  is,
  nonEmpty,
  parse,
  picklist,
  pipe,
  size,
  string,
  table,
  transform,
} from "pmilter/options";
import { DomainList, MailboxList, nameEntry } from "../access-names.ts";
import { canonicalAddress, networkOf, NetworkTable, type Prefixes } from "../access-networks.ts";
import { type Fail, lines, made, option, type Refusal, refusalOf, required, unset } from "../options.ts";
import { asKey } from "../store-keys.ts";

const KEYS = ["user", "client", "network", "sender", "sender_domain", "recipient"] as const;
export type Key = (typeof KEYS)[number];

const COUNTS = ["recipients", "messages", "bytes"] as const;
export type Count = (typeof COUNTS)[number];

const WHEN_OVER = ["tempfail", "reject", "quarantine", "mark"] as const;
export type WhenOver = (typeof WHEN_OVER)[number];

/** Stands in a text for the seconds until the window ends. */
const SECONDS = "{seconds}";

const entries = {
  key: required(picklist(KEYS), "what is counted by: user, client, network, sender, sender_domain, recipient"),
  limit: required(
    custom<number | string>(
      (value) => is(size(), value) && value !== 0,
      expected('a whole number, 1 or more, or for bytes a size such as "100MB"'),
    ),
    "how much may pass in a window; for `bytes` also a size such as `100MB`",
  ),
  per: required(duration(), "the length of a window, which begins with the first mail in it"),
  count: option(picklist(COUNTS), "recipients", "what is counted: recipients, messages, bytes"),
  when_over: option(
    picklist(WHEN_OVER),
    "tempfail",
    "what happens to mail over the limit: `tempfail`, `reject`, `quarantine` (the whole message), `mark` (it passes, with a header)",
  ),
  text: unset(
    string(),
    "[below](#replies)",
    "the reply of `tempfail` and `reject`; `{seconds}` in it is the time to wait",
  ),
  only: unset(lines(), "all", "only these values of the key: [exceptions](#exceptions)"),
  except: unset(lines(), "none", "all but these values of the key"),
};

type RuleOptions = InferOutput<ReturnType<typeof table<typeof entries>>>;

/** Values of a key that a rule is about. */
interface Values {
  has(value: string, address: Address | null): boolean;
}

export interface Rule {
  readonly key: Key;
  readonly limit: number;
  /** Seconds. */
  readonly per: number;
  readonly count: Count;
  readonly whenOver: WhenOver;
  /** The rule's name in the store: rules that count the same have the same. */
  readonly id: string;
  /** In words, for the log: `100 recipients per 1h`. */
  readonly words: string;
  readonly only: Values | null;
  readonly except: Values | null;
  /** The refusal of a message that is larger than the limit. */
  readonly tooLarge: Refusal;
  /** The refusal of mail that comes again after so many seconds. */
  refusal(seconds: number): Refusal;
}

export const RULES = required(
  pipe(
    array(made(table(entries), ruleOf)),
    nonEmpty(expected("at least one [[filter.options.rules]]")),
    transform(numbered),
  ),
  "the rules",
);

function ruleOf(options: RuleOptions, fail: Fail<RuleOptions>): Rule {
  const { count, key, limit, per, text, when_over: whenOver } = options;
  if (count !== "bytes" && typeof limit === "string") fail("limit", `a whole number, since ${count} are counted`);
  const refuses = whenOver === "reject" ? "reject" : "tempfail";
  if (text !== undefined && whenOver !== refuses) fail("text", `no text beside when_over = "${whenOver}"`);
  const reply = text ?? defaultText(refuses, count);
  const refusal = (seconds: number) => refusalOf(refuses, reply.replaceAll(SECONDS, String(seconds)));
  const sample = refusal(1);
  if (typeof sample === "string") fail("text", sample);
  return {
    key,
    limit: parse(size(), limit),
    per: per / 1000,
    count,
    whenOver,
    id: `${key} ${count} ${spell(per)}`,
    words: `${limit} ${count} per ${spell(per)}`,
    only: valuesOf("only", options, fail),
    except: valuesOf("except", options, fail),
    tooLarge: reject(`552 5.3.4 Message is larger than ${limit} bytes, the limit per ${spell(per)}`),
    refusal: (seconds) => refusal(seconds) as Refusal,
  };
}

/** The text of the replies without one of their own. */
export function defaultText(refuses: "reject" | "tempfail", count: Count): string {
  return refuses === "reject"
    ? `550 5.7.1 Too many ${count}`
    : `451 4.7.1 Too many ${count}, try again in ${SECONDS} s`;
}

const UNITS = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["m", 60_000],
  ["s", 1000],
] as const;

/** A duration with the largest unit that leaves a whole number. */
function spell(ms: number): string {
  const [unit, one] = UNITS.find(([, one]) => ms % one === 0) ?? ["ms", 1];
  return `${ms / one}${unit}`;
}

function valuesOf(name: "only" | "except", options: RuleOptions, fail: Fail<RuleOptions>): Values | null {
  const entries = options[name];
  if (entries === undefined) return null;
  switch (options.key) {
    case "user": {
      const users = new Set(entries.map(userOf));
      return { has: (value) => users.has(value) };
    }
    case "client":
    case "network": {
      const networks = new NetworkTable<true>();
      try {
        for (const entry of entries) networks.add(entry, true);
      } catch (error) {
        return fail(name, `addresses and networks (${error instanceof Error ? error.message : String(error)})`);
      }
      return { has: (value) => networks.find(value.replace(/\/.*/, "")) === true };
    }
    case "sender_domain": {
      if (entries.some((entry) => nameEntry(entry) === null)) return fail(name, "domains such as example.com");
      const domains = new DomainList(entries);
      return { has: (value) => domains.has(value) };
    }
    case "sender":
    case "recipient":
      try {
        const list = new MailboxList(entries);
        return { has: (_, address) => address !== null && list.has(address) };
      } catch (error) {
        return fail(name, `addresses and domains (${error instanceof Error ? error.message : String(error)})`);
      }
    default:
      return options.key satisfies never;
  }
}

/** What a session and a message say of the keys. */
export interface Counted {
  readonly user: string;
  readonly client: string;
  readonly sender: Address;
  readonly recipient: Address | null;
}

/** The value of a rule's key; `""` if the mail has none, or the rule is not about it. */
export function valueOf(rule: Rule, counted: Counted, prefixes: Prefixes): string {
  const address = rule.key === "recipient" ? counted.recipient : counted.sender;
  const value = keyOf(rule.key, counted, address, prefixes);
  if (value === "") return "";
  // A network counts as a whole: it is in a list if its client is.
  const listed = rule.key === "network" ? counted.client : value;
  if (rule.only?.has(listed, address) === false || rule.except?.has(listed, address) === true) return "";
  return value;
}

function keyOf(key: Key, { client, sender, user }: Counted, address: Address | null, prefixes: Prefixes): string {
  switch (key) {
    case "user":
      return userOf(user);
    case "client":
      return canonicalAddress(client);
    case "network":
      return networkOf(client, prefixes);
    case "sender_domain":
      return sender.domain;
    case "sender":
    case "recipient":
      return address === null ? "" : mailboxOf(address);
    default:
      return key satisfies never;
  }
}

/** A login name in any case is one user: else a client could spell it anew once its limit is reached. */
function userOf(name: string): string {
  return name.trim().toLowerCase();
}

/** The same of a mailbox. */
export function mailboxOf({ mailbox }: Address): string {
  return mailbox.toLowerCase();
}

/** The key in the store. Rules that count the same are apart by their place among each other. */
export function storeKey({ id }: Rule, value: string): string {
  return `${id} ${asKey(value)}`;
}

/** Gives each rule a name of its own. */
function numbered(rules: Rule[]): Rule[] {
  const seen = new Map<string, number>();
  return rules.map((rule) => {
    const number = (seen.get(rule.id) ?? 0) + 1;
    seen.set(rule.id, number);
    return number === 1 ? rule : { ...rule, id: `${rule.id} #${number}` };
  });
}
