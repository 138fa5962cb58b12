/** The verifier of `mailauth` for headers and bodies that anybody may send: fed with fields and chunks, and bounded. */
import type { Header } from "pmilter";
import { CanonicalBody, type Form } from "../dkim/canonical-body.ts";
import { LEAST_BITS, nameOfRecord } from "../dkim/key-record.ts";
import { hasLongRun, type Library, type ParsedField, type SignatureHeader, type Verifier } from "./library.ts";
import type { Questions } from "./questions.ts";

/** Signatures of one message that are verified, the first ones. */
export const MOST_SIGNATURES = 10;
/** Fields that one signature may name; others have the work of the square of their length. */
const MOST_SIGNED = 200;

const ARC_NAMES = new Set(["arc-seal", "arc-message-signature", "arc-authentication-results"]);

/** The fields as they came. */
export function parsedFields(headers: Iterable<Pick<Header, "bytes" | "name">>): ParsedField[] {
  const fields: ParsedField[] = [];
  for (const header of headers) {
    const casedKey = header.name.replace(/[ \t]+$/, "");
    const value = Buffer.from(header.bytes).toString("latin1").replaceAll(/\r?\n/g, "\r\n");
    const line = Buffer.from(`${Buffer.from(header.name).toString("latin1")}:${value}`, "latin1");
    fields.push({ key: lowerCase(casedKey), casedKey, line });
  }
  return fields;
}

function lowerCase(name: string): string {
  return name.replaceAll(/[A-Z]+/g, (letters) => letters.toLowerCase());
}

function isReadable({ line }: ParsedField): boolean {
  return !hasLongRun(line.toString("latin1"));
}

export interface MessageVerifier extends Verifier {
  /** Signatures beyond those that are verified. */
  readonly unread: number;
  /** Whether a hash of the body is needed. */
  readonly needsBody: boolean;
  readHeader(fields: readonly ParsedField[]): Promise<void>;
  write(chunk: Uint8Array): void;
}

export type VerifierClass = new (questions: Questions) => MessageVerifier;

/** Once for each worker: the class of the library is loaded late. */
export function verifierOf({ DkimVerifier }: Library): VerifierClass {
  return class extends DkimVerifier implements MessageVerifier {
    readonly #bodies = { relaxed: new CanonicalBody("relaxed"), simple: new CanonicalBody("simple") };
    readonly #questions: Questions;
    unread = 0;

    constructor(questions: Questions) {
      super({ resolver: questions.resolve, strict: true, minBitLength: LEAST_BITS });
      this.#questions = questions;
    }

    get needsBody(): boolean {
      return this.bodyHashes.size > 0;
    }

    /** Reads signatures and ARC, and begins to ask for the keys. */
    async readHeader(fields: readonly ParsedField[]): Promise<void> {
      const signatures = fields.filter(({ key }) => key === "dkim-signature");
      const verified = new Set(signatures.filter(isReadable).slice(0, MOST_SIGNATURES));
      this.unread = signatures.length - verified.size;
      await this.messageHeaders({
        parsed: fields.filter(
          (field) => verified.has(field) || field.key === "from" || (ARC_NAMES.has(field.key) && isReadable(field)),
        ),
      });
      // What is signed is looked for in all.
      this.headers = { parsed: fields };
      for (const { invalid, selector = "", signingDomain = "", skip } of this.signatureHeaders) {
        if (skip === undefined && invalid === undefined) this.#askKey(selector, signingDomain);
      }
      for (const { "arc-seal": seal } of this.arc.chain === false ? [] : this.arc.chain) {
        const { d, s } = seal?.parsed ?? {};
        if (typeof s?.value === "string" && typeof d?.value === "string") this.#askKey(s.value, d.value);
      }
    }

    #askKey(selector: string, domain: string): void {
      void this.#questions.resolve(nameOfRecord(domain, selector), "TXT");
    }

    override prepareSignature(signature: SignatureHeader): void {
      super.prepareSignature(signature);
      const signed = signature.parsed["h"]?.value;
      if (typeof signed === "string" && signed.split(":").length > MOST_SIGNED) {
        signature.invalid = "too many fields signed";
      }
    }

    override addBodyHash(form: string, algorithm: string, limit: number | ""): string {
      const key = `${form}:${algorithm}:${limit}`;
      if (!this.bodyHashes.has(key)) this.bodyHashes.set(key, this.#bodies[form as Form].hash(algorithm, limit));
      return key;
    }

    write(chunk: Uint8Array): void {
      const forms = new Set(Array.from(this.bodyHashes.keys(), (key) => key.split(":")[0] as Form));
      for (const form of forms) this.#bodies[form].write(chunk);
    }
  };
}
