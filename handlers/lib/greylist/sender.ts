/** The sender of a triplet: addresses that are made anew for each message, or for each attempt, are one sender. */
import type { Address } from "pmilter";

/** In place of what differs. */
const ANY = "#";

/**
 * The mailbox in lower case, without what changes between two attempts of one message: BATV (`prvs=TAG=`), the hash and time of
 * SRS, an extension (`+…`), the recipient within the address (VERP), and parts of the local part that have digits.
 */
export function senderKey({ domain, local }: Address, recipient: Address): string {
  const name = normalLocal(local.toLowerCase(), recipient);
  return domain === "" ? name : `${name}@${domain}`;
}

function normalLocal(local: string, recipient: Address): string {
  const plain = local.replace(/^(?:prvs|btv1|msprvs1)=+(?=[^=/]*\d)[^=/]{1,40}[=/]+(?=.)/, "");
  const srs = /^(srs[01])[=+-].*?([^=]+=[^=]+)$/.exec(plain);
  if (srs !== null) return `${srs[1]}=${ANY}=${srs[2]}`;
  const of = recipient.local.toLowerCase();
  // VERP: list-return-17-jane=example.org@lists.example
  const own = of === "" ? plain : plain.replaceAll(`${of}=${recipient.domain}`, ANY);
  const parts = own.replace(/(?!^)\+.*$/, "").split(/([-=._])/);
  // bob77@example.org is a person: a local part that has one part stays, unless it is as long as an id.
  if (parts.length === 1) return /\d/.test(own) && parts[0]!.length > 20 ? ANY : parts[0]!;
  return parts.map((part) => (/\d/.test(part) ? ANY : part)).join("");
}
