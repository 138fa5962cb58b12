/** What is found about a message, in words that may stand in headers, replies and logs whoever they come from. */
import { domainToASCII } from "node:url";

export interface SpfFound {
  readonly result: string;
  readonly domain: string;
  /** Of MAIL, or of HELO where the sender is null. */
  readonly identity: "mailfrom" | "helo";
}

export interface SignatureFound {
  readonly result: string;
  readonly domain: string;
  readonly selector: string;
  readonly algorithm: string;
  /** The beginning of the signature, which tells two of a domain apart. */
  readonly hash: string;
  readonly reason: string;
}

export interface DmarcFound {
  readonly result: string;
  readonly domain: string;
  /** What the domain asks for: `none`, `quarantine`, `reject`; `""` if that is not known. */
  readonly policy: string;
  readonly reason: string;
  /** The trusted sealer for whose sake a failure is none; `""` without one. */
  readonly override: string;
}

export interface ArcFound {
  readonly result: string;
  /** Of the newest set; 0 without one. */
  readonly instance: number;
  /** Domain of the newest seal. */
  readonly sealer: string;
  readonly reason: string;
}

/** Null: not checked. */
export interface Found {
  readonly spf: SpfFound | null;
  readonly helo: SpfFound | null;
  readonly dkim: readonly SignatureFound[] | null;
  readonly dmarc: DmarcFound | null;
  readonly arc: ArcFound | null;
}

/** A domain in A-labels and lower case; `""` for text that is none. */
export function cleanDomain(text: string): string {
  const name = (/[^\0-\x7f]/.test(text) ? domainToASCII(text) : text).toLowerCase().replace(/\.$/, ""); // oxlint-disable-line no-control-regex
  return /^[\w-]+(?:\.[\w-]+)*$/.test(name) && name.length <= 253 ? name : "";
}

/** A word without anything that means something in a header. */
export function cleanWord(text: string, most: number): string {
  return text.replaceAll(/[^A-Za-z0-9._+/=-]+/g, "").slice(0, most);
}

/** A phrase for a comment. */
export function cleanPhrase(text: string): string {
  return text
    .replaceAll(/[^A-Za-z0-9._+/=:-]+/g, " ")
    .slice(0, 100)
    .trim();
}

const DOT_ATOM = /^[\w!#$%&'*+^`{|}~.-]+$/;

/** A value of RFC 8601 2.2: a token, or a quoted string. */
export function valueOf(text: string): string {
  return DOT_ATOM.test(text) ? text : `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}

interface Part {
  readonly method: string;
  readonly result: string;
  readonly comment?: string;
  readonly properties: readonly (readonly [name: string, value: string])[];
}

function partText({ comment = "", method, properties, result }: Part): string {
  const given = properties.filter(([, value]) => value !== "").map(([name, value]) => ` ${name}=${valueOf(value)}`);
  return `${method}=${result}${comment === "" ? "" : ` (${comment})`}${given.join("")}`;
}

/** The value of Authentication-Results. */
export function headerValue(id: string, found: Found, client: string): string {
  const { arc, dkim, dmarc, helo, spf } = found;
  const parts: Part[] = [];
  for (const part of [spf, helo]) {
    if (part === null) continue;
    parts.push({ method: "spf", result: part.result, properties: [[`smtp.${part.identity}`, part.domain]] });
  }
  if (dkim?.length === 0) parts.push({ method: "dkim", result: "none", properties: [] });
  for (const { algorithm, domain, hash, reason, result, selector } of dkim ?? []) {
    const properties = [
      ["header.d", domain],
      ["header.s", selector],
      ["header.a", algorithm],
      ["header.b", hash],
    ] as const;
    parts.push({ method: "dkim", result, comment: reason, properties });
  }
  if (dmarc !== null) {
    const { domain, policy, reason, result } = dmarc;
    const properties = [
      ["policy.dmarc", policy],
      ["header.from", domain],
    ] as const;
    parts.push({ method: "dmarc", result, comment: reason, properties });
  }
  if (arc !== null) {
    const { instance, reason, result, sealer } = arc;
    const said = [instance > 0 ? `i=${instance}` : "", sealer, reason].filter((text) => text !== "");
    const comment = said.join(" ");
    parts.push({ method: "arc", result, comment, properties: [["smtp.remote-ip", client]] });
  }
  const texts = parts.length === 0 ? ["none"] : parts.map(partText);
  return [valueOf(id), ...texts].join(";\n ");
}
