/** `session.dns.promises`: the resolver with the interface of `node:dns/promises`, for libraries that take one. */
import { isIP } from "node:net";
import { shownArgument } from "../usage-error.ts";
import type { Answer, RecordOf, RecordType } from "./answer.ts";
import { reverseName } from "./names.ts";
import type { DnsPromises, NodeRecords } from "./types.ts";

type Resolve = <T extends RecordType>(name: string, type: T) => Promise<Answer<T>>;

/** Records as Node has them. */
const AS_IN_NODE: { readonly [T in RecordType]: (records: readonly RecordOf[T][]) => NodeRecords[T] } = {
  A: (records) => [...records],
  AAAA: (records) => [...records],
  CAA: (records) => records.map(({ critical, tag, value }) => ({ critical, [tag]: value })),
  CNAME: (records) => [...records],
  MX: (records) => records.map((record) => ({ ...record })),
  NS: (records) => [...records],
  PTR: (records) => [...records],
  SOA: ([record]) => ({ ...record! }),
  SRV: (records) => records.map((record) => ({ ...record })),
  TLSA: (records) =>
    records.map(({ data, match, selector, usage }) => ({
      certUsage: usage,
      selector,
      match,
      data: new Uint8Array(Buffer.from(data, "hex")).buffer,
    })),
  TXT: (records) => records.map((text) => [text]),
};

/** An error as those of Node. */
class DnsError extends Error {
  readonly code: string;
  readonly syscall: string;
  readonly hostname: string;

  constructor(code: string, syscall: string, hostname: string, reason: string | undefined) {
    super(`${syscall} ${code} ${hostname}`, reason === undefined ? {} : { cause: reason });
    this.code = code;
    this.syscall = syscall;
    this.hostname = hostname;
  }
}

export class NodeDns implements DnsPromises {
  readonly #resolve: Resolve;

  constructor(resolve: Resolve) {
    this.#resolve = resolve;
  }

  resolve<T extends RecordType = "A">(hostname: string, rrtype: T = "A" as T): Promise<NodeRecords[T]> {
    return this.#query(hostname, rrtype);
  }

  resolve4(hostname: string): Promise<NodeRecords["A"]> {
    return this.#query(hostname, "A");
  }
  resolve6(hostname: string): Promise<NodeRecords["AAAA"]> {
    return this.#query(hostname, "AAAA");
  }
  resolveCaa(hostname: string): Promise<NodeRecords["CAA"]> {
    return this.#query(hostname, "CAA");
  }
  resolveCname(hostname: string): Promise<NodeRecords["CNAME"]> {
    return this.#query(hostname, "CNAME");
  }
  resolveMx(hostname: string): Promise<NodeRecords["MX"]> {
    return this.#query(hostname, "MX");
  }
  resolveNs(hostname: string): Promise<NodeRecords["NS"]> {
    return this.#query(hostname, "NS");
  }
  resolvePtr(hostname: string): Promise<NodeRecords["PTR"]> {
    return this.#query(hostname, "PTR");
  }
  resolveSoa(hostname: string): Promise<NodeRecords["SOA"]> {
    return this.#query(hostname, "SOA");
  }
  resolveSrv(hostname: string): Promise<NodeRecords["SRV"]> {
    return this.#query(hostname, "SRV");
  }
  resolveTlsa(hostname: string): Promise<NodeRecords["TLSA"]> {
    return this.#query(hostname, "TLSA");
  }
  resolveTxt(hostname: string): Promise<NodeRecords["TXT"]> {
    return this.#query(hostname, "TXT");
  }

  async reverse(ip: string): Promise<string[]> {
    if (isIP(ip) === 0) throw new DnsError("EINVAL", "getHostByAddr", shownArgument(ip), "it is no address");
    return recordsOf(await this.#resolve(reverseName(ip)!, "PTR"), "PTR", "getHostByAddr", ip);
  }

  async #query<T extends RecordType>(hostname: string, type: T): Promise<NodeRecords[T]> {
    return recordsOf(await this.#resolve(hostname, type), type, syscallOf(type), hostname);
  }
}

/** `queryTxt`, `queryA`, `queryAaaa`. */
function syscallOf(type: RecordType): string {
  return `query${type[0]}${type.slice(1).toLowerCase()}`;
}

function recordsOf<T extends RecordType>(
  { code, reason, records, status }: Answer<T>,
  type: T,
  syscall: string,
  hostname: string,
): NodeRecords[T] {
  switch (status) {
    case "found":
      return AS_IN_NODE[type](records);
    case "empty":
      throw new DnsError("ENODATA", syscall, hostname, reason);
    case "missing":
      throw new DnsError("ENOTFOUND", syscall, hostname, reason);
    default:
      throw new DnsError(code ?? "ESERVFAIL", syscall, hostname, reason);
  }
}
