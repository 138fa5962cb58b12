/**
 * A first message, which takes ten times as long as later ones since its code is compiled: `start` checks one of its own, so
 * that no reply to a client waits for that.
 */
import type { Answer, Dns, RecordType } from "pmilter";
import { CHECKS, MessageCheck, type Tools } from "./check.ts";
import { Questions } from "./questions.ts";
import { parsedFields } from "./verifier.ts";

const EMPTY_BODY = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const TAGS = `a=ed25519-sha256; c=relaxed/relaxed; d=a.invalid; s=s; h=from; bh=${EMPTY_BODY}; b=${"A".repeat(86)}==`;
const FIELDS = [
  ["ARC-Seal", `i=1; a=ed25519-sha256; cv=none; d=a.invalid; s=s; b=${"A".repeat(86)}==`],
  ["ARC-Message-Signature", `i=1; ${TAGS}`],
  ["ARC-Authentication-Results", "i=1; a.invalid; dmarc=pass header.from=a.invalid; dkim=pass header.d=a.invalid"],
  ["DKIM-Signature", `v=1; ${TAGS}`],
  ["From", "A <a@a.invalid>"],
] as const;
const TEXTS: Readonly<Record<string, string>> = {
  "a.invalid": "v=spf1 ip4:192.0.2.1 a mx include:b.invalid -all",
  "b.invalid": "v=spf1 exists:%{i}.b.invalid ~all",
  "s._domainkey.a.invalid": `v=DKIM1; k=ed25519; p=${"A".repeat(43)}=`,
  "_dmarc.a.invalid": "v=DMARC1; p=none",
};

async function resolve(name: string, type: RecordType): Promise<Answer<"TXT">> {
  const text = TEXTS[name];
  if (text === undefined || type !== "TXT") return { status: "missing", records: [], ttl: 0 };
  return { status: "found", records: [text], ttl: 0 };
}

/** @throws what the library throws: it could check no message */
export async function warmUp(tools: Tools): Promise<void> {
  const settings = { checks: new Set(CHECKS), isTrusted: () => true };
  const questions = new Questions({ resolve } as Pick<Dns, "resolve">);
  const check = new MessageCheck(tools, questions, settings, (error) => {
    throw error;
  });
  check.envelope({ ip: "192.0.2.2", helo: "a.invalid", sender: "a@a.invalid", server: "a.invalid" });
  check.header(parsedFields(FIELDS.map(([name, value]) => ({ name, bytes: Buffer.from(` ${value}`) }))));
  await check.body(Buffer.from("\r\n"));
  await check.found(MOST_MS);
}

const MOST_MS = 5000;
