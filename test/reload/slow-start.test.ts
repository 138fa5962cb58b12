/** A reload of a busy server: the new version takes over step by step, and nobody notices but by the version. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { connect, helo, mail } from "../recovery/support.ts";
import { BUSY_CONNECTIONS, BUSY_SHARE, LOADED_MS } from "../../src/server/policy.ts";
import { cpuMs } from "../failures/support.ts";
import { IS_LINUX } from "../support/available.ts";
import { QUIT, type RawClient } from "../server/wire.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import {
  askReload,
  askStatus,
  logged,
  negotiated,
  newVersion,
  reloadLines,
  save,
  startVersioned,
  versionOf,
} from "./support.ts";

setDefaultTimeout(120_000);

const LOOPS = 24;
const TAKES_OVER = /generation \d+ is loaded, and takes over within (\d+) ms/;

/** A version whose sessions cost the server processor time: they alone make it busy. @param members of its filter, besides */
const working = (version: string, members = "") => `import { defineFilter, reject } from "pmilter";
let sum = 0;
export default defineFilter({
  ${members}
  unknown() {
    for (let count = 0; count < 1_000_000; count++) sum = (sum * 31 + count) | 0;
    return reject("550 5.7.1 ${version}");
  },
});
`;

/**
 * Sessions that begin and end, one after the other in each of some loops. Of those hardly any may be open in the moment of a
 * reload, so some more stay, as many as a busy server has.
 */
class Traffic implements AsyncDisposable {
  /** The versions of the sessions that have ended, in the order in which they began. */
  readonly #seen: string[] = [];
  readonly #server: Pmilter;
  readonly #loops: Promise<void>[];
  readonly #held: Promise<RawClient[]>;
  #begun = 0;
  #ended = 0;
  #isOver = false;
  #failure: unknown = null;

  constructor(server: Pmilter) {
    this.#server = server;
    this.#loops = Array.from({ length: LOOPS }, () => this.#loop());
    this.#held = Promise.all(Array.from({ length: BUSY_CONNECTIONS }, () => negotiated(server)));
  }

  /** Whatever fails ends the loop, and is thrown to whoever waits: nothing goes on behind a test that has failed. */
  async #loop(): Promise<void> {
    try {
      while (!this.#isOver) {
        const index = this.#begun++;
        this.#seen[index] = await newVersion(this.#server);
        this.#ended += 1;
      }
    } catch (error) {
      this.#isOver = true;
      this.#failure ??= error;
    }
  }
  /** The number of sessions that have begun. */
  get begun(): number {
    return this.#begun;
  }

  /** Settles once so many more sessions have ended. */
  async more(count: number): Promise<void> {
    const enough = this.#ended + count;
    await this.#until(() => this.#ended >= enough, "sessions to end");
  }

  /**
   * Settles once the server has used more of a core, for longer than it averages over, than one that is busy. It does not tell
   * that it is.
   */
  async keepBusy(): Promise<void> {
    await this.#held;
    const { pid } = this.#server.process;
    let [at, used, looks] = [performance.now(), cpuMs(pid), 0];
    await this.#until(() => {
      const elapsed = performance.now() - at;
      if (elapsed < LOOK_MS) return false;
      const share = (cpuMs(pid) - used) / elapsed;
      looks = share > 1.2 * BUSY_SHARE ? looks + 1 : 0;
      [at, used] = [performance.now(), cpuMs(pid)];
      return looks === 3;
    }, "the server to be busy");
  }

  /** Of the sessions from one number to another, those that run a version: how many of how many. */
  share(version: string, from: number, to = Infinity): number {
    const all = this.#seen.slice(from, to).filter((each) => each !== undefined);
    return all.filter((each) => each === version).length / all.length;
  }

  /** The number of the first session that ran it. */
  first(version: string): number {
    return this.#seen.indexOf(version);
  }

  async #until(condition: () => boolean, what: string): Promise<void> {
    await waitFor(() => this.#failure !== null || condition(), { what });
    if (this.#failure !== null) throw this.#failure;
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#loops);
    for (const client of await this.#held) client[Symbol.dispose]();
    if (this.#failure !== null) throw this.#failure;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.end();
  }
}

const LOOK_MS = 500;

const start = (server: Readonly<Record<string, unknown>> = {}) =>
  startVersioned({
    server: { workers: 3, watch: false, log_level: "info", ...server },
    files: { "filter.ts": working("v1") },
  });

/** Those that a generation takes over in. */
const takeovers = (server: Pmilter) => server.log.all.filter((line) => TAKES_OVER.test(line));

describe.skipIf(!IS_LINUX)("a busy server", () => {
  test("its share of the sessions that begin grows; once the reload is reported it has all of them", async () => {
    await using server = await start();
    await using traffic = new Traffic(server);
    await traffic.keepBusy();
    await save(server, "filter.ts", working("v2"));
    const before = traffic.begun;
    const asked = askReload(server);
    const { generation, next, workers } = await waitFor(
      async () => {
        const status = await askStatus(server);
        return status.next !== null && status;
      },
      { what: "a generation that takes over", intervalMs: 5 },
    );
    expect([generation.number, next?.number]).toEqual([1, 2]);
    expect(workers.map((worker) => worker.generation).toSorted()).toEqual([1, 1, 1, 2, 2, 2]);
    expect(reloadLines(server)).toEqual([]);
    expect(await asked).toMatchObject({ ok: true });
    const to = traffic.begun;
    await traffic.more(100);
    await traffic.end();
    const from = traffic.first("v2");
    const middle = Math.round((from + to) / 2);
    expect(from).toBeGreaterThanOrEqual(before - LOOPS);
    expect(traffic.share("v2", middle, to)).toBeGreaterThan(traffic.share("v2", from, middle));
    expect(traffic.share("v1", middle, to)).toBeGreaterThan(0);
    expect(traffic.share("v2", to)).toBe(1);
    expect((await askStatus(server)).next).toBeNull();
  });

  test("who reloads again soon after is not kept waiting", async () => {
    await using server = await start();
    await using traffic = new Traffic(server);
    await traffic.keepBusy();
    expect(await askReload(server)).toMatchObject({ ok: true });
    expect(await askReload(server)).toMatchObject({ ok: true });
    await logged(server, /reload: generation 3 serves/);
    expect(takeovers(server)).toHaveLength(1);
    await traffic.end();
  });

  test("what is saved takes over in what is left of the time that is promised, however busy the server is", async () => {
    await using server = await start({ watch: true });
    await using traffic = new Traffic(server);
    await traffic.keepBusy();
    await save(server, "filter.ts", working("v2"));
    await logged(server, /reload: generation 2 serves/);
    const from = traffic.begun;
    // Nothing is left if loading has taken all of it.
    for (const line of takeovers(server)) expect(Number(TAKES_OVER.exec(line)![1])).toBeLessThanOrEqual(LOADED_MS);
    await traffic.more(100);
    await traffic.end();
    expect(traffic.share("v2", from)).toBe(1);
  });

  test("a file that is saved meanwhile does not wait for it", async () => {
    await using server = await start({ watch: true });
    await using traffic = new Traffic(server);
    await traffic.keepBusy();
    const asked = askReload(server);
    await logged(server, TAKES_OVER);
    await save(server, "filter.ts", working("v2"));
    await logged(server, /reload: generation 3 serves/);
    expect(await asked).toMatchObject({ ok: true, message: expect.stringContaining("generation 2 serves") });
    await traffic.end();
    expect(await newVersion(server)).toBe("v2");
  });

  test("a worker of it that is lost meanwhile: its sessions go on", async () => {
    await using server = await start({ block_timeout: 1 });
    await using traffic = new Traffic(server);
    await traffic.keepBusy();
    await save(server, "filter.ts", working("v2", 'envfrom(_, sender) { if (sender.includes("loop")) for (;;) {} },'));
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
});

test("who reloads a server that is not busy is not kept waiting", async () => {
  await using server = await start();
  expect(await askReload(server)).toMatchObject({ ok: true });
  expect(takeovers(server)).toEqual([]);
});
