/**
 * Addresses of header fields such as From and To (RFC 5322 3.4), by the parser of `nodemailer`. The library is loaded at the
 * first call.
 */
import { decodeWords, unfold } from "./header-text.ts";
import { partsOf } from "./mailbox.ts";

/**
 * One mailbox of an address header.
 * @example for (const { name, domain } of message.headers.addresses("From")) console.log(name, domain);
 */
export interface HeaderAddress {
  /** The display name, encoded words decoded; a comment behind a bare address counts as one. "" if there is none. */
  readonly name: string;
  /** `local@domain` as it stands in the header. */
  readonly address: string;
  /** The local part without needless quotes. */
  readonly local: string;
  /** The domain in lower case and A-labels, without a dot at its end; "" if there is none. */
  readonly domain: string;
}

type Parser = typeof import("nodemailer/lib/addressparser").default;

let loaded: Parser | null = null;

function parser(): Parser {
  loaded ??= (require("nodemailer/lib/addressparser") as { default: Parser }).default;
  return loaded;
}

/** Both mail servers pass on headers of up to about 100 KB. The text behind these bounds is not read. */
const MAX_LENGTH = 64 * 1024;
const MAX_ADDRESSES = 2000;

/**
 * The addresses of a header value, in order. Members of a group stand in the list as all others do; what has no address is
 * left out. It never throws: a broken value gives what can be read of it.
 * @param value as the header has it; several values are read one after the other, each by itself
 * @returns at most 2,000, from at most the first 64 KB
 * @example parseAddresses('"Doe, Jane" <jane@Example.ORG>') // [{ name: "Doe, Jane", …, local: "jane", domain: "example.org" }]
 */
export function parseAddresses(value: string | readonly string[]): HeaderAddress[] {
  const found: HeaderAddress[] = [];
  let room = MAX_LENGTH;
  for (const each of typeof value === "string" ? [value] : value) {
    for (const { address, name } of parser()(unfold(each.slice(0, room)), { flatten: true })) {
      if (found.length === MAX_ADDRESSES) return found;
      if (address === "") continue;
      found.push({ name: decodeWords(name), address, ...partsOf(address) });
    }
    room -= Math.min(room, each.length);
  }
  return found;
}
