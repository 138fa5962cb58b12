/** The types of `session.dns`. */
import type { Answer, RecordType } from "./answer.ts";

/**
 * Options of a question. The call's own `session.signal` ends it as well.
 * @example await session.dns.txt(domain, { timeout: "500ms" });
 */
export interface DnsCallOptions {
  /** Ends the question; it then rejects with the signal's reason. */
  readonly signal?: AbortSignal;
  /** For all questions of the call together: seconds, or text such as `"500ms"`; default: what `[dns]` allows. */
  readonly timeout?: number | string;
}

/**
 * Options of `listed`.
 * @example await session.dns.listed(session.client.address, "zen.example", { codes: ["127.0.0.2/31"] });
 */
export interface ListingOptions extends DnsCallOptions {
  /** The codes that count: addresses or networks in 127.0.0.0/8. Default: all. */
  readonly codes?: readonly string[];
  /** Default true; false does not ask for the list's text, which is a second question. */
  readonly text?: boolean;
}

/**
 * What a list says. `failed`: it did not answer, or answered an error such as 127.255.255.254 (the machine may not ask), or
 * anything outside of 127.0.0.0/8, which is no list's code. An error is no listing.
 * @example const isListed = ({ status }: Listing) => status === "listed";
 */
export interface Listing {
  readonly status: "listed" | "clear" | "failed";
  /** The codes that count, such as `127.0.0.2`. */
  readonly codes: readonly string[];
  /** The list's own text in one line without control characters, at most 500 characters; `""` without one. */
  readonly text: string;
  /** Why it failed. */
  readonly reason?: string;
}

/**
 * Questions to the DNS. All workers share the answers. Nothing rejects for what the DNS says: `found`, `empty` (the name has
 * no such records), `missing` (there is no such name) and `failed`, at the timeout too, are statuses. A call rejects when its
 * signal aborts, with the signal's reason.
 * @example
 * const { status, records } = await session.dns.txt(`_dmarc.${domain}`);
 * if (status === "failed") return tempfail();
 */
export interface Dns {
  /** @param type `A`, `AAAA`, `CAA`, `CNAME`, `MX`, `NS`, `PTR`, `SOA`, `SRV`, `TLSA` or `TXT` */
  resolve<T extends RecordType>(name: string, type: T, options?: DnsCallOptions): Promise<Answer<T>>;
  /** IPv4 and IPv6 addresses of a name. */
  addresses(name: string, options?: DnsCallOptions): Promise<Answer<"A" | "AAAA">>;
  /** TXT records, the strings of each joined. */
  txt(name: string, options?: DnsCallOptions): Promise<Answer<"TXT">>;
  /** Mail exchangers, the most preferred first. */
  mx(name: string, options?: DnsCallOptions): Promise<Answer<"MX">>;
  /** The names of an address; they are not confirmed: see `confirmedName`. */
  names(address: string, options?: DnsCallOptions): Promise<Answer<"PTR">>;
  /** The first name of an address that has this address itself; `empty` if none has. */
  confirmedName(address: string, options?: DnsCallOptions): Promise<Answer<"PTR">>;
  /** Looks an address or a domain up in a list (RFC 5782). */
  listed(addressOrDomain: string, zone: string, options?: ListingOptions): Promise<Listing>;
}
