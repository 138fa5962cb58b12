/** The types of `session.dns`. */
import type { Answer, MxRecord, RecordType, SoaRecord, SrvRecord } from "./answer.ts";

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
  /** Looks an address, an address literal such as `[192.0.2.1]`, or a domain up in a list (RFC 5782). */
  listed(addressOrDomain: string, zone: string, options?: ListingOptions): Promise<Listing>;
  /** The same resolver for libraries that take `node:dns/promises`. */
  readonly promises: DnsPromises;
}

/**
 * Records as `node:dns/promises` gives them. The strings of a TXT record are joined to one.
 * @example const [[policy]]: NodeRecords["TXT"] = [["v=spf1 -all"]];
 */
export interface NodeRecords {
  A: string[];
  AAAA: string[];
  CAA: { critical: number; [tag: string]: number | string }[];
  CNAME: string[];
  MX: MxRecord[];
  NS: string[];
  PTR: string[];
  SOA: SoaRecord;
  SRV: SrvRecord[];
  TLSA: { certUsage: number; selector: number; match: number; data: ArrayBuffer }[];
  TXT: string[][];
}

/**
 * The interface of `node:dns/promises` over `session.dns`. It rejects with errors as Node's: their `code` is `ENOTFOUND` (no
 * such name), `ENODATA` (no records of the type), or of a failure `ESERVFAIL`, `EREFUSED`, `ETIMEOUT`, `ECONNREFUSED` and
 * others; `cause` says more. At the end of the call of the handler it rejects with the signal's reason.
 * @example const resolver = (name: string, type: RecordType) => session.dns.promises.resolve(name, type);
 */
export interface DnsPromises {
  resolve<T extends RecordType = "A">(hostname: string, rrtype?: T): Promise<NodeRecords[T]>;
  resolve4(hostname: string): Promise<NodeRecords["A"]>;
  resolve6(hostname: string): Promise<NodeRecords["AAAA"]>;
  resolveCaa(hostname: string): Promise<NodeRecords["CAA"]>;
  resolveCname(hostname: string): Promise<NodeRecords["CNAME"]>;
  resolveMx(hostname: string): Promise<NodeRecords["MX"]>;
  resolveNs(hostname: string): Promise<NodeRecords["NS"]>;
  resolvePtr(hostname: string): Promise<NodeRecords["PTR"]>;
  resolveSoa(hostname: string): Promise<NodeRecords["SOA"]>;
  resolveSrv(hostname: string): Promise<NodeRecords["SRV"]>;
  resolveTlsa(hostname: string): Promise<NodeRecords["TLSA"]>;
  resolveTxt(hostname: string): Promise<NodeRecords["TXT"]>;
  /** The names of an address. */
  reverse(ip: string): Promise<string[]>;
}
