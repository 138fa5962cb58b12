/** Threads by name and processor time, where they may run, and the peak of a process's memory. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { given, IS_LINUX } from "../support/available.ts";
import { growthBytes, residentBytes, startPeak } from "../../bench/support/process.ts";
import { pin, threadsOf, whyNotPinned, WORKER } from "../../bench/support/threads.ts";

setDefaultTimeout(120_000);

/** A process with one worker, which computes when it is told to; then it says so. */
const PROGRAM = `
const source = 'self.onmessage = () => { const from = process.cpuUsage(); while (process.cpuUsage(from).user < 300000); self.postMessage("done"); }';
const worker = new Worker(URL.createObjectURL(new Blob([source])));
worker.onmessage = () => process.send("done");
process.on("message", (message) => {
  if (message === "work") worker.postMessage("work");
  else { globalThis.kept = new Uint8Array(message).fill(1); process.send("kept"); globalThis.kept = null; Bun.gc(true); }
});
worker.addEventListener("open", () => process.send("ready"));
`;

async function withProgram<T>(run: (pid: number, ask: (what: "work" | number) => Promise<void>) => Promise<T>) {
  let told = Promise.withResolvers<void>();
  const child = Bun.spawn([process.execPath, "-e", PROGRAM], {
    stdio: ["ignore", "inherit", "inherit"],
    ipc: () => told.resolve(),
  });
  try {
    await told.promise;
    return await run(child.pid, async (what) => {
      told = Promise.withResolvers();
      child.send(what);
      await told.promise;
    });
  } finally {
    child.kill("SIGKILL");
    await child.exited;
  }
}

test.skipIf(!IS_LINUX)("threadsOf: what each thread has used since an earlier look", async () => {
  await withProgram(async (pid, ask) => {
    const before = threadsOf(pid);
    expect(before[0]).toMatchObject({ id: pid, isMain: true });
    expect(before.filter(({ isMain }) => isMain)).toHaveLength(1);
    await ask("work");
    const since = threadsOf(pid, before);
    const workers = since.filter(({ name }) => name === WORKER);
    expect(workers).toHaveLength(1);
    const main = since.find(({ isMain }) => isMain)!;
    expect(workers[0]!.cpuMicros).toBeGreaterThan(10 * main.cpuMicros);
    expect(workers[0]!.cpuMicros).toBeLessThan(threadsOf(pid).find(({ id }) => id === workers[0]!.id)!.cpuMicros);
  });
});

test.skipIf(!given(whyNotPinned() === null, `pin: ${whyNotPinned()}`))(
  "pin: one thread, or all of a process",
  async () => {
    const coresOf = (pid: number, id: number) =>
      /^Cpus_allowed_list:\s+(.*)$/m.exec(readFileSync(`/proc/${pid}/task/${id}/status`, "utf8"))![1];
    await withProgram(async (pid) => {
      const [main, worker] = [pid, threadsOf(pid).find(({ name }) => name === WORKER)!.id];
      const all = coresOf(pid, main);
      pin(worker, 0);
      expect([coresOf(pid, main), coresOf(pid, worker)]).toEqual([all, "0"]);
      pin(pid, 0, true);
      expect(threadsOf(pid).map(({ id }) => coresOf(pid, id))).toEqual(threadsOf(pid).map(() => "0"));
    });
    expect(() => pin(2 ** 30, 0)).toThrow("taskset: ");
  },
);

test.skipIf(!IS_LINUX)("growthBytes: the peak since it was begun anew, not an earlier one", async () => {
  const LARGE = 50 * 2 ** 20;
  await withProgram(async (pid, ask) => {
    await ask(LARGE);
    startPeak(pid);
    const before = residentBytes(pid);
    expect(growthBytes(pid, before)).toBeLessThan(LARGE / 2);
    await ask(4 * LARGE);
    expect(growthBytes(pid, before)).toBeGreaterThan(2 * LARGE);
  });
});
