/** attachments: messages in files that cannot be looked into, by their first bytes. The samples are by OpenSSL and GnuPG. */
import { expect, spyOn, test } from "bun:test";
import attachments from "../../handlers/attachments.ts";
import { typeOf, typeOfWhole } from "../../handlers/lib/archives/kinds.ts";
import { hasPgpMessage } from "../../handlers/lib/archives/sealed.ts";
import { runFilter } from "../../src/testing/index.ts";
import { zip } from "../support/archives.ts";
import { message, withFile } from "./evasions/evasion.ts";

const CMS = "application/pkcs7-mime";
const PGP = "application/pgp-encrypted";

/** Beginnings of files in base64, most of them cut. */
const SAMPLES: readonly (readonly [what: string, type: string, base64: string])[] = [
  [
    "signed content",
    CMS,
    "MIIFjwYJKoZIhvcNAQcCoIIFgDCCBXwCAQExDTALBglghkgBZQMEAgEwLwYJKoZIhvcNAQcBoCIEIENvbnRlbnQtVHlwZTogdGV4dC9wbGFpbg0KDQpoaQ0K",
  ],
  [
    "signed content without lengths",
    CMS,
    "MIAGCSqGSIb3DQEHAqCAMIACAQExDTALBglghkgBZQMEAgEwgAYJKoZIhvcNAQcBoIAkgAQgQ29udGVudC1UeXBlOiB0ZXh0L3BsYWluDQoNCmhpDQoAAAAA",
  ],
  ["enveloped content", CMS, "MIIBuAYJKoZIhvcNAQcDoIIBqTCCAaUCAQAxggFAMIIBPAIBADAkMAwxCjAIBgNVBAMMAWECFHgrDrlh"],
  [
    "enveloped content without lengths",
    CMS,
    "MIAGCSqGSIb3DQEHA6CAMIACAQAxggFAMIIBPAIBADAkMAwxCjAIBgNVBAMMAWECFHgrDrlhFYnMbF2R",
  ],
  [
    "content with a code of authentication",
    CMS,
    "MIIBvQYLKoZIhvcNAQkQARegggGsMIIBqAIBADGCAUAwggE8AgEAMCQwDDEKMAgGA1UEAwwBYQIUeCsO",
  ],
  ["encrypted content", CMS, "MHAGCSqGSIb3DQEHBqBjMGECAQAwXAYJKoZIhvcNAQcBMB0GCWCGSAFlAwQBKgQQcpPnUnNAu0zq7PCU"],
  ["content with a digest", CMS, "MGIGCSqGSIb3DQEHBaBVMFMCAQAwBwYFKw4DAhowLwYJKoZIhvcNAQcBoCIEIENvbnRlbnQtVHlwZTog"],
  [
    "a signature alone",
    "",
    "MIIFawYJKoZIhvcNAQcCoIIFXDCCBVgCAQExDTALBglghkgBZQMEAgEwCwYJKoZIhvcNAQcBoIIC/TCCAvkwggHhoAMCAQICFHgrDrlhFYnMbF2RO4pYHKSW",
  ],
  [
    "certificates",
    "",
    "MIIDKAYJKoZIhvcNAQcCoIIDGTCCAxUCAQExADALBgkqhkiG9w0BBwGgggL9MIIC+TCCAeGgAwIBAgIUeCsOuWEVicxsXZE7ilgcpJZZf6MwDQYJKoZIhvcN",
  ],
  [
    "a message for a key",
    PGP,
    "hQEMA0GFSKnXRKNiAQf/dfxlNcPduWKVrIpMiWFlf4zeo2HFYedTnnQoU/2kctJsP87owv+CsIOdBOW+8r28QGdpebxLjReddQDAyAzqNfXb/MQ9xxOTkUJUcbtOCHezXOLECaxlUEh0JwB9+8D77xWXeAHsqBspBbZOxBSEj2T4Isc+HOSgf8F8hfa9ddpfb2xBFiHgdgc1QVFCSNulCl60wFkVtwJlohLSZjqnDnKiBS259pmhfGfPLLjtPcFxHZO2tozDawxIAZVOoKokG6wVUAB1SkfRsy0aqsHFVcybsoJuaq+zgW2n2jarNn9DB9k1LBufpQKIqexpPFa3DsZwQOhSuqQBD1uCJmWc+NJdAd01QUlkPCDi30QyIWqVvKmCsQqeJT/3+UmIjqlAI/PQOj3Un5gqPhKsVvsao10O1fRVGtclcFT5dSh8Fu6muayxWuzv7V/tpz9qvVVDhv+KuJ2fLEBzUEqNv36m",
  ],
  [
    "a message with a passphrase",
    PGP,
    "jA0ECQMCzkXYXdh5oZz/0lcBNL/jkCrB/cYKSuxTV5RubtZXdV0Z0z1o5TRrPulWcleVYTbVf00KGfi/",
  ],
  ["a signed message, compressed", PGP, "owEBbwGQ/pANAwAKAcRgSEFTiUbrAawoYgJpbmsOZ11Db250ZW50LQ=="],
  ["a signed message", PGP, "kA0DAAoBxGBIQVOJRusBrChiAmluaw5nXUNvbnRlbnQtVHlwZTogdA=="],
  [
    "a signature alone, OpenPGP",
    "",
    "iQEzBAABCgAdFiEEy0oNaqW0+1+qsiJHxGBIQVOJRusFAmsOZ10ACgkQxGBIQVOJRuuxUQgAnLBL8rrK",
  ],
  ["a public key", "", "mQENBGsOZ1oBCADgNwBlGUojmJctxzI8LGNZujlgeVEe4VEkjNnwhdpVR+1cQfbEPlvHs95ey1DMcz8a"],
];

test.each(SAMPLES)("%s is %j", async (_, type, base64) => {
  expect(await typeOf(Buffer.from(base64, "base64"))).toBe(type);
});

test("CMS as text", async () => {
  const [, , base64] = SAMPLES[0]!;
  for (const label of ["PKCS7", "CMS", "PKCS #7 SIGNED DATA"]) {
    expect(await typeOf(Buffer.from(`-----BEGIN ${label}-----\n${base64}\n-----END ${label}-----\n`))).toBe(CMS);
  }
  expect(await typeOf(Buffer.from(`-----BEGIN CERTIFICATE-----\n${base64}\n`))).toBe("");
});

test("random bytes behind the first ones: never a failure", async () => {
  for (let at = 0; at < 2000; at++) {
    const [, , base64] = SAMPLES[at % SAMPLES.length]!;
    const bytes = Buffer.from(base64, "base64");
    bytes[(at * 7919) % bytes.length]! ^= 1 << (at % 8);
    expect(typeof (await typeOf(bytes.subarray(0, bytes.length - (at % 50))))).toBe("string");
  }
});

test("a message of OpenPGP in a text begins a line", () => {
  const begin = "-----BEGIN PGP MESSAGE-----";
  for (const text of [begin, `hello\n${begin}\n`, `> ${begin}\r\n${begin}`])
    expect(hasPgpMessage(Buffer.from(text))).toBe(true);
  for (const text of ["", `> ${begin}`, "-----BEGIN PGP SIGNED MESSAGE-----"]) {
    expect(hasPgpMessage(Buffer.from(text))).toBe(false);
  }
});

/** A compound file as far as its directory is concerned. */
function compound(stream: string): Buffer {
  const bytes = Buffer.alloc(100_000);
  bytes.write("d0cf11e0a1b11ae1", "hex");
  bytes.write(stream, 90_112, "utf16le");
  return bytes;
}

const OUTLOOK = compound("__properties_version1.0");

test("a message of Outlook, wherever its directory is", async () => {
  const type = await typeOf(OUTLOOK.subarray(0, 40_960));
  expect(typeOfWhole(type, OUTLOOK)).toBe("application/vnd.ms-outlook");
  expect(typeOfWhole(type, compound("WordDocument"))).toBe(type);
});

async function refusal(eml: string): Promise<string> {
  using _ = spyOn(console, "log").mockImplementation(() => {});
  const options = { allow_unlisted: false };
  const { reply } = await runFilter(attachments, {
    from: "a@example.com",
    to: ["b@example.com"],
    eml: Buffer.from(eml, "latin1"),
    options,
  });
  return reply?.lines.join(" ") ?? "";
}

const [SIGNED, ENVELOPED, KEY] = [0, 2, 9].map((index) => Buffer.from(SAMPLES[index]![2], "base64")) as [
  Buffer,
  Buffer,
  Buffer,
];

test.each([
  ["smime.p7m", "S/MIME messages", withFile("smime.p7m", ENVELOPED)],
  ["smime.p7m", "S/MIME messages", withFile("smime.p7m", SIGNED, "application/x-pkcs7-signature")],
  ["a.gpg", "PGP messages", withFile("a.gpg", KEY)],
  ["a.asc", "PGP messages", withFile("a.asc", Buffer.from("-----BEGIN PGP MESSAGE-----\n\nhQEMA0\n"))],
  ["a.msg", "messages of Outlook", withFile("a.msg", OUTLOOK)],
  ["a.zip > a.dat", "messages of Outlook", withFile("a.zip", zip([{ name: "a.dat", content: OUTLOOK }]))],
  ["a.zip > a.dat", "S/MIME messages", withFile("a.zip", zip([{ name: "a.dat", content: SIGNED }]))],
])("allow_unlisted = false refuses %s: %s", async (file, kind, eml) => {
  expect(await refusal(eml)).toBe(`Attachment "${file}" is not accepted: ${kind} are not looked into`);
});

test("allow_unlisted = false refuses a message of OpenPGP in the text, and no quoted one", async () => {
  const text = "-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA0\r\n-----END PGP MESSAGE-----\r\n";
  expect(await refusal(message("text/plain", text))).toContain("PGP messages are not looked into");
  expect(await refusal(message("text/plain", `> ${text}`))).toBe("");
});

test("allow_unlisted = false accepts signatures, certificates and other compound files", async () => {
  for (const index of [7, 8, 13, 14])
    expect(await refusal(withFile("a.dat", Buffer.from(SAMPLES[index]![2], "base64")))).toBe("");
  expect(await refusal(withFile("a.doc", compound("WordDocument")))).toBe("");
});
