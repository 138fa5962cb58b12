/** What a signer, a verifier and `pmilter dkim` have to agree on about a key and its DNS record. */

/** Bits of an RSA key: with fewer no verifier accepts a signature (RFC 8301 3.2). */
export const LEAST_BITS = 1024;
/** Bits that an RSA key should have (RFC 8301 3.2). */
export const GOOD_BITS = 2048;

/** The name of a key's record (RFC 6376 3.6.2.1). */
export function nameOfRecord(domain: string, selector: string): string {
  return `${selector}._domainkey.${domain}`;
}
