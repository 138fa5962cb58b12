/** The thread behind a worker: how its end is counted. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { WorkerThread } from "../../src/server/workers/worker-thread.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

/** In a native call longer than its end is waited for, once it is told to end. */
const SLEEPER = `self.onmessage = () => { postMessage({ kind: "print", text: "sleeping" }); Bun.sleepSync(2000); };`;

test("a thread that is told twice to end is stuck once, and no longer when it is gone", async () => {
  await using dir = await tempDir("thread");
  const file = join(dir.path, "sleeper.ts");
  await Bun.write(file, SLEEPER);
  const sleeping = Promise.withResolvers<void>();
  const gone = Promise.withResolvers<void>();
  const thread = new WorkerThread(pathToFileURL(file), {
    message: () => sleeping.resolve(),
    gone: () => gone.resolve(),
  });
  thread.post({ kind: "end", atOnce: true });
  await sleeping.promise;
  // That it has entered the call is no event.
  await Bun.sleep(200);
  await Promise.all([thread.terminate(), thread.terminate()]);
  expect([WorkerThread.stuck, WorkerThread.ending]).toEqual([1, 1]);
  await gone.promise;
  expect([WorkerThread.stuck, WorkerThread.ending]).toEqual([0, 0]);
});
