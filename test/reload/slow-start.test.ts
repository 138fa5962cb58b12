/** A reload of a busy server: the new version takes over step by step, and nobody notices but by the version. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { connect, helo, mail } from "../recovery/support.ts";
import { BUSY_CONNECTIONS } from "../../src/server/policy.ts";
import { QUIT, type RawClient } from "../server/wire.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import {
  askReload,
  askStatus,
  logged,
  negotiated,
  newVersion,
  PROMISED_MS,
  reloadLines,
  save,
  startVersioned,
  versioned,
  versionOf,
} from "./support.ts";

setDefaultTimeout(60_000);

const LOOPS = 24;
const TAKES_OVER = /generation 2 is loaded, and takes over within \d+ ms/;

interface Seen {
  readonly version: string;
  /** When the session began, on the clock of `performance.now()`. */
  readonly at: number;
}

/**
 * Sessions that begin and end, one after the other in each of some loops: enough for a server to be busy after a second. Of
 * those hardly any may be open in the moment of a reload, so some more stay, as many as a busy server has.
 */
class Traffic implements AsyncDisposable {
  readonly seen: Seen[] = [];
  readonly #loops: Promise<void>[];
  readonly #held: Promise<RawClient[]>;
  #isOver = false;

  constructor(server: Pmilter) {
    this.#loops = Array.from({ length: LOOPS }, () => this.#loop(server));
    this.#held = Promise.all(Array.from({ length: BUSY_CONNECTIONS }, () => negotiated(server)));
  }

  async #loop(server: Pmilter): Promise<void> {
    while (!this.#isOver) {
      const at = performance.now();
      this.seen.push({ version: await newVersion(server), at });
    }
  }

  /** Settles once so many more sessions have ended. */
  async more(count: number): Promise<void> {
    const enough = this.seen.length + count;
    await waitFor(() => this.seen.length >= enough, { what: "sessions to end" });
  }

  /** Long enough for the server to find that it is busy, which it does not tell. */
  async keepBusy(): Promise<void> {
    await this.#held;
    await Bun.sleep(1000);
    await this.more(100);
  }

  /** The part of the sessions which began between two moments that run `version`. */
  share(version: string, from: number, to: number): number {
    const all = this.seen.filter(({ at }) => at >= from && at < to);
    return all.filter((each) => each.version === version).length / all.length;
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#loops);
    for (const client of await this.#held) client[Symbol.dispose]();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

const start = (server: Readonly<Record<string, unknown>> = {}) =>
  startVersioned({ server: { workers: 2, watch: false, log_level: "info", ...server } });

test("its share of the sessions that begin grows; once the reload is reported it has all of them", async () => {
  await using server = await start();
  await using traffic = new Traffic(server);
  await traffic.keepBusy();
  await save(server, "filter.ts", versioned("v2"));
  const asked = askReload(server);
  await logged(server, TAKES_OVER);
  const from = performance.now();
  const { generation, next, workers } = await askStatus(server);
  expect([generation.number, next?.number]).toEqual([1, 2]);
  expect(workers.map((worker) => worker.generation).toSorted()).toEqual([1, 1, 2, 2]);
  expect(reloadLines(server)).toEqual([]);
  expect(await asked).toMatchObject({ ok: true });
  const to = performance.now();
  await traffic.more(100);
  await traffic.end();
  const middle = (from + to) / 2;
  expect(traffic.share("v2", 0, from - 50)).toBe(0);
  expect(traffic.share("v2", from, middle)).toBeGreaterThan(0);
  expect(traffic.share("v2", middle, to)).toBeGreaterThan(traffic.share("v2", from, middle));
  expect(traffic.share("v1", middle, to)).toBeGreaterThan(0);
  expect(traffic.share("v2", to, Infinity)).toBe(1);
  expect((await askStatus(server)).next).toBeNull();
});

test("who reloads again soon after is not kept waiting, nor who reloads a server that is not busy", async () => {
  await using server = await start();
  expect(await askReload(server)).toMatchObject({ ok: true });
  await using traffic = new Traffic(server);
  await traffic.keepBusy();
  expect(await askReload(server)).toMatchObject({ ok: true });
  await logged(server, /reload: generation 3 serves/);
  expect(server.log.text).not.toContain("takes over");
});

test("what is saved is in force within the time that is promised, however busy the server is", async () => {
  await using server = await start({ watch: true });
  await using traffic = new Traffic(server);
  await traffic.keepBusy();
  await save(server, "filter.ts", versioned("v2"));
  const written = performance.now();
  await logged(server, TAKES_OVER);
  await logged(server, /reload: generation 2 serves/);
  await waitFor(() => performance.now() > written + PROMISED_MS, { what: "the time that is promised" });
  await traffic.more(100);
  await traffic.end();
  expect(traffic.share("v2", written + PROMISED_MS, Infinity)).toBe(1);
});

test("a file that is saved meanwhile does not wait for it", async () => {
  await using server = await start({ watch: true });
  await using traffic = new Traffic(server);
  await traffic.keepBusy();
  const asked = askReload(server);
  await logged(server, TAKES_OVER);
  await save(server, "filter.ts", versioned("v2"));
  await logged(server, /reload: generation 3 serves/);
  expect(await asked).toMatchObject({ ok: true, message: expect.stringContaining("generation 2 serves") });
  await traffic.end();
  expect(await newVersion(server)).toBe("v2");
});

test("a worker of it that is lost meanwhile: its sessions go on", async () => {
  await using server = await start({ block_timeout: 0.5 });
  await using traffic = new Traffic(server);
  await traffic.keepBusy();
  const loops = 'envfrom(_, sender) { if (sender.includes("loop")) for (;;) {} },';
  await save(server, "filter.ts", versioned("v2").replace("unknown:", `${loops}\n  unknown:`));
  const asked = askReload(server);
  await logged(server, TAKES_OVER);
  using client = await newSession(server, "v2");
  expect(await client.ask(connect(), helo())).toBe("cc");
  expect(await client.ask(mail("<loop@example.com>"))).toBe("t");
  expect(await asked).toMatchObject({ ok: true });
  expect(await client.ask(mail())).toBe("c");
  expect(await versionOf(client)).toBe("v2");
});

/** One that runs this version: some do. */
async function newSession(server: Pmilter, version: string): Promise<RawClient> {
  for (;;) {
    const client = await negotiated(server);
    if ((await versionOf(client)) === version) return client;
    await client.send(QUIT);
    await client.ended();
  }
}

test("a stop does not wait for it", async () => {
  await using server = await start();
  await using traffic = new Traffic(server);
  await traffic.keepBusy();
  const asked = askReload(server).catch(() => null);
  await logged(server, TAKES_OVER);
  await traffic.end();
  expect(await server.stop()).toBe(0);
  await asked;
  expect(server.log.text).not.toContain("cut");
});
