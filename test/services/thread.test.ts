/** The services thread with workers' sides in this thread: started when it is needed, shared, lost and begun anew. */
import { afterEach, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { DnsSettings } from "../../src/dns/servers.ts";
import { ServicesThread } from "../../src/server/workers/services-thread.ts";
import type { Operation } from "../../src/store/operations.ts";
import { WorkerServices } from "../../src/worker/services.ts";
import { startNameServer } from "./dns/server.ts";
import { type TempDir, tempDir, waitFor } from "../support/temp.ts";

setDefaultTimeout(120_000);

const ENTRY = new URL("../../src/services/entry.ts", import.meta.url);
const MORTAL = new URL("./mortal-entry.ts", import.meta.url);
const never = (): AbortSignal => new AbortController().signal;

let dir: TempDir;
beforeEach(async () => {
  dir = await tempDir("services");
});
afterEach(() => dir[Symbol.asyncDispose]());

interface Started extends Disposable {
  readonly thread: ServicesThread;
  readonly log: string[];
  dropped: number;
  /** A worker's side. */
  worker(): WorkerServices;
}

interface Settings {
  readonly folder?: () => string;
  readonly maxBytes?: number;
  readonly path?: string;
  readonly servers?: DnsSettings["servers"];
}

function start(
  url = ENTRY,
  { folder = () => dir.path, maxBytes = 2 ** 31, path = "store.db", servers = [] }: Settings = {},
): Started {
  const log: string[] = [];
  const started: Started = {
    log,
    dropped: 0,
    thread: new ServicesThread(url, {
      dns: { servers, timeoutMs: 60_000, attempts: 1, cache: 10 },
      store: { url: `sqlite:${path}`, timeoutMs: 60_000, maxBytes },
      folder,
      starting: () => {},
      dropped: (count) => (started.dropped += count),
      log: (level, text) => log.push(`${level}: ${text}`),
    }),
    worker() {
      const services: WorkerServices = new WorkerServices(() => services.connect(started.thread.connect()));
      return services;
    },
    [Symbol.dispose]: () => started.thread.close(),
  };
  return started;
}

const run = (services: WorkerServices, operation: object, timeoutMs = 60_000) =>
  services.run({ filter: "f", key: "k", ...operation } as Operation, never(), timeoutMs);

const servicesThreads = (): number => threadNames().filter((name) => name === "services").length;

function threadNames(): string[] {
  return readdirSync("/proc/self/task").flatMap((task) => {
    try {
      return [readFileSync(`/proc/self/task/${task}/comm`, "utf8").trim()];
    } catch {
      // Ended since.
      return [];
    }
  });
}

test("no thread is started before something is asked, and nothing is written", async () => {
  using started = start();
  const worker = started.worker();
  expect(started.thread.isRunning).toBe(false);
  expect(threadNames()).not.toContain("services");
  expect(readdirSync(dir.path)).toEqual([]);
  await run(worker, { kind: "get" });
  expect(started.thread.isRunning).toBe(true);
  expect(threadNames()).toContain("services");
  expect(readdirSync(dir.path)).toContain("store.db");
  expect(statSync(join(dir.path, "store.db")).mode & 0o777).toBe(0o600);
});

test("without a folder for the store no thread is started, and each call says why", async () => {
  const folder = (): string => {
    throw new Error("no state folder");
  };
  using started = start(ENTRY, { folder });
  const worker = started.worker();
  // Those of other tests may be about to end.
  const before = servicesThreads();
  for (let times = 0; times < 2; times++) {
    const call = run(worker, { kind: "get" });
    expect(await call.catch((error: Error) => error.message)).toBe(
      "the services thread cannot be started: no state folder",
    );
  }
  expect(started.thread.isRunning).toBe(false);
  expect(servicesThreads()).toBeLessThanOrEqual(before);
});

test("four workers, 40,000 operations on one key: the count and the limit are exact", async () => {
  using started = start();
  const workers = Array.from({ length: 4 }, () => started.worker());
  let taken = 0;
  await Promise.all(
    workers.flatMap((worker) =>
      Array.from({ length: 5000 }, async () => {
        await run(worker, { kind: "increment", by: 1, ttl: null });
        const { ok } = (await run(worker, { kind: "take", limit: 7777, per: 3_600_000, cost: 1 })) as { ok: boolean };
        if (ok) taken += 1;
      }),
    ),
  );
  expect(await run(workers[0]!, { kind: "get" })).toBe("20000");
  expect(taken).toBe(7777);
});

test("a worker with 20,000 calls does not hold up another", async () => {
  using started = start();
  const [busy, other] = [started.worker(), started.worker()];
  await Promise.all([run(busy, { kind: "get" }), run(other, { kind: "get" })]);
  let done = 0;
  const flood = Array.from({ length: 20_000 }, async (_, at) => {
    await run(busy, { kind: "set", key: `k${at}`, value: "1", ttl: null });
    done += 1;
  });
  for (let at = 0; at < 5; at += 1) await run(other, { kind: "increment", by: 1, ttl: null });
  expect(done).toBeLessThan(10_000);
  await Promise.all(flood);
  expect(done).toBe(20_000);
});

test("a hundred equal questions of four workers are one packet, and later ones come from the cache", async () => {
  await using server = await startNameServer((name) => ({
    answers: [{ type: "TXT", name, ttl: 60, data: "text" }],
    delay: 50,
  }));
  using started = start(ENTRY, { servers: [{ address: server.address, port: server.port }] });
  const workers = Array.from({ length: 4 }, () => started.worker());
  const ask = () =>
    Promise.all(Array.from({ length: 100 }, (_, at) => workers[at % 4]!.resolve("x.example", "TXT", never())));
  const answers = [...(await ask()), ...(await ask())];
  expect(new Set(answers.map(({ records, status }) => `${status} ${records}`))).toEqual(new Set(["found text"]));
  expect(server.asked).toEqual(["udp x.example TXT"]);
});

test("services-end: what is under way when the thread ends fails, and another thread has its data", async () => {
  using started = start(MORTAL);
  const [one, other] = [started.worker(), started.worker()];
  await run(one, { kind: "set", value: "5", ttl: null });
  await run(other, { kind: "take", limit: 1, per: 3_600_000, cost: 1 });
  const failed = await Promise.allSettled([run(one, { kind: "get", key: "die" }), run(one, { kind: "get" })]);
  expect(failed.map((call) => call.status === "rejected" && (call.reason as Error).message)).toEqual([
    "the services thread has ended",
    "the services thread has ended",
  ]);
  await waitFor(() => !started.thread.isRunning, { what: "the end of the thread" });
  expect(await run(one, { kind: "get" })).toBe("5");
  expect(await run(other, { kind: "take", limit: 1, per: 3_600_000, cost: 1 })).toMatchObject({ ok: false });
  expect(started.log).toEqual([
    "crit: the services thread has ended, another is started when it is needed: error: killed by the test",
  ]);
});

test("a thread that is busy is not ended: a call fails in its time, later ones are done", async () => {
  using started = start(MORTAL);
  const worker = started.worker();
  await run(worker, { kind: "get" });
  const busy = run(worker, { kind: "set", key: "busy", value: "1", ttl: null }, 20);
  expect(await busy.catch((error: Error) => error.message)).toBe("no answer in 20 ms");
  expect(await run(worker, { kind: "set", value: "2", ttl: null })).toBeNull();
  expect(await run(worker, { kind: "get" })).toBe("2");
  expect(started.log).toEqual([]);
});

test("a worker that ends in the midst of calls costs no other worker's", async () => {
  using started = start();
  const staying = started.worker();
  await run(staying, { kind: "get" });
  const source = `
    self.onmessage = ({ data }) => {
      const calls = Array.from({ length: 200 }, (_, id) => ({ kind: "store", id, operation: { kind: "increment", filter: "f", key: "k", by: 1, ttl: null } }));
      data.postMessage(calls);
      self.postMessage("asked");
    };`;
  for (let at = 0; at < 3; at += 1) {
    const leaving = new Worker(URL.createObjectURL(new Blob([source])));
    const line = started.thread.connect();
    if (line.port === null) throw new Error(line.problem);
    const asked = new Promise((resolve) => leaving.addEventListener("message", resolve, { once: true }));
    const closed = new Promise((resolve) => leaving.addEventListener("close", resolve, { once: true }));
    leaving.postMessage(line.port, [line.port]);
    await asked;
    leaving.terminate();
    await closed;
    await run(staying, { kind: "set", key: "other", value: "1", ttl: null });
  }
  expect(Number(await run(staying, { kind: "get" })) % 200).toBe(0);
});
