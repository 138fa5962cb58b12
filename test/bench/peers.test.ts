/**
 * The peers of the benchmark that this machine has: each is a filter that does what it is compared for. One that cannot
 * be had is skipped with its reason, in CI too: a benchmark must not need them.
 */
import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { PEERS } from "../../bench/args.ts";
import { preparePeers } from "../../bench/support/peers.ts";
import { type Exchange, trafficFor } from "../../bench/support/traffic.ts";
import { answerOf } from "../../bench/support/servers.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const folder = await tempDir("peers");
afterAll(() => folder[Symbol.asyncDispose]());
const { signal } = new AbortController();
const { peers, missing } = await preparePeers(null, false, folder.path, signal);
for (const reason of missing) console.warn(`skipped: ${reason}`);

/** Connect, helo, envfrom, envrcpt, data, 12 headers, eoh, body, eom. */
const ALL = 20;
const AWAITED: Readonly<Record<string, number>> = {
  // Both speak version 2, which has no DATA.
  "pmilter-perl": ALL - 1,
  go: ALL - 1,
};

function awaited(exchanges: readonly Exchange[]): number {
  return exchanges.filter(({ awaits }) => awaits !== "nothing").length;
}

test("each is either there or missing with a reason", () => {
  expect(peers.length + missing.length).toBe(PEERS.length);
  for (const line of missing) expect(line).toMatch(/^[a-z-]+: not measured, .+ \(Debian: [a-z0-9 -]+\)$/);
});

describe.each(peers.map((peer) => [peer.name, peer] as const))("%s", (name, peer) => {
  test("adds the header of bench/handlers, and awaits a reply to everything", async () => {
    await using server = await peer.start(signal);
    await using client = await MilterClient.connect(`unix:${server.socket}`, { as: "postfix" });
    const outcome = await client.send({
      from: "ada@example.net",
      to: ["charles@example.com"],
      eml: "Subject: engine\r\n\r\nHello\r\n",
    });
    expect(outcome.verdict).toBe("accept");
    expect(outcome.modifications).toEqual([{ kind: "addHeader", name: "X-Pmilter", value: "Enable" }]);

    const traffic = trafficFor(await answerOf(server.socket));
    expect(awaited(traffic.start) + awaited(traffic.first)).toBe(AWAITED[name] ?? ALL);
  });
});

test("without a compiler and interpreters every peer is missing, and nothing fails", async () => {
  const { PATH } = process.env;
  process.env["PATH"] = folder.path;
  try {
    const none = await preparePeers(["libmilter", "bare-c", "go"], false, folder.path, signal);
    expect(none.peers).toEqual([]);
    expect(none.missing).toEqual([
      "libmilter: not measured, cc is not installed (Debian: gcc libmilter-dev)",
      "bare-c: not measured, cc is not installed (Debian: gcc libc6-dev)",
      "go: not measured, go is not installed (Debian: golang-go golang-github-emersion-go-milter-dev)",
    ]);
  } finally {
    process.env["PATH"] = PATH;
  }
});

test("--quick leaves out what may take long to build, unless it is named", async () => {
  const { missing } = await preparePeers(null, true, folder.path, signal);
  expect(missing.join("\n")).toContain("go: left out of --quick");
});
