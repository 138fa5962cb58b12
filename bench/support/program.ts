/** A peer that is not ours: a program that listens on a unix socket, with all the processes that it starts. */
import { join } from "node:path";
import { tempDir, waitFor } from "../../test/support/temp.ts";
import type { RunningServer } from "./servers.ts";

const START_MS = 10_000;

export interface ProgramOptions {
  readonly name: string;
  /** The command line as a user would type it. */
  readonly command: string;
  /** The program and its arguments; the socket's path is added as the last. */
  readonly argv: readonly string[];
  readonly answersQuit?: boolean;
  readonly signal: AbortSignal;
}

/**
 * Starts the program in a process group of its own and waits until it takes connections.
 * @throws Error with its standard error, if it does not get that far
 */
export async function startProgram({
  name,
  command,
  argv,
  answersQuit,
  signal,
}: ProgramOptions): Promise<RunningServer> {
  signal.throwIfAborted();
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir("bench"));
  const socket = join(dir.path, "peer.sock");
  const child = Bun.spawn([...orphansEnd(), ...argv, socket], {
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
  });
  const errors = child.stderr.text();
  let isReady = false;
  stack.defer(async () => {
    const isEarly = child.exitCode !== null || child.signalCode !== null;
    killGroup(child.pid);
    await child.exited;
    const text = (await errors).trim();
    // The output of a running program does not matter: some complain that the generator's connections ended.
    if (isReady && isEarly) process.stderr.write(`  ${name} ended early: ${text}\n`);
  });
  isReady = await waitFor(
    async () => {
      signal.throwIfAborted();
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(lastLine(await errors) || `it ended with ${child.signalCode ?? `exit code ${child.exitCode}`}`);
      }
      return takesConnections(socket);
    },
    { what: `${name} to listen`, timeoutMs: START_MS },
  );
  const owned = stack.move();
  return {
    socket,
    pid: child.pid,
    command,
    ...(answersQuit !== undefined && { answersQuit }),
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** The last line that says something: of a compiler, an interpreter or a linker it is the reason. */
export function lastLine(text: string): string {
  return text.trim().split("\n").at(-1)!.trim();
}

/** Such programs know nothing of us and would stay when the benchmark is killed. */
function orphansEnd(): readonly string[] {
  const setpriv = Bun.which("setpriv");
  return setpriv === null ? [] : [setpriv, "--pdeathsig", "KILL", "--"];
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // All of it has ended.
  }
}

async function takesConnections(path: string): Promise<boolean> {
  try {
    const socket = await Bun.connect({ unix: path, socket: { data() {} } });
    socket.end();
    return true;
  } catch {
    return false;
  }
}
