// Signs mail of one's own domains (DKIM), and seals other mail (ARC): docs/handlers/dkim-sign.md.
import { isAscii } from "node:buffer";
import { defineFilter, type Header, type Session } from "pmilter";
import { isKeptByPostfix, isKeptBySendmail, writtenBySendmail } from "./lib/dkim-sign/addresses.ts";
import type { Form } from "./lib/dkim/canonical-body.ts";
import { GOOD_BITS, nameOfRecord } from "./lib/dkim/key-record.ts";
import { bodyHash, type Field, formsOf } from "./lib/dkim-sign/canonical.ts";
import { headerFields } from "./lib/dkim-sign/fields.ts";
import { type KeyRing, type SigningKey } from "./lib/dkim-sign/keys.ts";
import { encodeParts, isCarried, missingEnd } from "./lib/dkim-sign/lines.ts";
import { type Options, options } from "./lib/dkim-sign/options.ts";
import { arcSet, chainOf } from "./lib/dkim-sign/seal.ts";
import { signatureField, signedFields, type Tags } from "./lib/dkim-sign/sign.ts";
import { isOwn } from "./lib/origin.ts";

export { options };

/** What a worker has said once. */
type Told = Set<string>;
type AtEnd = Session<"eom", unknown, Options, Told, unknown, "skip">;

/** The single From, or why a message has none. */
function fromOf(headers: Iterable<Header>): Header | string {
  const named = Array.from(headers).filter(({ name }) => name.trim().toLowerCase() === "from");
  const [from] = named;
  if (from === undefined) return "it has no From";
  return named.length === 1 && from.name.toLowerCase() === "from" ? from : "it has more than one From";
}

/** The keys of the domains in From; of several domains of ours those of each. */
function keysFor(domains: readonly string[], ring: KeyRing): readonly SigningKey[] {
  return [...new Set(domains.flatMap((domain) => ring.of(domain)))];
}

/** Sendmail says its version, Postfix its name and version. */
function isSendmail({ macros }: AtEnd): boolean {
  return /^\d/.test(macros.get("v") ?? "");
}

/** A field with addresses as the mail server at hand writes it. */
function writerOf(session: AtEnd, form: Form): (field: Field) => Field | null {
  if (!isSendmail(session)) {
    return (field) => (field.name.toLowerCase() === "from" || isKeptByPostfix(field.raw) ? field : null);
  }
  if (form === "simple") return (field) => (isKeptBySendmail(field.name, field.raw) ? field : null);
  return ({ name, raw }) => {
    const written = writtenBySendmail(raw);
    return written === null ? null : { name, raw: ` ${written}` };
  };
}

/** Changes what a mail server would change behind the signature. @returns null for a body that is too large */
async function carriedBody(session: AtEnd, signal: AbortSignal): Promise<Uint8Array | null> {
  const { message, options } = session;
  const body = await encodedBody(session, signal);
  if (body === null || options.long_lines === "sign" || !isSendmail(session)) return body;
  const end = missingEnd(body, message.headers.get("Content-Type") ?? "");
  if (end === "") return body;
  message.replaceBody(Buffer.concat([body, Buffer.from(`\r\n${end}`, "latin1")]));
  return message.body();
}

async function encodedBody({ log, message, options }: AtEnd, signal: AbortSignal): Promise<Uint8Array | null> {
  const { eight_bit, long_lines } = options;
  const body = message.body();
  if (body === null) return null;
  const isFit = async (bytes: Uint8Array): Promise<boolean> =>
    (long_lines === "sign" || (await isCarried(bytes, signal))) && (eight_bit === "sign" || isAscii(bytes));
  if (await isFit(body)) return body;
  const mime = message.mime();
  if (mime !== null) await encodeParts(mime, isFit);
  const encoded = message.body();
  if (encoded !== null && !(await isFit(encoded)))
    log.warn("a part cannot be encoded: a mail server may break the signature");
  return encoded;
}

function tellOfShort({ log, own }: AtEnd, { bits, domain, key, selector }: SigningKey): void {
  const name = nameOfRecord(domain, selector);
  if (key.asymmetricKeyType !== "rsa" || bits >= GOOD_BITS || own.has(name)) return;
  own.add(name);
  log.warn(`the key ${name} is short`, { bits, expected: GOOD_BITS });
}

async function sign(session: AtEnd): Promise<void> {
  const { log, message, options, signal } = session;
  const { canonicalization, expire, keys: ring } = options;
  const from = fromOf(message.headers);
  if (typeof from === "string") {
    log.warn(`not signed: ${from}`);
    return;
  }
  const keys = keysFor(
    message.headers.addresses("From").map(({ domain }) => domain),
    ring,
  );
  if (keys.length === 0) return;
  const body = await carriedBody(session, signal);
  if (body === null) {
    log.warn("not signed: its body is larger than limits.body");
    return;
  }
  const wanted = formsOf(canonicalization);
  let form = wanted.header;
  let header = headerFields(message.headers, writerOf(session, form));
  if (form === "simple" && header.leftOut.has("from")) {
    // Sendmail writes it anew.
    form = "relaxed";
    header = headerFields(message.headers, writerOf(session, form));
  }
  const why = header.leftOut.get("from");
  if (why !== undefined) {
    log.warn(`not signed: From: ${why}`);
    return;
  }
  if (header.leftOut.size > 0) log.debug("fields are not signed", { left_out: Object.fromEntries(header.leftOut) });
  const now = secondsOf(message.receivedAt);
  const { absent, fields, isSigned } = header;
  const { canonical, names } = signedFields(fields, form, isSigned, absent);
  const hash = await bodyHash(body, wanted.body, signal);
  const signatures = keys.map((key) => {
    tellOfShort(session, key);
    const tags: Tags = [
      ["v", "1"],
      ["a", key.algorithm],
      ["c", `${form}/${wanted.body}`],
      ["d", key.domain],
      ["s", key.selector],
      ["t", String(now)],
      ...(expire === undefined ? [] : ([["x", String(now + Math.ceil(expire / 1000))]] as const)),
      ["h", names.join(":")],
      ["bh", hash],
    ];
    return signatureField("DKIM-Signature", tags, canonical, form, key);
  });
  for (const value of signatures.toReversed()) message.insertHeader(0, "DKIM-Signature", value);
  message.results.set("dkim-sign", {
    signed: keys.map(({ algorithm, domain, selector }) => ({ domain, selector, algorithm })),
    not_signed: [...header.leftOut.keys()],
  });
}

function secondsOf(date: Date): number {
  return Math.floor(date.getTime() / 1000);
}

/** What mail-auth found of the message as it came; null if it did not judge it. */
function resultsOf({ message }: AtEnd): { readonly arc: unknown; readonly text: string } | null {
  const arc = message.results.get("arc");
  // Of what mail-auth writes, the first one is its own: it has taken out those that claim to be.
  const text = message.headers.get("Authentication-Results");
  if (typeof arc !== "object" || arc === null || text === undefined) return null;
  return { arc: (arc as { readonly result?: unknown }).result, text };
}

async function seal(session: AtEnd, key: SigningKey): Promise<void> {
  const { log, message, own, signal } = session;
  const results = resultsOf(session);
  if (results === null) {
    if (!own.has("results")) log.warn("not sealed: there are no results of mail-auth; put it before dkim-sign");
    own.add("results");
    return;
  }
  if (results.arc !== "none" && results.arc !== "pass") {
    log.debug("not sealed: its chain does not pass", { arc: results.arc });
    return;
  }
  const body = await carriedBody(session, signal);
  const header = headerFields(message.headers, writerOf(session, "relaxed"), "dkim-signature");
  const chain = chainOf(header.fields);
  const why = header.leftOut.get("from") ?? (typeof fromOf(message.headers) === "string" ? "there is not one" : null);
  const isOther = chain === null || (results.arc === "none") !== (chain.length === 0);
  if (body === null || isOther || why !== null) {
    const reason =
      body === null ? "its body is larger than limits.body" : isOther ? "its chain is broken" : `From: ${why}`;
    log.warn(`not sealed: ${reason}`);
    return;
  }
  tellOfShort(session, key);
  const set = arcSet({
    key,
    chain,
    results: results.text,
    signed: signedFields(header.fields, "relaxed", header.isSigned, []),
    bodyHash: await bodyHash(body, "relaxed", signal),
    now: secondsOf(message.receivedAt),
  });
  if (set === null) log.warn("not sealed: its chain is full");
  for (const [name, value] of set ?? []) message.insertHeader(0, name, value);
}

export default defineFilter({
  name: "dkim-sign",
  options,
  collectBody: { over: "skip" },
  start: (): Told => new Set(),

  async eom(session) {
    const { options } = session;
    if (isOwn(session, options.own_networks)) await sign(session);
    else if (options.seal !== undefined) await seal(session, options.seal);
  },
});
