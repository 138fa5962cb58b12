// Signs mail of one's own domains (DKIM): docs/handlers/dkim-sign.md.
import { defineFilter, type Header, type Session } from "pmilter";
import { array, boolean, check, expected, type InferOutput, picklist, pipe, table } from "pmilter/options";
import { bodyHash, CANONICALIZATIONS, type Form, formsOf } from "./lib/dkim-sign/canonical.ts";
import { headerFields, type HeaderFields } from "./lib/dkim-sign/fields.ts";
import { domain, keyFile, KeyRing, selector, type SigningKey, signingKey } from "./lib/dkim-sign/keys.ts";
import { signatureField, signedFields } from "./lib/dkim-sign/sign.ts";
import { made, option, required } from "./lib/options.ts";
import { isOwn, OWN_NETWORKS } from "./lib/origin.ts";

const key = made(
  table({
    domain: required(domain(), "the domain of From that the key signs for"),
    selector: required(selector(), "the key's name: the record is `SELECTOR._domainkey.DOMAIN`"),
    file: required(keyFile(), "the private key, RSA or Ed25519, in PEM; relative to the configuration"),
    subdomains: option(boolean(), true, "it also signs for domains below its own that have no key themselves"),
  }),
  (given) => signingKey(given, given.subdomains),
);

const entries = {
  keys: required(
    pipe(
      array(key),
      check((keys) => keys.length > 0, expected("at least one key")),
    ),
    "the keys; a message is signed with each key of its domain",
  ),
  own_networks: OWN_NETWORKS,
  canonicalization: option(
    picklist(CANONICALIZATIONS),
    "relaxed/relaxed",
    "of header and body: `simple` allows no change on the way, `relaxed` other white space",
  ),
};

export const options = made(table(entries), ({ keys, ...rest }) => ({ ...rest, keys: new KeyRing(keys) }));

type Options = InferOutput<typeof options>;
type AtEnd = Session<"eom", unknown, Options, unknown, unknown, "skip">;

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

function signatureOf(key: SigningKey, header: HeaderFields, hash: string, options: Options, now: number): string {
  const { absent, fields, isSigned } = header;
  const { canonicalization } = options;
  const form: Form = formsOf(canonicalization).header;
  const { canonical, names } = signedFields(fields, form, isSigned, absent);
  const tags = [
    ["v", "1"],
    ["a", key.algorithm],
    ["c", canonicalization],
    ["d", key.domain],
    ["s", key.selector],
    ["t", String(now)],
    ["h", names.join(":")],
    ["bh", hash],
  ] as const;
  return signatureField("DKIM-Signature", tags, canonical, form, key);
}

function sign({ log, message, options }: AtEnd): void {
  const { headers } = message;
  const from = fromOf(headers);
  if (typeof from === "string") {
    log.warn(`not signed: ${from}`);
    return;
  }
  const keys = keysFor(
    headers.addresses("From").map(({ domain }) => domain),
    options.keys,
  );
  if (keys.length === 0) return;
  const body = message.body();
  if (body === null) {
    log.warn("not signed: its body is larger than limits.body");
    return;
  }
  const header = headerFields(headers, (field) => field);
  const why = header.leftOut.get("from");
  if (why !== undefined) {
    log.warn(`not signed: From cannot be: ${why}`);
    return;
  }
  const hash = bodyHash(body, formsOf(options.canonicalization).body);
  const now = Math.floor(message.receivedAt.getTime() / 1000);
  const signatures = keys.map((key) => signatureOf(key, header, hash, options, now));
  for (const value of signatures.toReversed()) message.insertHeader(0, "DKIM-Signature", value);
}

export default defineFilter({
  name: "dkim-sign",
  options,
  collectBody: { over: "skip" },

  eom(session) {
    if (isOwn(session, session.options.own_networks)) sign(session);
  },
});
