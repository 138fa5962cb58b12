/** A Redis of its own on a unix socket and a TCP port, in a temporary folder. */
import { join } from "node:path";
import { type OutsideTool, outsideTool } from "./available.ts";
import { type TempDir, tempDir, waitFor } from "./temp.ts";

export function redisTool(): OutsideTool {
  return outsideTool("redis-server");
}

export interface TestRedis extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  /** Ends it as by the given signal, and waits for its end. */
  kill(signal: NodeJS.Signals): Promise<void>;
  /** Starts it again, with what it has on disk. */
  start(): Promise<void>;
}

/** A free port: taken and given back, so that the same one serves a restart. */
function freePort(): number {
  const listener = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}

export async function startRedis(options: readonly string[] = []): Promise<TestRedis> {
  const dir: TempDir = await tempDir("redis");
  const port = freePort();
  let child: ReturnType<typeof Bun.spawn> | null = null;
  const start = async (): Promise<void> => {
    child = Bun.spawn(
      [
        redisTool().path,
        "--bind",
        "127.0.0.1",
        "--port",
        String(port),
        "--dir",
        dir.path,
        "--appendonly",
        "yes",
        // A write is on disk before it is answered: else a busy disk may put it off, and a kill loses it.
        "--appendfsync",
        "always",
        "--save",
        "",
        ...options,
      ],
      { stdout: Bun.file(join(dir.path, "log")), stderr: "inherit", stdin: "ignore" },
    );
    const log = Bun.file(join(dir.path, "log"));
    await waitFor(async () => (await log.text()).includes("Ready to accept connections") || child!.exitCode !== null, {
      what: "Redis to be ready",
    });
    if (child.exitCode !== null) throw new Error(`Redis has ended: ${await log.text()}`);
  };
  const kill = async (signal: NodeJS.Signals): Promise<void> => {
    child?.kill(signal);
    await child?.exited;
  };
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    get pid() {
      return child!.pid;
    },
    kill,
    start,
    async [Symbol.asyncDispose]() {
      await kill("SIGKILL");
      await dir[Symbol.asyncDispose]();
    },
  };
}
