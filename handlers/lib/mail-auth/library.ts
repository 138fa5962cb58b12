/**
 * The parts of `mailauth` that are used, with the types of what is read of them. Loading them takes 200 ms of CPU: `start` does
 * it, in a worker that has no sessions yet. `mailauth/lib/mailauth.js` would load parts that fetch from the network as well.
 */
import type { BodyHash } from "../dkim/canonical-body.ts";

/** Rejects with the codes of `node:dns`. */
export type Resolver = (name: string, type: string) => Promise<unknown[]>;

export interface Status {
  readonly result: string;
  readonly comment?: string | false;
  readonly policy?: Readonly<Partial<Record<string, string>>>;
}

export interface SpfResult {
  readonly domain: string;
  readonly status: Status;
}

/** A header field: its name in lower case, its name, and its bytes with CRLF between lines. */
export interface ParsedField {
  readonly key: string;
  readonly casedKey: string;
  readonly line: Buffer;
}

/** A field with tags, such as DKIM-Signature. */
export interface Tagged {
  readonly parsed: Readonly<Partial<Record<string, { readonly value?: unknown }>>>;
}

export interface SignatureHeader extends Tagged {
  readonly type: "DKIM" | "ARC";
  readonly signingDomain?: string;
  readonly selector?: string;
  readonly hashAlgo?: string;
  skip?: string;
  invalid?: string;
}

export interface SignatureResult {
  readonly signingDomain?: string;
  readonly selector?: string;
  readonly algo?: string;
  readonly signature?: string;
  readonly status: Status & { readonly underSized?: number };
}

export interface ArcSet {
  readonly i: number;
  readonly "arc-seal"?: Tagged;
  readonly "arc-message-signature"?: Tagged;
  readonly "arc-authentication-results"?: Tagged;
}

export interface ArcData {
  readonly chain: readonly ArcSet[] | false;
}

export interface ArcResult {
  readonly i?: number | false;
  readonly status: Status;
  readonly signature?: SignatureResult | false;
}

export interface DmarcResult {
  readonly response:
    | false
    | {
        readonly status: Status & { readonly header: { readonly from: string } };
        readonly policy?: string;
      };
  readonly reason?: string;
}

/** The verifier of DKIM signatures; reads the header of ARC as well. */
export interface Verifier {
  headers: { readonly parsed: readonly ParsedField[] };
  readonly bodyHashes: Map<string, BodyHash>;
  readonly signatureHeaders: readonly SignatureHeader[];
  readonly headerFrom: readonly string[];
  readonly fromFields: number;
  readonly results: readonly SignatureResult[];
  readonly arc: ArcData;
  messageHeaders(headers: { readonly parsed: readonly ParsedField[] }): Promise<void>;
  prepareSignature(signature: SignatureHeader): void;
  addBodyHash(form: string, algorithm: string, limit: number | ""): string;
  finalChunk(): Promise<void>;
}

interface VerifierOptions {
  readonly resolver: Resolver;
  readonly strict: boolean;
  readonly minBitLength: number;
}

export interface Library {
  readonly spf: (options: {
    readonly sender: string;
    readonly ip: string;
    readonly helo: string;
    readonly mta: string;
    readonly resolver: Resolver;
    readonly strict: boolean;
  }) => Promise<SpfResult>;
  readonly DkimVerifier: new (options: VerifierOptions) => Verifier;
  readonly arc: (data: ArcData, options: VerifierOptions) => Promise<ArcResult>;
  readonly evaluateDmarc: (options: {
    readonly headerFrom: readonly string[];
    readonly fromFields: number;
    readonly spfDomains: readonly string[];
    readonly dkimDomains: readonly { readonly domain: string; readonly underSized?: number }[];
    readonly resolver: Resolver;
    readonly strict: boolean;
  }) => Promise<DmarcResult>;
}

/** The library reads a long run of white space with the square of its length. */
export function hasLongRun(text: string): boolean {
  return /\s{200}/.test(text);
}

export function loadLibrary(): Library {
  const { spf } = require("mailauth/lib/spf/index.js") as Pick<Library, "spf">;
  const { DkimVerifier } = require("mailauth/lib/dkim/dkim-verifier.js") as Pick<Library, "DkimVerifier">;
  const { arc } = require("mailauth/lib/arc/index.js") as Pick<Library, "arc">;
  const { evaluateDmarc } = require("mailauth/lib/dmarc/index.js") as Pick<Library, "evaluateDmarc">;
  return { spf, DkimVerifier, arc, evaluateDmarc };
}
