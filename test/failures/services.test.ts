/** The store and the DNS of a running server, when they fail: rows of docs/failures.md. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { startNameServer } from "../services/dns/server.ts";
import { describeWith } from "../support/available.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { redisTool, startRedis } from "../support/redis.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import {
  complaints,
  expectCounters,
  expectLogged,
  expectLoggedTimes,
  patternsOf,
  start,
  USE_FILTER,
} from "./support.ts";

setDefaultTimeout(120_000);

/** Counts each message; the value is in the reply. */
const COUNTS = 'async envfrom({ store }) { return tempfail("450 4.7.0 " + (await store.increment("messages"))); }';

async function sendTo(server: Pmilter): Promise<Outcome> {
  await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
  return await client.send({ eml: "Subject: a\r\n\r\nb\r\n", from: "a@example.com" });
}
const textOf = ({ reply }: Outcome): string => `${reply?.code} ${reply?.enhanced} ${reply?.lines.join()}`;
const replyOf = async (server: Pmilter): Promise<string> => textOf(await sendTo(server));

describeWith(redisTool(), "a Redis", () => {
  test("store-fails: on_error while it is away, one line in the log, and it works again by itself", async () => {
    await using redis = await startRedis();
    const config = `${USE_FILTER}on_error = "reject"\n\n[store]\nurl = "${redis.url}"\ntimeout = "2s"\n`;
    await using server = await start(COUNTS, { config });
    expect(await replyOf(server)).toBe("450 4.7.0 1");
    await redis.kill("SIGKILL");
    for (let times = 0; times < 3; times++) expect((await sendTo(server)).verdict).toBe("reject");
    const [failed, again] = patternsOf("store-fails");
    await expectLogged(server, "store-fails", { patterns: [failed!] });
    await expectCounters(server, { errors: 3, fallbacks: 3 });
    await redis.start();
    await waitFor(async () => (await replyOf(server)) === "450 4.7.0 2", { what: "the store to be back" });
    await expectLogged(server, "store-fails", { patterns: [again!] });
    expect(server.log.all.filter((line) => failed!.test(line))).toHaveLength(1);
  });
});

test("store-damaged: the file is kept under another name, and mail goes on", async () => {
  await using dir = await tempDir("state");
  const state = join(dir.path, "state");
  mkdirSync(state);
  chmodSync(state, 0o700);
  writeFileSync(join(state, "store.db"), "no database, ".repeat(1000));
  await using server = await start(COUNTS, { server: { state } });
  expect(await replyOf(server)).toBe("450 4.7.0 1");
  expect(await replyOf(server)).toBe("450 4.7.0 2");
  await expectLoggedTimes(server, "store-damaged", 1);
  expect(readdirSync(state).filter((name) => name.startsWith("store.db.damaged-"))).toHaveLength(1);
});

test("dns-silent: the filter is told in time, and others do not wait", async () => {
  await using silent = await startNameServer(() => ({ isSilent: true }));
  const ASKS = `async envfrom({ dns, message }) {
  if (message.sender.local !== "asks") return reject("550 5.7.1 nothing was asked");
  const { status } = await dns.txt(\`\${Math.random()}.example\`.slice(2));
  return tempfail("450 4.7.0 " + status);
}`;
  const config = `${USE_FILTER}
[dns]
servers = ["${silent.address}:${silent.port}"]
timeout = "300ms"
attempts = 1
`;
  await using server = await start(ASKS, { config });
  await using asking = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
  const eml = "Subject: a\r\n\r\nb\r\n";
  for (let times = 0; times < 5; times++) {
    const asked = asking.send({ eml, from: "asks@example.com" });
    expect(await replyOf(server)).toBe("550 5.7.1 nothing was asked");
    expect(textOf(await asked)).toBe("450 4.7.0 failed");
  }
  await expectLoggedTimes(server, "dns-silent", 1);
  expect(complaints(server)).toHaveLength(1);
});
