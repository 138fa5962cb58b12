/** `session.dns`: questions of handlers, over a source that answers them. */
import { isIP } from "node:net";
import { MAX_TIMER_MS, readDuration } from "../quantity.ts";
import { shownArgument, UsageError } from "../usage-error.ts";
import { type Answer, RECORD_TYPES, type RecordOf, type RecordType } from "./answer.ts";
import { addressBytes, asDnsName, literalAddress, reversed, reverseName } from "./names.ts";
import { NodeDns } from "./node.ts";
import type { Dns, DnsCallOptions, DnsPromises, Listing, ListingOptions } from "./types.ts";

/** Answers questions; it rejects by the signal only. */
export interface DnsSource {
  resolve(name: string, type: RecordType, signal: AbortSignal): Promise<Answer>;
}

/** Names of an address that are looked at: anybody may give an address thousands. */
const MAX_NAMES = 10;
/** Names of exchangers, codes of a list, text of a list that are given. */
const MAX_TEXT = 500;

const NO_ADDRESS: Answer<"PTR"> = { status: "missing", records: [], ttl: 0, reason: "it is no address" };

/** @param signal of the call at hand */
export function dnsOf(source: DnsSource, signal: () => AbortSignal): Dns {
  return new DnsClient(source, signal);
}

type Ask = <T extends RecordType>(name: string, type: T) => Promise<Answer<T>>;

class DnsClient implements Dns {
  readonly #source: DnsSource;
  readonly #signal: () => AbortSignal;
  #promises: NodeDns | null = null;

  constructor(source: DnsSource, signal: () => AbortSignal) {
    this.#source = source;
    this.#signal = signal;
  }

  get promises(): DnsPromises {
    return (this.#promises ??= new NodeDns((name, type) => this.resolve(name, type)));
  }

  async resolve<T extends RecordType>(name: string, type: T, options: DnsCallOptions = {}): Promise<Answer<T>> {
    if (!RECORD_TYPES.includes(type)) {
      wrong(`a type of records is one of ${RECORD_TYPES.join(", ")}, got ${shownArgument(type)}`);
    }
    return this.#asker(options)(name, type);
  }

  /** Asks the questions of one call: its timeout is that of all of them together. */
  #asker(options: DnsCallOptions): Ask {
    const ms = readTimeout(options.timeout);
    const timeout = ms === null ? null : AbortSignal.timeout(ms);
    const own = this.#signal();
    const others = [options.signal, timeout].filter((signal) => signal != null);
    const signal = others.length === 0 ? own : AbortSignal.any([own, ...others]);
    return async <T extends RecordType>(name: string, type: T) => {
      checkText("a name", name);
      const asked = asDnsName(name);
      if (asked === null)
        return { status: "missing", records: [], ttl: 0, reason: "it is no name that the DNS can have" };
      try {
        return (await this.#source.resolve(asked, type, signal)) as Answer<T>;
      } catch (error) {
        if (timeout === null || error !== timeout.reason) throw error;
        return { status: "failed", records: [], ttl: 0, reason: `no answer in ${ms} ms`, code: "ETIMEOUT" };
      }
    };
  }

  async addresses(name: string, options: DnsCallOptions = {}): Promise<Answer<"A" | "AAAA">> {
    const ask = this.#asker(options);
    return joined(await Promise.all([ask(name, "A"), ask(name, "AAAA")]));
  }

  txt(name: string, options?: DnsCallOptions): Promise<Answer<"TXT">> {
    return this.resolve(name, "TXT", options);
  }

  async mx(name: string, options?: DnsCallOptions): Promise<Answer<"MX">> {
    const answer = await this.resolve(name, "MX", options);
    return { ...answer, records: answer.records.toSorted((one, other) => one.priority - other.priority) };
  }

  async names(address: string, options?: DnsCallOptions): Promise<Answer<"PTR">> {
    const name = reverseName(address);
    if (name === null) return NO_ADDRESS;
    return this.resolve(name, "PTR", options);
  }

  async confirmedName(address: string, options: DnsCallOptions = {}): Promise<Answer<"PTR">> {
    const ask = this.#asker(options);
    const reverse = reverseName(address);
    if (reverse === null) return NO_ADDRESS;
    const names = await ask(reverse, "PTR");
    if (names.status !== "found") return names;
    const wanted = Buffer.from(addressBytes(address)!);
    const candidates = names.records.slice(0, MAX_NAMES);
    const type = wanted.length === 4 ? "A" : "AAAA";
    const answers = await Promise.all(candidates.map((name) => ask(name, type)));
    const at = answers.findIndex(({ records }) => records.some((record) => wanted.equals(addressBytes(record)!)));
    if (at !== -1) {
      return { status: "found", records: [candidates[at]!], ttl: Math.min(names.ttl, answers[at]!.ttl) };
    }
    const failed = answers.find(({ status }) => status === "failed");
    if (failed !== undefined) return { ...failed, records: [] };
    return { status: "empty", records: [], ttl: Math.min(names.ttl, ...answers.map(({ ttl }) => ttl)) };
  }

  async listed(what: string, zone: string, options: ListingOptions = {}): Promise<Listing> {
    const counted = codesOf(options.codes);
    checkText("what is looked up", what);
    checkText("a zone", zone);
    if (asDnsName(zone) === null) wrong(`a zone is the name of a list, got ${shownArgument(zone)}`);
    const address = literalAddress(what) ?? what;
    const front = isIP(address) === 0 ? asDnsName(address) : reversed(address);
    if (front === null) return { status: "clear", codes: [], text: "" };
    const name = `${front}.${zone}`;
    const ask = this.#asker(options);
    const answer = await ask(name, "A");
    if (answer.status === "failed") return { status: "failed", codes: [], text: "", reason: answer.reason ?? "" };
    const isError = (code: string): boolean => !code.startsWith("127.") || code.startsWith("127.255.255.");
    const odd = answer.records.find(isError);
    if (odd !== undefined) return { status: "failed", codes: [], text: "", reason: `${zone} answered ${odd}` };
    const codes = answer.records.filter(counted);
    if (codes.length === 0) return { status: "clear", codes: [], text: "" };
    if (options.text === false) return { status: "listed", codes, text: "" };
    const { records } = await ask(name, "TXT");
    return { status: "listed", codes, text: oneLine(records[0] ?? "") };
  }
}

/** Anybody may run a list: its text goes into replies and logs, where a line end would begin another line. */
function oneLine(text: string): string {
  const plain = text.slice(0, MAX_TEXT).replaceAll(/[\s\p{C}]+/gu, " ");
  return plain.trim();
}

/** Addresses of both kinds: what one question found counts, whatever the other says. */
function joined(answers: readonly [Answer<"A">, Answer<"AAAA">]): Answer<"A" | "AAAA"> {
  const found = answers.filter(({ status }) => status === "found");
  if (found.length > 0) {
    return {
      status: "found",
      records: found.flatMap(({ records }): readonly RecordOf["A"][] => records),
      ttl: Math.min(...found.map(({ ttl }) => ttl)),
    };
  }
  const [first, second] = answers;
  const failed = answers.find(({ status }) => status === "failed");
  if (failed !== undefined) return failed;
  return first.status === "empty" ? first : second;
}

/** Whether a code of a list counts: the addresses and networks that are given, else all. */
function codesOf(codes: readonly string[] | undefined): (code: string) => boolean {
  if (codes === undefined) return () => true;
  const networks = codes.map((text) => {
    const [address = "", bits = "32"] = text.split("/");
    const bytes = isIP(address) === 4 ? Buffer.from(addressBytes(address)!).readUInt32BE() : null;
    if (bytes === null || !/^\d{1,2}$/.test(bits) || Number(bits) > 32) {
      return wrong(
        `codes are addresses or networks such as "127.0.0.2" and "127.0.0.4/30", got ${shownArgument(text)}`,
      );
    }
    const mask = bits === "0" ? 0 : (-1 << (32 - Number(bits))) >>> 0;
    return { mask, network: (bytes & mask) >>> 0 };
  });
  return (code) => {
    const bytes = Buffer.from(addressBytes(code)!).readUInt32BE();
    return networks.some(({ mask, network }) => (bytes & mask) >>> 0 === network);
  };
}

function checkText(what: string, value: unknown): void {
  if (typeof value !== "string") wrong(`${what} is a string, got ${shownArgument(value)}`);
}

function readTimeout(timeout: number | string | undefined): number | null {
  if (timeout === undefined) return null;
  const ms = readDuration(timeout);
  if (!(ms > 0)) wrong(`a timeout is seconds or text such as "500ms", got ${shownArgument(timeout)}`);
  return Math.min(ms, MAX_TIMER_MS);
}

function wrong(message: string): never {
  throw new UsageError("PMILTER_ERR_ARGUMENT", `dns: ${message}`);
}
