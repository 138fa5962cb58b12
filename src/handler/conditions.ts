/**
 * The conditions of a filter, `[filter.when]`: plain data as the configuration has it, and compiled to tests once for all
 * sessions of a generation. When each test is asked is for `standing.ts` to say.
 */
import { BlockList } from "node:net";
import { mailboxKey, partsOf } from "../mime/mailbox.ts";
import type { Client } from "../protocol/client.ts";
import { type Phase, PHASES } from "../protocol/phases.ts";
import type { MacroLookup } from "./types.ts";

/** Addresses that share their first bits. */
interface Network {
  readonly address: string;
  readonly prefix: number;
  readonly family: 4 | 6;
}

/** How later phases follow from the recipients of a message. */
export const RECIPIENTS_MATCH = ["any", "every", "split"] as const;
export type RecipientsMatch = (typeof RECIPIENTS_MATCH)[number];

/**
 * The conditions as data that can be posted to a worker; null where none was given. Names of hosts and domains are in
 * lower case and A-labels; with a dot in front they mean the names below them.
 */
export interface When {
  /** Listen addresses in their normal form. */
  readonly listeners: readonly string[] | null;
  /** Of {@link ALL_DRAWS} sessions, how many the filter takes. */
  readonly share: number | null;
  readonly clients: readonly (string | Network)[] | null;
  readonly notClients: readonly (string | Network)[] | null;
  readonly local: boolean | null;
  readonly helos: readonly string[] | null;
  readonly tls: boolean | null;
  readonly authenticated: boolean | null;
  readonly users: readonly string[] | null;
  /** Domains, mailboxes, or `<>`. */
  readonly senders: readonly string[] | null;
  readonly notSenders: readonly string[] | null;
  readonly recipients: readonly string[] | null;
  readonly notRecipients: readonly string[] | null;
  readonly recipientsMatch: RecipientsMatch;
}

/** A condition, by its name in {@link When}. */
export type ConditionName = Exclude<keyof When, "recipientsMatch">;

/** The conditions in the order in which they are known, each with its key in the file and the phase of its value. */
export const CONDITIONS: readonly {
  readonly name: ConditionName;
  readonly key: string;
  readonly knownAt: "negotiation" | Phase;
}[] = [
  { name: "listeners", key: "listeners", knownAt: "negotiation" },
  { name: "share", key: "share", knownAt: "negotiation" },
  { name: "clients", key: "clients", knownAt: "connect" },
  { name: "notClients", key: "not_clients", knownAt: "connect" },
  { name: "local", key: "local", knownAt: "connect" },
  { name: "helos", key: "helos", knownAt: "helo" },
  { name: "tls", key: "tls", knownAt: "envfrom" },
  { name: "authenticated", key: "authenticated", knownAt: "envfrom" },
  { name: "users", key: "users", knownAt: "envfrom" },
  { name: "senders", key: "senders", knownAt: "envfrom" },
  { name: "notSenders", key: "not_senders", knownAt: "envfrom" },
  { name: "recipients", key: "recipients", knownAt: "envrcpt" },
  { name: "notRecipients", key: "not_recipients", knownAt: "envrcpt" },
];

/**
 * A handler that would run before a condition of its filter is known. UNKNOWN commands may come right after CONNECT; a
 * message and a session that end were there before.
 */
export function tooEarly(
  phases: readonly Phase[],
  when: When,
): { readonly phase: Phase; readonly key: string; readonly knownAt: Phase } | null {
  const orderOf = (phase: Phase): number => (phase === "unknown" ? PHASES.connect.index : PHASES[phase].index);
  for (const { key, knownAt, name } of CONDITIONS) {
    if (knownAt === "negotiation" || when[name] === null) continue;
    const phase = phases.find((each) => orderOf(each) < PHASES[knownAt].index);
    if (phase !== undefined) return { phase, key, knownAt };
  }
  return null;
}

/**
 * Why a filter with these handlers cannot have these conditions; null if it can.
 * @param where the place of a condition, by its key; "" if it has none
 */
export function problemOfOrder(
  phases: readonly Phase[],
  when: When,
  where: (key: string) => string = () => "",
): string | null {
  const early = tooEarly(phases, when);
  if (early === null) return null;
  const { key, knownAt, phase } = early;
  return `the ${phase} handler may run before its condition ${key}${where(key)} is known, which is at ${knownAt}; remove one of them`;
}

/** The whole of which {@link When.share} is a part: thousandths of a percent. */
export const ALL_DRAWS = 100_000;

/** What is known of a session when it is negotiated. */
export interface SessionStart {
  /** The listen address where its connection came in, in normal form; null if there is none, as in a test. */
  readonly listener: string | null;
  /**
   * A random number of the connection, 32 bits: the same in every worker and generation that serves it. Null in a trial:
   * each share holds.
   */
  readonly draw: number | null;
}

/** The conditions of a filter that are known at negotiation. Plain data. */
export interface SessionScope {
  readonly listeners: readonly string[] | null;
  readonly share: number | null;
}

/** The part of the conditions that decides at negotiation; null if none does. */
export function scopeOf(when: When | null): SessionScope | null {
  if (when === null || (when.listeners === null && when.share === null)) return null;
  return { listeners: when.listeners, share: when.share };
}

/** Whether a filter takes part in a session. @param filter its name: filters draw independently of each other */
export function isInScope(
  { listeners, share }: SessionScope,
  filter: string,
  { draw, listener }: SessionStart,
): boolean {
  if (listeners !== null && (listener === null || !listeners.includes(listener))) return false;
  return share === null || draw === null || drawFor(filter, draw) < share;
}

/** A number below {@link ALL_DRAWS}, evenly spread over sessions and over names. */
function drawFor(filter: string, draw: number): number {
  let hash = draw ^ 0x811c9dc5;
  for (let index = 0; index < filter.length; index++) hash = Math.imul(hash ^ filter.charCodeAt(index), 0x01000193);
  // The finalizer of MurmurHash3: each bit of the input changes half of the output's.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  hash ^= hash >>> 16;
  return Math.floor(((hash >>> 0) / 2 ** 32) * ALL_DRAWS);
}

/** The values of a session that tests read. */
export interface Facts {
  readonly client: Client;
  readonly macros: MacroLookup;
  readonly helo: string;
  /** Postfix made the session up for local mail. */
  readonly isLocal: boolean;
  /** The sender as MAIL carried it; null if there was no MAIL. */
  readonly sender: string | null;
}

type Test = (facts: Facts) => boolean;

/** The conditions that are known after negotiation, compiled. A member is null if it has no condition. */
export class Conditions {
  /** Known at `connect`. */
  readonly connection: Test | null;
  /** Known at `helo`. */
  readonly helo: Test | null;
  /** Known at `envfrom`. */
  readonly message: Test | null;
  /** Of a recipient, as RCPT carried it. */
  readonly recipient: ((raw: string) => boolean) | null;
  readonly recipientsMatch: RecipientsMatch;
  /** Some test looks at the name of the client. */
  readonly readsClientName: boolean;

  constructor(when: When) {
    const { authenticated, clients, helos, local, notClients, tls, users } = when;
    const [isClient, isOther] = [clients, notClients].map((list) => (list === null ? null : clientTest(list)));
    this.connection = all(
      isClient ?? null,
      not(isOther ?? null),
      local === null ? null : ({ isLocal }) => isLocal === local,
    );
    const isHelo = helos === null ? null : nameTest(helos);
    this.helo = isHelo === null ? null : ({ helo }) => isHelo(hostName(helo));
    const isSender = addressTest(when.senders, when.notSenders);
    this.message = all(
      tls === null ? null : ({ macros }) => isGiven(macros, "{tls_version}") === tls,
      authenticated === null ? null : ({ macros }) => isAuthenticated(macros) === authenticated,
      users === null ? null : ({ macros }) => users.includes(macros.get("{auth_authen}") ?? ""),
      isSender === null ? null : ({ sender }) => sender !== null && isSender(sender),
    );
    this.recipient = addressTest(when.recipients, when.notRecipients);
    this.recipientsMatch = when.recipientsMatch;
    this.readsClientName = [...(clients ?? []), ...(notClients ?? [])].some((each) => typeof each === "string");
  }
}

/** Compiles the conditions that are known after negotiation; null if there are none. */
export function compileConditions(when: When | null): Conditions | null {
  if (when === null) return null;
  const isLater = CONDITIONS.some(({ knownAt, name }) => knownAt !== "negotiation" && when[name] !== null);
  return isLater ? new Conditions(when) : null;
}

export function isAuthenticated(macros: MacroLookup): boolean {
  return isGiven(macros, "{auth_authen}") || isGiven(macros, "{auth_type}");
}

function isGiven(macros: MacroLookup, name: string): boolean {
  return (macros.get(name) ?? "") !== "";
}

function all(...given: readonly (Test | null)[]): Test | null {
  const tests = given.filter((test) => test !== null);
  if (tests.length < 2) return tests[0] ?? null;
  return (facts) => tests.every((test) => test(facts));
}

function not(test: Test | null): Test | null {
  return test === null ? null : (facts) => !test(facts);
}

/** A host name or a name of HELO, as patterns are compared with it. */
function hostName(name: string): string {
  return name.replace(/\.$/, "").toLowerCase();
}

/** Whether a name is one of these, or below one that begins with a dot. */
function nameTest(patterns: readonly string[]): (name: string) => boolean {
  const names = new Set(patterns);
  const hasSuffixes = patterns.some((pattern) => pattern.startsWith("."));
  return (name) => {
    if (name === "" || name.startsWith(".")) return false;
    if (names.has(name)) return true;
    if (!hasSuffixes) return false;
    for (let dot = name.indexOf("."); dot !== -1; dot = name.indexOf(".", dot + 1)) {
      if (names.has(name.slice(dot))) return true;
    }
    return false;
  };
}

function clientTest(patterns: readonly (string | Network)[]): Test {
  const networks = new BlockList();
  for (const pattern of patterns) {
    if (typeof pattern === "string") continue;
    networks.addSubnet(pattern.address, pattern.prefix, pattern.family === 4 ? "ipv4" : "ipv6");
  }
  const names = patterns.filter((pattern) => typeof pattern === "string");
  const isNamed = names.length === 0 ? null : nameTest(names);
  return ({ client, macros }) => {
    if (client.family === "inet" || client.family === "inet6") {
      const address = client.address.replace(/^::ffff:(?=\d+\.)/i, "");
      if (networks.check(address, address.includes(":") ? "ipv6" : "ipv4")) return true;
    }
    return isNamed !== null && isConfirmed(client, macros) && isNamed(hostName(client.hostname));
  };
}

/** Sendmail's macro of how the name of the client was found. */
export const CLIENT_RESOLVE = "{client_resolve}";

/**
 * The client's name leads back to its address. Postfix gives no other name. Sendmail gives any, with the result of the
 * check in a macro.
 */
function isConfirmed({ hostname }: Client, macros: MacroLookup): boolean {
  if (hostname === "" || hostname === "unknown") return false;
  const result = macros.get(CLIENT_RESOLVE);
  return result === undefined ? (macros.get("v") ?? "").startsWith("Postfix") : result === "OK";
}

/** Of an address as MAIL or RCPT carried it. */
function addressTest(
  given: readonly string[] | null,
  excluded: readonly string[] | null,
): ((raw: string) => boolean) | null {
  const [isOne, isOther] = [given, excluded].map((patterns) => (patterns === null ? null : patternTest(patterns)));
  if (isOne == null && isOther == null) return null;
  return (raw) => {
    const address = readAddress(raw);
    return (isOne == null || isOne(address)) && (isOther == null || !isOther(address));
  };
}

interface ReadAddress {
  /** `""` for the null sender. */
  readonly mailbox: string;
  /** `""` if it has none. */
  readonly domain: string;
}

/** In whatever spelling it came. */
function readAddress(raw: string): ReadAddress {
  const { domain, local } = partsOf(raw);
  // Also `<"">`, `< >` and `<()>`: mail servers take them for the null sender.
  if (local === "" && domain === "") return { mailbox: "", domain: "" };
  return { mailbox: mailboxKey(raw).toLowerCase(), domain };
}

function patternTest(patterns: readonly string[]): (address: ReadAddress) => boolean {
  const domains = patterns.filter((pattern) => pattern !== NULL_SENDER && !pattern.includes("@"));
  const isDomain = domains.length === 0 ? null : nameTest(domains);
  const mailboxes = new Set(patterns.filter((pattern) => pattern.includes("@")));
  const takesNull = patterns.includes(NULL_SENDER);
  return ({ domain, mailbox }) => {
    if (mailbox === "") return takesNull;
    return mailboxes.has(mailbox) || (isDomain !== null && isDomain(domain));
  };
}

export const NULL_SENDER = "<>";

/** A mailbox as the patterns of {@link When} have it: mail servers deliver it in any case. */
export function mailboxPattern(address: string): string {
  return mailboxKey(address).toLowerCase();
}
