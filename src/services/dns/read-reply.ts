/** What a name server's packet says about a question: records, nothing, or no such name (RFC 1034 3.6.2, RFC 2308). */
import { isIPv4, isIPv6 } from "node:net";
import type { Answer, RecordOf, RecordType } from "../../dns/answer.ts";
import type { Question, Reply } from "./exchange.ts";

/** What a packet says: an answer, or another name to ask for. */
export type Said = { readonly answer: Answer } | { readonly alias: string; readonly ttl: number };

/** A chain of aliases that is longer is taken for a loop. */
export const MAX_ALIASES = 12;
/** Records of an answer beyond these are left out: a packet of 64 KB has thousands. */
const MAX_RECORDS = 1000;
/** Longest times to keep an answer (RFC 8767 and RFC 2308 5 give the reasons). */
const MAX_TTL = 86_400;
const MAX_NEGATIVE_TTL = 3 * 3600;

type Decoded = { readonly type: string; readonly name: string; readonly ttl?: number; readonly data?: unknown };

/** @returns null for a packet that answers nothing: the server does not know, or contradicts itself */
export function readReply(reply: Reply, { name, type }: Question): Said | null {
  if (reply.rcode !== "NOERROR" && reply.rcode !== "NXDOMAIN") return null;
  const answers = (reply.answers ?? []) as readonly Decoded[];
  let at = name.toLowerCase();
  let ttl = MAX_TTL;
  for (let aliases = 0; aliases <= MAX_ALIASES; aliases++) {
    const here = answers.filter((answer) => answer.name.toLowerCase() === at);
    const found = here.filter((answer) => answer.type === type);
    if (found.length > 0) {
      const records = found.slice(0, MAX_RECORDS).flatMap(({ data }) => recordOf(type as RecordType, data));
      for (const each of found) ttl = Math.min(ttl, each.ttl ?? 0);
      // A record that cannot be read is no record.
      return { answer: records.length > 0 ? { status: "found", records, ttl } : negative("empty", reply, ttl) };
    }
    const alias = here.find((answer) => answer.type === "CNAME");
    if (alias === undefined) {
      if (aliases === 0 || reply.rcode === "NXDOMAIN" || hasSoa(reply)) {
        return { answer: negative(reply.rcode === "NXDOMAIN" ? "missing" : "empty", reply, ttl) };
      }
      // The server does not know the target.
      return { alias: at, ttl };
    }
    ttl = Math.min(ttl, alias.ttl ?? 0);
    at = String(alias.data).toLowerCase();
  }
  return null;
}

function soaOf(reply: Reply): Decoded | undefined {
  return ((reply.authorities ?? []) as readonly Decoded[]).find(({ type }) => type === "SOA");
}

function hasSoa(reply: Reply): boolean {
  return soaOf(reply) !== undefined;
}

/** Without an SOA a negative answer is not kept (RFC 2308 5). */
function negative(status: "empty" | "missing", reply: Reply, ttl: number): Answer {
  const soa = soaOf(reply);
  if (soa === undefined) return { status, records: [], ttl: 0 };
  const { minimum = 0 } = (soa.data ?? {}) as { readonly minimum?: number };
  return { status, records: [], ttl: Math.min(ttl, soa.ttl ?? 0, minimum, MAX_NEGATIVE_TTL) };
}

const text = (value: unknown): string => (typeof value === "string" ? value : "");
const number = (value: unknown): number => (typeof value === "number" ? value : 0);

/** @returns a list without it for a record that does not have the form of its type */
function recordOf(type: RecordType, data: unknown): RecordOf[RecordType][] {
  const fields = (typeof data === "object" && data !== null ? data : {}) as Readonly<Record<string, unknown>>;
  switch (type) {
    case "A":
      return isIPv4(text(data)) ? [text(data)] : [];
    case "AAAA":
      return isIPv6(text(data)) ? [text(data)] : [];
    case "CNAME":
    case "NS":
    case "PTR":
      return text(data) === "" ? [] : [text(data)];
    case "TXT": {
      const strings = (Array.isArray(data) ? data : [data]) as readonly (string | Uint8Array)[];
      return [Buffer.concat(strings.map((piece) => Buffer.from(piece as Uint8Array))).toString("utf8")];
    }
    case "MX":
      return [{ exchange: text(fields["exchange"]), priority: number(fields["preference"]) }];
    case "SRV":
      return [
        {
          name: text(fields["target"]),
          port: number(fields["port"]),
          priority: number(fields["priority"]),
          weight: number(fields["weight"]),
        },
      ];
    case "SOA":
      return [
        {
          nsname: text(fields["mname"]),
          hostmaster: text(fields["rname"]),
          serial: number(fields["serial"]),
          refresh: number(fields["refresh"]),
          retry: number(fields["retry"]),
          expire: number(fields["expire"]),
          minttl: number(fields["minimum"]),
        },
      ];
    case "CAA":
      return [{ critical: number(fields["flags"]), tag: text(fields["tag"]), value: text(fields["value"]) }];
    case "TLSA": {
      const certificate = fields["certificate"];
      return [
        {
          usage: number(fields["usage"]),
          selector: number(fields["selector"]),
          match: number(fields["matchingType"]),
          data: certificate instanceof Uint8Array ? Buffer.from(certificate).toString("hex") : "",
        },
      ];
    }
    default:
      return type satisfies never;
  }
}
