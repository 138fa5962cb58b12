/** Private keys: read from files, and chosen by the domain of a sender. */
import { createPrivateKey, type KeyObject } from "node:crypto";
import { check, expected, pipe, rawTransform, secretFile, type GenericSchema } from "pmilter/options";
import { normalDomain } from "../access-names.ts";
import { GOOD_BITS, LEAST_BITS } from "../dkim/key-record.ts";
import { line } from "../options.ts";

/** The algorithms of RFC 6376 and RFC 8463. */
export type Algorithm = "rsa-sha256" | "ed25519-sha256";

export interface PrivateKey {
  readonly key: KeyObject;
  readonly algorithm: Algorithm;
  /** Of the modulus of an RSA key; 256 for Ed25519. */
  readonly bits: number;
}

/** @returns the key in a PEM text, or what was expected instead */
export function readPrivateKey(pem: string): PrivateKey | string {
  const what = "a private key in PEM, RSA or Ed25519";
  if (/-----BEGIN PUBLIC KEY-----/.test(pem)) return `${what}; this is the public one`;
  if (/-----BEGIN ENCRYPTED |^Proc-Type: 4,ENCRYPTED/m.test(pem)) return `${what}, without a passphrase`;
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch {
    return what;
  }
  const { asymmetricKeyDetails, asymmetricKeyType } = key;
  if (asymmetricKeyType === "ed25519") return { key, algorithm: "ed25519-sha256", bits: 256 };
  if (asymmetricKeyType !== "rsa") return `${what}; this one is ${asymmetricKeyType}`;
  const bits = asymmetricKeyDetails?.modulusLength ?? 0;
  if (bits < LEAST_BITS) return `an RSA key of at least ${LEAST_BITS} bits, better ${GOOD_BITS}; this one has ${bits}`;
  return { key, algorithm: "rsa-sha256", bits };
}

/** The path of a key that others than its owner and group cannot read. */
export function keyFile(): GenericSchema<string, PrivateKey> {
  return pipe(
    secretFile(),
    rawTransform<string, PrivateKey>(({ addIssue, dataset: { value }, NEVER }) => {
      const result = readPrivateKey(value);
      if (typeof result !== "string") return result;
      // The key must not be in a message.
      addIssue({ message: `expected ${result}` });
      return NEVER;
    }),
  );
}

const LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?";
const DOMAIN = new RegExp(`^(?=.{1,253}$)${LABEL}(?:\\.${LABEL})+$`);
const SELECTOR = new RegExp(`^(?=.{1,180}$)${LABEL}(?:\\.${LABEL})*$`);

export function isDomain(text: string): boolean {
  return DOMAIN.test(normalDomain(text));
}

export function isSelector(text: string): boolean {
  return SELECTOR.test(normalDomain(text));
}

export function domain() {
  return pipe(line(), check(isDomain, expected('a domain such as "example.org"')));
}

export function selector() {
  return pipe(line(), check(isSelector, expected('a selector: letters, digits, - and ., such as "s1"')));
}

/** A key as a table of the options has it, its names as the DNS has them. */
export interface SigningKey extends PrivateKey {
  readonly domain: string;
  readonly selector: string;
  /** It also signs for the domains below its own. */
  readonly subdomains: boolean;
}

export interface KeyTable {
  readonly domain: string;
  readonly selector: string;
  readonly file: PrivateKey;
}

export function signingKey({ domain, file, selector }: KeyTable, subdomains: boolean): SigningKey {
  return { ...file, domain: normalDomain(domain), selector: normalDomain(selector), subdomains };
}

/** The domain in whose name mail of a domain is signed: itself, else the nearest above it that has keys. */
export class KeyRing {
  readonly #keys = new Map<string, SigningKey[]>();

  constructor(keys: readonly SigningKey[]) {
    for (const key of keys) this.#keys.set(key.domain, [...(this.#keys.get(key.domain) ?? []), key]);
  }

  get all(): readonly SigningKey[] {
    return [...this.#keys.values()].flat();
  }

  /** @param domain as `message.headers.addresses` has it. @returns in the order of the configuration; none if it is not ours */
  of(domain: string): readonly SigningKey[] {
    const own = this.#keys.get(domain);
    if (own !== undefined) return own;
    for (let dot = domain.indexOf("."); dot !== -1; dot = domain.indexOf(".", dot + 1)) {
      const above = this.#keys.get(domain.slice(dot + 1))?.filter(({ subdomains }) => subdomains) ?? [];
      if (above.length > 0) return above;
    }
    return [];
  }
}
