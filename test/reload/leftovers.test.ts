/** A generation that ends leaves nothing behind: no thread, no descriptor, no memory, no timer of its handlers. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { CONNECT, HELO, MAIL, OPTNEG, QUIT, RawClient } from "../server/wire.ts";
import { runPmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import {
  askReload,
  askStatus,
  describeFootprints,
  expectSameFootprint,
  footprint,
  logged,
  newVersion,
  save,
  startVersioned,
  untilVersion,
  versioned,
  versionOf,
} from "./support.ts";

setDefaultTimeout(120_000);

const RELOADS = 40;

/** More text than a handler has, and something that runs on. */
function heavy(version: string): string {
  return `${versioned(version)}
const table = Array.from({ length: 10_000 }, (_, index) => ({ index, text: "entry " + index }));
setInterval(() => table[0], 5);
new (await import("node:events")).EventEmitter().on("x", () => table);
`;
}

test.skipIf(!IS_LINUX)(
  `${RELOADS} reloads, some of them failing, with a session each: threads, descriptors and memory as before`,
  async () => {
    await using server = await startVersioned({
      server: { workers: 2 },
      files: { "filter.ts": heavy("v0") },
    });
    const round = async (index: number) => {
      using client = await RawClient.connect(server.addresses[0]!);
      await client.ask(OPTNEG, CONNECT, HELO, MAIL);
      const isBroken = index % 5 === 0;
      await save(
        server,
        "filter.ts",
        isBroken ? `${heavy(`v${index}`)}throw new Error("${index}");` : heavy(`v${index}`),
      );
      expect(await askReload(server)).toMatchObject({ ok: !isBroken });
      await versionOf(client);
      await client.send(QUIT);
      await client.ended();
    };
    for (let index = 1; index <= 20; index++) await round(index);
    const before = await footprint(server);
    for (let index = 101; index <= 100 + RELOADS; index++) await round(index);
    const after = await footprint(server);
    console.log(`${RELOADS} reloads: ${describeFootprints(before, after)}`);
    // One generation that stayed costs more than 3 MiB; what is left here is the allocator's.
    expectSameFootprint(before, after, 40);
  },
  300_000,
);

describe("the end of a generation", () => {
  test("its timers are over, and stop() was awaited once in each worker", async () => {
    const ticking = (version: string) =>
      versioned(version).replace(
        "unknown:",
        `stop: async () => { await Bun.sleep(10); console.log("${version} stop"); }, unknown:`,
      ) + `setInterval(() => console.log("${version} tick"), 20);\n`;
    await using server = await startVersioned({
      server: { workers: 2, log_level: "info" },
      files: { "filter.ts": ticking("v1") },
    });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, HELO);
    await save(server, "filter.ts", ticking("v2"));
    await untilVersion(server, "v2");
    // As long as a session runs on it, its timers do, too.
    const from = server.prints.all.length;
    await server.prints.next(/v1 tick/, { from });
    // The worker without a session has nothing to wait for.
    expect(server.prints.all.filter((line) => line === "v1 stop").length).toBeLessThan(2);
    await client.send(QUIT);
    await logged(server, /generation 1 has ended/);
    const ended = server.prints.all.length;
    for (let tick = 0, at = ended; tick < 5; tick++) {
      await server.prints.next(/v2 tick/, { from: at });
      at = server.prints.all.length;
    }
    expect(server.prints.all.slice(ended + 2)).not.toContain("v1 tick");
    expect(server.prints.all.filter((line) => line === "v1 stop")).toHaveLength(2);
  });

  test("a stop() that fails is logged, and ends it all the same", async () => {
    await using server = await startVersioned({
      server: { log_level: "info" },
      files: { "filter.ts": versioned("v1").replace("unknown:", 'stop() { throw new Error("untidy"); }, unknown:') },
    });
    await save(server, "filter.ts", versioned("v2"));
    await logged(server, /\[error\]: .*failed at stop.*untidy/);
    await logged(server, /generation 1 has ended/);
  });
});

describe("pmilter status", () => {
  test("shows the generations, their workers' connections and the last reload", async () => {
    await using server = await startVersioned({ server: { workers: 2 } });
    const clients: RawClient[] = [];
    for (let count = 0; count < 3; count++) {
      const client = await RawClient.connect(server.addresses[0]!);
      await client.ask(OPTNEG);
      clients.push(client);
    }
    await save(server, "filter.ts", versioned("v2"));
    await untilVersion(server, "v2");
    await waitFor(async () => (await askStatus(server)).connections === 3, { what: "the end of the probes" });
    const { stdout, exitCode } = await runPmilter(["status", "-c", server.configFile]);
    expect(exitCode).toBe(0);
    expect(stdout).toMatch(/^connections +3$/m);
    expect(stdout).toMatch(/^generation +2 \(code [0-9a-f]{12}\), connections by worker: 0 0$/m);
    expect(stdout).toMatch(/^ending +1 \(code [0-9a-f]{12}\), connections by worker: (?:2 1|1 2)$/m);
    expect(stdout).toMatch(/^last reload +took at .*: generation 2 serves: filter$/m);
    const json = await runPmilter(["status", "-c", server.configFile, "--json"]);
    expect(JSON.parse(json.stdout)).toMatchObject({
      connections: 3,
      generation: { number: 2, workers: [0, 0] },
      ending: [{ number: 1 }],
      filters: [{ name: "filter", phases: ["eom", "unknown"], observed: false }],
      reload: { ok: true, message: "generation 2 serves: filter" },
    });
    for (const client of clients) {
      await client.send(QUIT);
      await client.ended();
    }
    await waitFor(async () => (await askStatus(server)).ending.length === 0, { what: "the end of the old generation" });
    expect((await runPmilter(["status", "-c", server.configFile])).stdout).not.toContain("ending");
  });

  test("and after a reload that failed", async () => {
    await using server = await startVersioned();
    await save(server, "filter.ts", "syntax error");
    await logged(server, /keeps serving/);
    const { stdout } = await runPmilter(["status", "-c", server.configFile]);
    expect(stdout).toMatch(/^generation +1 \(code [0-9a-f]{12}\), /m);
    expect(stdout).toMatch(/^last reload +failed at .*: generation 1 keeps serving: .*filter\.ts:1:\d+: /m);
    expect(await newVersion(server)).toBe("v1");
  });
});
