/** Signed, sealed and tampered mails for mail-auth, with the keys of their signers. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { dkimSign, sealMessage } from "mailauth";

export interface SignedMail {
  readonly name: string;
  readonly eml: string;
}

const PLAIN = [
  "From: Alice <alice@signed.test>",
  "To: Bob <bob@example.org>",
  "Date: Tue, 01 Dec 2026 10:00:00 +0000",
  "Message-ID: <1@signed.test>",
  "Subject:hi",
  "",
  "Hello  Bob, \t",
  "",
  "bye",
  "",
  "",
].join("\r\n");

interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

const RSA = generateKeyPairSync("rsa", { modulusLength: 2048 });
const WEAK = generateKeyPairSync("rsa", { modulusLength: 768 });
const ED25519 = generateKeyPairSync("ed25519");

const der = ({ publicKey }: KeyPair) => publicKey.export({ type: "spki", format: "der" });
const pem = ({ privateKey }: KeyPair) => privateKey.export({ type: "pkcs8", format: "pem" }).toString();
const rsaRecord = (pair: KeyPair) => `v=DKIM1; k=rsa; p=${der(pair).toString("base64")}`;

/** Texts of TXT records by name. Those of keys are longer than one string of a record. */
export const RECORDS: Readonly<Record<string, string>> = {
  "r._domainkey.signed.test": rsaRecord(RSA),
  "w._domainkey.signed.test": rsaRecord(WEAK),
  "e._domainkey.signed.test": `v=DKIM1; k=ed25519; p=${der(ED25519).subarray(-32).toString("base64")}`,
  "s._domainkey.list.test": rsaRecord(RSA),
  "_dmarc.signed.test": "v=DMARC1; p=reject",
};

interface Signing {
  readonly selector?: "r" | "w" | "e";
  readonly canonicalization?: string;
}

const PAIRS = { r: RSA, w: WEAK, e: ED25519 };

async function signed(eml: string, ...signings: readonly Signing[]): Promise<string> {
  return await signedAt(eml, {}, ...signings);
}

async function signedAt(
  eml: string,
  times: { readonly signTime?: Date; readonly expires?: Date },
  ...signings: readonly Signing[]
): Promise<string> {
  const { errors, signatures } = await dkimSign(eml, {
    // Not used beside `signatureData`; the types ask for them.
    signingDomain: "signed.test",
    selector: "r",
    privateKey: pem(RSA),
    ...times,
    signatureData: signings.map(({ canonicalization = "relaxed/relaxed", selector = "r" }) => ({
      signingDomain: "signed.test",
      selector,
      privateKey: pem(PAIRS[selector]),
      canonicalization,
    })),
  });
  if (errors.length > 0) throw errors[0]!.err;
  return signatures + eml;
}

async function sealed(eml: string, results: string, cv: "none" | "pass" = "none"): Promise<string> {
  const seal = await sealMessage(eml, {
    signingDomain: "list.test",
    selector: "s",
    privateKey: pem(RSA),
    authResults: results,
    cv,
  });
  return seal.toString() + eml;
}

const GOOD = "list.test; dmarc=pass header.from=signed.test; dkim=pass header.d=signed.test";
const footer = (eml: string) => `${eml}-- \r\nthe list\r\n`;
const HOUR_MS = 3_600_000;

/** One mail of each kind. */
export async function signedMails(): Promise<SignedMail[]> {
  const one = await signed(PLAIN, {});
  const past = { signTime: new Date(Date.now() - 2 * HOUR_MS), expires: new Date(Date.now() - HOUR_MS) };
  const mails: Readonly<Record<string, string>> = {
    unsigned: PLAIN,
    relaxed: one,
    "simple, and no space behind Subject:": await signed(PLAIN, { canonicalization: "simple/simple" }),
    "simple/relaxed": await signed(PLAIN, { canonicalization: "simple/relaxed" }),
    "relaxed/simple": await signed(PLAIN, { canonicalization: "relaxed/simple" }),
    ed25519: await signed(PLAIN, { selector: "e" }),
    "two signatures": await signed(PLAIN, {}, { selector: "e" }),
    "weak key": await signed(PLAIN, { selector: "w" }),
    expired: await signedAt(PLAIN, past, {}),
    "another body": one.replace("bye", "buy"),
    "another Subject": one.replace("Subject:hi", "Subject: ho"),
    "without a key": one.replaceAll(/\bs=r\b/g, "s=x"),
    "by a list, sealed": await sealed(footer(one), GOOD),
    "by a list, sealed and changed afterwards": footer(await sealed(footer(one), GOOD)),
    "by a list that found it bad, sealed": await sealed(footer(one), GOOD.replaceAll("pass", "fail")),
    "by two lists, sealed": await sealed(footer(await sealed(footer(one), GOOD)), "list.test; arc=pass", "pass"),
  };
  return Object.entries(mails).map(([name, eml]) => ({ name, eml }));
}
