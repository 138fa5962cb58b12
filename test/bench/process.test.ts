/** Processor time and memory of a process with those it started: what a forking peer costs must not be lost. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { cpuMicros, peakBytes } from "../../bench/support/process.ts";

setDefaultTimeout(120_000);

/** About a tenth of a second of a shell, and well above the clock's step of 10 ms. */
const WORK = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";

async function withShell<T>(script: string, look: (pid: number) => T): Promise<T> {
  const shell = Bun.spawn(["sh", "-c", `${script}; :`], { stdio: ["pipe", "pipe", "inherit"] });
  try {
    const { value } = await shell.stdout.getReader().read();
    expect(Buffer.from(value!).toString()).toBe("ready\n");
    return look(shell.pid);
  } finally {
    await shell.stdin.end();
    await shell.exited;
  }
}

test("time of a child that has ended and of one that runs is counted, each once", async () => {
  // The least of some: what shares the cores makes the same work cost more.
  const cost = async (script: string) =>
    Math.min(...(await Promise.all([1, 2, 3].map(() => withShell(script, cpuMicros)))));
  const none = await cost("echo ready; read _");
  const own = await cost(`${WORK}; echo ready; read _`);
  const ended = await cost(`( ${WORK} ); echo ready; read _`);
  const running = await cost(`( ${WORK}; echo ready; read _ )`);
  expect(none).toBeLessThan(own / 2);
  for (const micros of [ended, running]) {
    expect(micros).toBeGreaterThan(own / 2);
    expect(micros).toBeLessThan(own * 1.9);
  }
});

test("what is less than a step of the processor's clock is counted, too: many processes may each do little", async () => {
  const { micros, steps } = await withShell("echo ready; read _", (pid) => ({
    micros: cpuMicros(pid),
    steps: Number(readFileSync(`/proc/${pid}/stat`, "utf8").split(" ")[13]),
  }));
  expect(micros).toBeGreaterThan(0);
  expect(micros).not.toBe(steps * 10_000);
});

test("peak memory is that of all its processes together", async () => {
  const one = await withShell("echo ready; read _", peakBytes);
  const three = await withShell("( ( echo ready; read _; : ); : )", peakBytes);
  expect(one).toBeGreaterThan(100_000);
  expect(three).toBeGreaterThan(one * 1.2);
});

test("of a process that is gone there is nothing", async () => {
  const gone = Bun.spawn(["true"]);
  await gone.exited;
  expect([cpuMicros(gone.pid), peakBytes(gone.pid)]).toEqual([0, 0]);
});
