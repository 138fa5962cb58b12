/** What a reply says of a question: records, nothing, no such name, or another name to ask for (RFC 1034 4.3.2, RFC 2308). */
import type { Answer } from "../../dns/answer.ts";
import type { Question, Reply } from "./wire.ts";

/** What a reply says: an answer, or another name to ask for. */
export type Said = { readonly answer: Answer } | { readonly alias: string; readonly ttl: number };

/** A chain of aliases that is longer is taken for a loop. */
export const MAX_ALIASES = 12;
/** Longest times to keep an answer, in seconds (RFC 8767 4 and RFC 2308 5 give the reasons). */
const MAX_TTL = 86_400;
const MAX_NEGATIVE_TTL = 3 * 3600;

/** A reply that answers nothing: why. */
export interface Unusable {
  readonly unusable: string;
}

/** @returns why, for a reply that answers nothing: the server does not know, or contradicts itself */
export function readReply(reply: Reply, { name, type }: Question): Said | Unusable {
  const { answers, isReferral, rcode } = reply;
  if (rcode !== "NOERROR" && rcode !== "NXDOMAIN") return { unusable: rcode };
  if (isReferral) return { unusable: "it refers to other servers, since it answers for its own zones only" };
  let at = name.toLowerCase();
  let ttl = MAX_TTL;
  for (let aliases = 0; aliases <= MAX_ALIASES; aliases++) {
    const here = answers.filter((answer) => answer.name === at);
    const found = here.filter(({ data }) => "record" in data);
    if (found.length > 0) {
      const records = found.flatMap(({ data }) => ("record" in data && data.record !== null ? [data.record] : []));
      for (const each of found) ttl = Math.min(ttl, each.ttl);
      if (records.length === 0) return { unusable: `no ${type} record of it can be read` };
      return { answer: { status: "found", records, ttl } };
    }
    const alias = here[0];
    if (alias === undefined) {
      if (aliases === 0 || rcode === "NXDOMAIN" || reply.negativeTtl !== null) {
        return { answer: negative(rcode === "NXDOMAIN" ? "missing" : "empty", reply, ttl) };
      }
      // The server does not know the target.
      return { alias: at, ttl };
    }
    ttl = Math.min(ttl, alias.ttl);
    at = "alias" in alias.data ? alias.data.alias : at;
  }
  return { unusable: `more than ${MAX_ALIASES} aliases` };
}

/** Without an SOA a negative answer is not kept (RFC 2308 5). */
function negative(status: "empty" | "missing", { negativeTtl }: Reply, ttl: number): Answer {
  return { status, records: [], ttl: Math.min(ttl, negativeTtl ?? 0, MAX_NEGATIVE_TTL) };
}
