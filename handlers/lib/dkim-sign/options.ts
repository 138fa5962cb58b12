/** The options of dkim-sign.ts. */
import { array, boolean, check, duration, expected, type InferOutput, picklist, pipe, table } from "pmilter/options";
import { made, option, required, unset } from "../options.ts";
import { OWN_NETWORKS } from "../origin.ts";
import { CANONICALIZATIONS } from "./canonical.ts";
import { domain, keyFile, KeyRing, selector, signingKey } from "./keys.ts";

const FILE = "the private key, RSA or Ed25519, in PEM; relative to the configuration";

const key = made(
  table({
    domain: required(domain(), "the domain in From that the key signs for"),
    selector: required(selector(), "the key's name: its record is `SELECTOR._domainkey.DOMAIN`"),
    file: required(keyFile(), FILE),
    subdomains: option(boolean(), true, "it also signs for the domains below, if they have no key themselves"),
  }),
  (given) => signingKey(given, given.subdomains),
);

const seal = made(
  table({
    domain: required(domain(), "the domain in whose name other mail is sealed"),
    selector: required(selector(), "the key's name"),
    file: required(keyFile(), FILE),
  }),
  (given) => signingKey(given, false),
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
    "of header and body: `relaxed` allows other white space on the way, `simple` does not",
  ),
  long_lines: option(
    picklist(["encode", "sign"]),
    "encode",
    "`encode`: parts with lines of more than 990 bytes, NUL or lone CR are written in quoted-printable or base64 before they are signed; `sign`: they are signed as they are",
  ),
  eight_bit: option(
    picklist(["encode", "sign"]),
    "sign",
    "the same for parts with bytes beyond ASCII, for servers that deliver to some without 8BITMIME",
  ),
  expire: unset(duration(), "never", "how long a signature is valid, such as `14d`"),
  seal: unset(seal, "none", "adds an ARC set to mail that is not your own"),
};

export const options = made(table(entries), ({ keys, ...rest }) => ({ ...rest, keys: new KeyRing(keys) }));

export type Options = InferOutput<typeof options>;
