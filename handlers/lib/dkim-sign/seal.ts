/** An ARC set (RFC 8617): the results of a message as it came, sealed with the message as it leaves. */
import { canonicalField, type Field } from "./canonical.ts";
import type { SigningKey } from "./keys.ts";
import { signatureField, type SignedFields, type Tags } from "./sign.ts";

const NAMES = ["arc-authentication-results", "arc-message-signature", "arc-seal"] as const;
/** RFC 8617 4.2.1. */
const MAX_SETS = 50;

/** The fields of a set, in the order in which they are sealed. */
type ArcSet = readonly [Field, Field, Field];

/** @returns the sets of a message, the first one first; null for a chain that is broken in its form */
export function chainOf(fields: readonly Field[]): readonly ArcSet[] | null {
  const arc = fields.filter(({ name }) => (NAMES as readonly string[]).includes(name.toLowerCase()));
  const count = arc.length / NAMES.length;
  const sets: ArcSet[] = [];
  for (let instance = 1; instance <= Math.min(count, MAX_SETS); instance++) {
    const set = NAMES.map((name) =>
      arc.filter((field) => field.name.toLowerCase() === name && instanceOf(field) === instance),
    );
    if (set.some(({ length }) => length !== 1)) return null;
    sets.push(set.map(([field]) => field!) as unknown as ArcSet);
  }
  return sets.length === count ? sets : null;
}

/** The tag `i`, with which ARC-Authentication-Results begins. */
function instanceOf({ name, raw }: Field): number {
  const pattern =
    name.toLowerCase() === NAMES[0] ? /^\s*i\s*=\s*(\d{1,2})\s*;/ : /(?:^|;)\s*i\s*=\s*(\d{1,2})\s*(?:;|$)/;
  return Number(pattern.exec(raw)?.[1] ?? 0);
}

export interface Sealing {
  readonly key: SigningKey;
  /** The message as it came, without this set. */
  readonly chain: readonly ArcSet[];
  /** The value of Authentication-Results, lines separated by LF. */
  readonly results: string;
  readonly signed: SignedFields;
  /** Relaxed. */
  readonly bodyHash: string;
  /** Seconds. */
  readonly now: number;
}

/** Names and values of the fields of a set, the lowest first. @returns null if the chain is full */
export function arcSet({ bodyHash, chain, key, now, results, signed }: Sealing): (readonly [string, string])[] | null {
  if (chain.length >= MAX_SETS) return null;
  const instance = String(chain.length + 1);
  const { algorithm, domain, selector } = key;
  const authentication = ["ARC-Authentication-Results", `i=${instance}; ${results}`] as const;
  const tags: Tags = [
    ["i", instance],
    ["a", algorithm],
    ["c", "relaxed/relaxed"],
    ["d", domain],
    ["s", selector],
    ["t", String(now)],
    ["h", signed.names.join(":")],
    ["bh", bodyHash],
  ];
  const { canonical } = signed;
  const signature = [
    "ARC-Message-Signature",
    signatureField("ARC-Message-Signature", tags, canonical, "relaxed", key),
  ] as const;
  const sealed = [...chain.flat(), fieldFrom(authentication), fieldFrom(signature)];
  const sealTags: Tags = [
    ["i", instance],
    ["a", algorithm],
    ["t", String(now)],
    // A chain that does not pass is not sealed.
    ["cv", chain.length === 0 ? "none" : "pass"],
    ["d", domain],
    ["s", selector],
  ];
  const relaxed = sealed.map((field) => canonicalField(field, "relaxed"));
  const seal = ["ARC-Seal", signatureField("ARC-Seal", sealTags, relaxed, "relaxed", key)] as const;
  return [authentication, signature, seal];
}

function fieldFrom([name, value]: readonly [string, string]): Field {
  return { name, raw: Buffer.from(` ${value.replaceAll("\n", "\r\n")}`, "utf8").toString("latin1") };
}
