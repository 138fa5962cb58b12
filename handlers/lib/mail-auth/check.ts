/** The checks of one message, each begun as soon as it can be. */
import { LEAST_BITS, nameOfRecord } from "../dkim/key-record.ts";
import type { ArcResult, ArcSet, DmarcResult, Library, ParsedField, SpfResult, Status } from "./library.ts";
import type { Questions } from "./questions.ts";
import {
  type ArcFound,
  cleanDomain,
  cleanPhrase,
  cleanWord,
  type DmarcFound,
  type Found,
  type SignatureFound,
  type SpfFound,
} from "./results.ts";
import { type MessageVerifier, type VerifierClass } from "./verifier.ts";

export const CHECKS = ["spf", "dkim", "dmarc", "arc"] as const;
export type Check = (typeof CHECKS)[number];

export interface Envelope {
  readonly ip: string;
  readonly helo: string;
  /** `local@domain`; `""` for the null sender. */
  readonly sender: string;
  /** The mail server's name. */
  readonly server: string;
}

/** What a worker has loaded. */
export interface Tools {
  readonly library: Library;
  readonly Verifier: VerifierClass;
}

export interface Settings {
  readonly checks: ReadonlySet<Check>;
  /** Whether the results of a sealer are believed. */
  isTrusted(sealer: string): boolean;
}

interface Spf {
  readonly mail: SpfResult | null;
  readonly helo: SpfResult | null;
}

interface Vouched {
  readonly sealer: string;
  readonly dmarc: readonly string[];
  readonly spf: readonly string[];
  readonly dkim: readonly string[];
}

/** A result in Authentication-Results, as `mailauth` reads it. */
interface Entry {
  readonly value?: unknown;
  readonly smtp?: Readonly<Partial<Record<string, unknown>>>;
  readonly header?: Readonly<Partial<Record<string, unknown>>>;
}

/** What is evaluated for DMARC. */
interface Passed {
  readonly spf: readonly string[];
  readonly dkim: readonly { readonly domain: string; readonly underSized?: number }[];
}

/** Domains of a sealer's results that are looked at. */
const MOST_VOUCHED = 10;
const HOST = /^[\w-]+(?:\.[\w-]+)+\.?$/;
const TEMPORARY = "temperror";
const ARC_UNFIT: ArcFound = { result: TEMPORARY, instance: 0, sealer: "", reason: "not evaluated" };
const UNFIT: Status = { result: TEMPORARY, comment: "not evaluated" };

export class MessageCheck {
  readonly #tools: Tools;
  readonly #questions: Questions;
  readonly #checks: ReadonlySet<Check>;
  readonly #isTrusted: Settings["isTrusted"];
  readonly #onError: (error: unknown) => void;
  #verifier: MessageVerifier | null = null;
  #header: Promise<void> = Promise.resolve();
  #spf: Promise<Spf> | null = null;
  #isHeaderBroken = false;
  /** What the sealers of a chain say, the newest first. */
  #vouched: readonly Vouched[] = [];

  /** @param onError told of what is thrown, which is never the message's failure */
  constructor(tools: Tools, questions: Questions, settings: Settings, onError: (error: unknown) => void) {
    this.#tools = tools;
    this.#questions = questions;
    this.#checks = settings.checks;
    this.#isTrusted = settings.isTrusted;
    this.#onError = onError;
  }

  #wants(...checks: readonly Check[]): boolean {
    return checks.some((check) => this.#checks.has(check));
  }

  /** Begins SPF. */
  envelope(envelope: Envelope): void {
    if (this.#spf === null && this.#wants("spf", "dmarc")) this.#spf = this.#spfOf(envelope);
  }

  async #spfOf({ helo, ip, sender, server }: Envelope): Promise<Spf> {
    const check = async (from: string, domain: string): Promise<SpfResult> => {
      const { resolve } = this.#questions;
      try {
        return await this.#tools.library.spf({ sender: from, ip, helo, mta: server, resolver: resolve, strict: true });
      } catch (error) {
        this.#onError(error);
        return { domain, status: UNFIT };
      }
    };
    const isHost = HOST.test(helo);
    const [mail, ofHelo] = await Promise.all([
      sender === "" ? null : check(sender, sender.slice(sender.lastIndexOf("@") + 1)),
      // An address literal has no record (RFC 7208 2.3).
      isHost ? check("", helo) : null,
    ]);
    return { mail, helo: ofHelo };
  }

  /** What SPF says, as soon as it is known; null if that takes longer. */
  async spf(timeoutMs: number): Promise<SpfFound | null> {
    const late = Promise.withResolvers<null>();
    const timer = setTimeout(() => late.resolve(null), timeoutMs);
    try {
      const spf = await Promise.race([this.#spf, late.promise]);
      return spf === null ? null : spfFound(spf.mail, spf.helo);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Reads the header, and begins to ask for keys and the policy. */
  header(fields: readonly ParsedField[]): void {
    this.#verifier = new this.#tools.Verifier(this.#questions);
    this.#header = this.#read(this.#verifier, this.#wants("dkim", "dmarc", "arc") ? fields : []);
  }

  async #read(verifier: MessageVerifier, fields: readonly ParsedField[]): Promise<void> {
    try {
      await verifier.readHeader(fields);
      const [from] = verifier.headerFrom;
      const domain = cleanDomain(from?.slice(from.lastIndexOf("@") + 1) ?? "");
      if (domain !== "" && this.#wants("dmarc")) void this.#questions.resolve(`_dmarc.${domain}`, "TXT");
    } catch (error) {
      this.#isHeaderBroken = true;
      this.#onError(error);
    }
  }

  /** @returns false if no more of the body is needed */
  async body(chunk: Uint8Array): Promise<boolean> {
    await this.#header;
    if (this.#verifier === null || !this.#verifier.needsBody) return false;
    this.#verifier.write(chunk);
    return true;
  }

  /** Waits for all answers; those that do not come in time are temporary errors. */
  async found(timeoutMs: number): Promise<Found> {
    const timer = setTimeout(() => this.#questions.end(), timeoutMs);
    try {
      return await this.#found();
    } finally {
      clearTimeout(timer);
    }
  }

  async #found(): Promise<Found> {
    await this.#header;
    const [spf, arc] = await Promise.all([this.#spf, this.#signatures()]);
    const dmarc = this.#wants("dmarc") ? await this.#dmarc(spf, arc) : null;
    const { mail = null, helo = null } = spf ?? {};
    return {
      spf: this.#wants("spf") ? spfFound(mail, helo) : null,
      helo: this.#wants("spf") && mail !== null && helo !== null ? heloFound(helo) : null,
      dkim: this.#wants("dkim") ? this.#dkim() : null,
      dmarc,
      arc: this.#wants("arc") ? arc : null,
    };
  }

  /** Verifies the signatures and the ARC chain. */
  async #signatures(): Promise<ArcFound | null> {
    const verifier = this.#verifier;
    try {
      if (!this.#isHeaderBroken) await verifier?.finalChunk();
    } catch (error) {
      this.#isHeaderBroken = true;
      this.#onError(error);
    }
    if (!this.#wants("arc")) return null;
    if (verifier === null || this.#isHeaderBroken) return ARC_UNFIT;
    const chain = verifier.arc.chain === false ? [] : verifier.arc.chain;
    try {
      // Before `mailauth` changes the results of the newest set.
      this.#vouched = chain.toReversed().map(vouchedBy);
      const options = { resolver: this.#questions.resolve, strict: true, minBitLength: LEAST_BITS };
      return this.#arc(await this.#tools.library.arc(verifier.arc, options), chain);
    } catch (error) {
      this.#onError(error);
      return ARC_UNFIT;
    }
  }

  #dkim(): SignatureFound[] {
    const verifier = this.#verifier;
    const none = { domain: "", selector: "", algorithm: "", hash: "" };
    if (verifier === null || this.#isHeaderBroken) return [{ ...none, result: TEMPORARY, reason: "not evaluated" }];
    // A message without signatures has a result without a domain.
    const results = verifier.results.filter(({ status }) => status.result !== "none");
    const found = results.map(({ algo = "", selector = "", signature = "", signingDomain = "", status }) => ({
      result: cleanWord(status.result, 20),
      domain: cleanDomain(signingDomain),
      selector: cleanWord(selector, 63),
      algorithm: cleanWord(algo, 20),
      hash: cleanWord(signature, 8),
      reason: cleanPhrase(status.comment || status.policy?.["dkim-rules"] || limited(status.underSized)),
    }));
    if (verifier.unread === 0) return found;
    const reason = `${verifier.unread} more signatures not verified`;
    return [...found, { ...none, result: "policy", reason }];
  }

  #arc({ i = 0, signature, status }: ArcResult, chain: readonly ArcSet[]): ArcFound {
    const isLost = chain.some(({ "arc-seal": seal, "arc-message-signature": message }) =>
      [seal, message].some((tagged) => {
        const { d, s } = tagged?.parsed ?? {};
        return this.#questions.hasFailed(nameOfRecord(textOf(d?.value), textOf(s?.value)), "TXT");
      }),
    );
    // For RFC 8617 a key that cannot be asked for is a failure of the chain; here it is none.
    const isTemporary = status.result === "fail" && (isLost || (signature || undefined)?.status.result === TEMPORARY);
    const result = isTemporary ? TEMPORARY : cleanWord(status.result, 20);
    const sealer = this.#vouched[0]?.sealer ?? "";
    if (result !== "pass" && !isTemporary) this.#vouched = [];
    const reason = result === "pass" ? "" : cleanPhrase(status.comment || status.policy?.["dkim-rules"] || "");
    return { result, instance: Number(i) || 0, sealer, reason };
  }

  async #dmarc(spf: Spf | null, arc: ArcFound | null): Promise<DmarcFound> {
    const verifier = this.#verifier;
    const unfit = { result: TEMPORARY, domain: "", policy: "", reason: "not evaluated", override: "" };
    if (verifier === null || this.#isHeaderBroken) return unfit;
    try {
      const { reason = "", response } = await this.#evaluate(verifier, passedOf(verifier, spf, ["pass"]));
      if (response === false) return { ...unfit, result: "permerror", reason: cleanPhrase(reason) };
      const { policy = "", status } = response;
      const found = {
        result: cleanWord(status.result, 20),
        domain: cleanDomain(status.header.from),
        policy: cleanWord(policy, 20),
        reason: "",
        override: "",
      };
      if (found.result !== "fail") return found;
      // It could pass, were the answers there.
      const open = { ...found, result: TEMPORARY, reason: "DNS failure" };
      if (await this.#passes(verifier, passedOf(verifier, spf, ["pass", TEMPORARY]))) return open;
      const override = await this.#override(verifier);
      if (override !== "" && arc?.result === TEMPORARY) return open;
      return override === "" ? found : { ...found, reason: `sealed by ${override}`, override };
    } catch (error) {
      this.#onError(error);
      return unfit;
    }
  }

  #evaluate({ fromFields, headerFrom }: MessageVerifier, { dkim, spf }: Passed): Promise<DmarcResult> {
    return this.#tools.library.evaluateDmarc({
      headerFrom,
      fromFields,
      spfDomains: spf,
      dkimDomains: dkim,
      resolver: this.#questions.resolve,
      strict: true,
    });
  }

  async #passes(verifier: MessageVerifier, passed: Passed): Promise<boolean> {
    const { response } = await this.#evaluate(verifier, passed);
    return response !== false && response.status.result !== "fail";
  }

  /** The trusted sealer that found the message good when it came there; `""` if there is none. */
  async #override(verifier: MessageVerifier): Promise<string> {
    for (const { dkim, dmarc, sealer, spf } of this.#vouched) {
      // What is sealed below is what this sealer says.
      if (!this.#isTrusted(sealer)) return "";
      if (dmarc.includes("pass")) return sealer;
      if (dmarc.length > 0) continue;
      const passed = { spf, dkim: dkim.map((domain) => ({ domain })) };
      if (await this.#passes(verifier, passed)) return sealer;
    }
    return "";
  }
}

/** The domains whose results are among these. */
function passedOf({ results }: MessageVerifier, spf: Spf | null, wanted: readonly string[]): Passed {
  const checked = spf?.mail ?? spf?.helo ?? null;
  return {
    spf: checked !== null && wanted.includes(checked.status.result) ? [checked.domain] : [],
    dkim: results.flatMap(({ signingDomain, status }) =>
      signingDomain !== undefined && wanted.includes(status.result)
        ? [{ domain: signingDomain, underSized: status.underSized ?? 0 }]
        : [],
    ),
  };
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function limited(bytes: number | undefined): string {
  return bytes === undefined || bytes === 0 ? "" : `${bytes} bytes of the body not signed`;
}

function heloFound({ domain, status }: SpfResult): SpfFound {
  return { result: cleanWord(status.result, 20), domain: cleanDomain(domain), identity: "helo" };
}

function spfFound(mail: SpfResult | null, helo: SpfResult | null): SpfFound {
  if (mail !== null) return { ...heloFound(mail), identity: "mailfrom" };
  return helo === null ? { result: "none", domain: "", identity: "helo" } : heloFound(helo);
}

/** What a sealer says that it found: the results of DMARC, and domains for which SPF or DKIM passed. */
function vouchedBy({ "arc-seal": seal, "arc-authentication-results": results }: ArcSet): Vouched {
  const said = (method: string): Entry[] => {
    const value: unknown = results?.parsed[method];
    return ((Array.isArray(value) ? value : [value]) as (Entry | undefined)[]).filter((entry) => entry !== undefined);
  };
  const resultOf = ({ value }: Entry): string => textOf(value).toLowerCase();
  const passed = (method: string, ...properties: readonly string[]): string[] =>
    said(method)
      .filter((entry) => resultOf(entry) === "pass")
      .map((entry) => properties.map((name) => textOf(entry.smtp?.[name] ?? entry.header?.[name])).find(Boolean) ?? "")
      .map((identity) => cleanDomain(identity.slice(identity.lastIndexOf("@") + 1)))
      .filter((domain) => domain !== "")
      .slice(0, MOST_VOUCHED);
  return {
    sealer: cleanDomain(textOf(seal?.parsed["d"]?.value)),
    dmarc: said("dmarc").map(resultOf),
    spf: passed("spf", "mailfrom"),
    dkim: passed("dkim", "d", "i"),
  };
}
