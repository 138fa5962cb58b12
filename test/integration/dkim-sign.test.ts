/** What dkim-sign makes, verified by others in the mail that both mail servers deliver. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { DKIMPY, MAIL_DKIM } from "../support/judges/signatures.ts";
import { makeKeys } from "../shipped/dkim-keys.ts";
import { describeWith } from "../support/available.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const KEYS = makeKeys("example.test");

function config(options = ""): string {
  return `[[filter]]\nuse = "dkim-sign"\n[filter.options]\nown_networks = ["127.0.0.0/8"]\n${options}\n${KEYS.toml}`;
}

/** Results of both keys; Mail::DKIM knows no Ed25519. */
const PASSES = { python: ["pass", "pass"], perl: ["pass", "invalid"] };

async function judged(mails: readonly Uint8Array[]) {
  const [python, perl] = await Promise.all([DKIMPY.judge(KEYS.records, mails), MAIL_DKIM.judge(KEYS.records, mails)]);
  return mails.map((_, at) => ({
    python: python[at]!.dkim.map(({ result }) => result),
    perl: perl[at]!.dkim.map(({ result }) => result),
  }));
}

describeWith([DKIMPY.tool, MAIL_DKIM.tool], "judges", () => {
  describeBehindEach("dkim-sign", (server) => {
    let site: MailSite;
    beforeAll(async () => {
      site = await server.startSite({ sign: { config: config(), files: KEYS.files } });
    });
    afterAll(async () => await site?.[Symbol.asyncDispose]());

    test("a message with both algorithms", async () => {
      const { data } = await site.deliver();
      expect(await judged([data])).toEqual([PASSES]);
    });
  });
});
