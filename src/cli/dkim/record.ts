/** The DNS record of a DKIM key (RFC 6376 3.6.1, RFC 8463 4): made of a key, and compared with one. Pure. */
import { createPublicKey, type KeyObject } from "node:crypto";
import { GOOD_BITS, nameOfRecord } from "../../../handlers/lib/dkim/key-record.ts";

/** Bytes of a string of a TXT record (RFC 1035 3.3.14). */
const MAX_STRING = 255;
/** RFC 8463 4: the key without the frame around it. */
const ED25519_BYTES = 32;

/** @param key private or public */
export function textOfRecord(key: KeyObject): string {
  return `v=DKIM1; k=${key.asymmetricKeyType}; p=${publicPart(key).toString("base64")}`;
}

function publicPart(key: KeyObject): Buffer {
  const der = spki(key);
  return key.asymmetricKeyType === "ed25519" ? der.subarray(-ED25519_BYTES) : der;
}

function spki(key: KeyObject): Buffer {
  return (key.type === "public" ? key : createPublicKey(key)).export({ type: "spki", format: "der" });
}

/** A line of a zone file: its strings are as long as the DNS allows. */
export function zoneLine(domain: string, selector: string, key: KeyObject): string {
  const strings = textOfRecord(key).match(new RegExp(`.{1,${MAX_STRING}}`, "g"))!;
  return `${nameOfRecord(domain, selector)}. IN TXT ${strings.map((text) => `"${text}"`).join(" ")}`;
}

/** What is wrong with a record: signatures fail, or may be taken for none. */
export interface Comparison {
  readonly problems: readonly string[];
  readonly warnings: readonly string[];
}

/**
 * @param records the texts of the TXT records at the key's name, at least one
 * @param key private or public
 */
export function compare(records: readonly string[], key: KeyObject): Comparison {
  const [record, ...more] = records;
  if (record === undefined || more.length > 0) {
    return wrong(`there are ${records.length} records, expected one: which of them a receiver takes is not certain`);
  }
  const tags = tagsOf(record);
  if (typeof tags === "string") return wrong(`the record has a wrong form: ${tags}`);
  const problems = problemsOf(tags, key);
  const flags = listed(tags.get("t") ?? "");
  const warnings: string[] = [];
  if (flags.includes("y"))
    warnings.push("the record says that it is a test (t=y): receivers treat the mail as unsigned");
  const bits = key.asymmetricKeyDetails?.modulusLength ?? GOOD_BITS;
  if (bits < GOOD_BITS) warnings.push(`the key has ${bits} bits, expected at least ${GOOD_BITS}`);
  return { problems, warnings };
}

function wrong(problem: string): Comparison {
  return { problems: [problem], warnings: [] };
}

/** The tags of a record, or what is wrong with its form (RFC 6376 3.2). */
function tagsOf(record: string): ReadonlyMap<string, string> | string {
  const tags = new Map<string, string>();
  const pieces = record.split(";");
  if (pieces.at(-1)!.trim() === "") pieces.pop();
  for (const piece of pieces) {
    const [, name, value] = /^\s*([A-Za-z]\w*)\s*=\s*([!-~]?[ -~\t]*?)\s*$/.exec(piece) ?? [];
    if (name === undefined || value === undefined) return `expected name=value, got ${quoted(piece)}`;
    if (tags.has(name)) return `${name}= is there twice`;
    tags.set(name, value);
  }
  const version = tags.get("v");
  if (version !== undefined && (version !== "DKIM1" || tags.keys().next().value !== "v")) {
    return `expected v=DKIM1 at its beginning, got ${quoted(record.slice(0, 40))}`;
  }
  if (!tags.has("p")) return "p=, the key, is missing";
  return tags;
}

function problemsOf(tags: ReadonlyMap<string, string>, key: KeyObject): string[] {
  const found = tags.get("p")!.replaceAll(/\s/g, "");
  const type = key.asymmetricKeyType!;
  if (found === "") return ["the key is revoked (p= is empty): each signature fails"];
  const problems: string[] = [];
  const given = tags.get("k") ?? "rsa";
  if (given !== type) problems.push(`the record is for another kind of key: expected k=${type}, got k=${given}`);
  else {
    const problem = keyProblem(found, key);
    if (problem !== null) problems.push(problem);
  }
  const hashes = tags.get("h");
  if (hashes !== undefined && !listed(hashes).includes("sha256")) {
    problems.push(`the record does not allow sha256: expected no h=, got ${quoted(`h=${hashes}`)}`);
  }
  const services = tags.get("s");
  if (services !== undefined && !listed(services).some((service) => service === "*" || service === "email")) {
    problems.push(`the record is not for mail: expected no s=, got ${quoted(`s=${services}`)}`);
  }
  return problems;
}

function keyProblem(text: string, key: KeyObject): string | null {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return "p= is no base64";
  const bytes = Buffer.from(text, "base64");
  if (key.asymmetricKeyType === "ed25519") {
    if (bytes.length !== ED25519_BYTES)
      return `p= has ${bytes.length} bytes, expected the ${ED25519_BYTES} of an Ed25519 key`;
    return bytes.equals(publicPart(key)) ? null : "the record has another key";
  }
  const published = rsaKey(bytes);
  if (published === null) return "p= is no RSA key: it may have been cut";
  return spki(published).equals(spki(key)) ? null : "the record has another key";
}

/** With its frame, or without, as some write it. */
function rsaKey(der: Buffer): KeyObject | null {
  for (const type of ["spki", "pkcs1"] as const) {
    try {
      return createPublicKey({ key: der, format: "der", type });
    } catch {
      // The other form, or none.
    }
  }
  return null;
}

function listed(text: string): string[] {
  return text.split(":").map((word) => word.trim());
}

/** Text of the DNS, for a terminal. */
function quoted(text: string): string {
  return JSON.stringify(text.trim().slice(0, 80)).replaceAll(/[\u007f-\uffff]/g, "?");
}
