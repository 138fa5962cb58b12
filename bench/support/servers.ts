/** The servers under measurement, each a fresh process in a temporary folder, ended when disposed of. */
import { join } from "node:path";
import { PHASE_NAMES, type Phase } from "../../src/protocol/phases.ts";
import { startPmilter } from "../../test/support/pmilter.ts";
import { tempDir } from "../../test/support/temp.ts";
import { BenchChild } from "./child.ts";
import { OPTNEG } from "./traffic.ts";

/** Which of `bench/handlers` a server runs; `ruby` are the ten in Ruby. */
export type HandlerSet = "ten" | "ruby" | "eom" | "none";

const HANDLERS = join(import.meta.dir, "..", "handlers");
const PEERS = join(import.meta.dir, "..", "peers");

/** The phases with a file in `bench/handlers`. */
const TEN: readonly Phase[] = PHASE_NAMES.filter((phase) => phase !== "unknown" && phase !== "abort");

export interface ServerOptions {
  readonly handlers: HandlerSet;
  readonly workers: number | "auto";
  readonly signal: AbortSignal;
  /** Where to listen; by default in a folder of its own. */
  readonly socket?: string;
}

export interface RunningServer extends AsyncDisposable {
  /** The path of its unix socket. */
  readonly socket: string;
  readonly pid: number;
  readonly command: string;
  /** It sends a reply to QUIT, which nobody awaits: a mail server does not read it, and neither does the generator. */
  readonly answersQuit?: boolean;
}

/** The tables of pmilter.toml that name the handlers of a set. */
export function handlerConfig(handlers: HandlerSet): string {
  const phases = handlers === "eom" ? (["eom"] as const) : handlers === "none" ? [] : TEN;
  const fileOf = (phase: Phase) => (handlers === "ruby" ? join("ruby", `${phase}.rb`) : `${phase}.ts`);
  const lines = phases.map((phase) => `${phase}_handler = ${JSON.stringify(join(HANDLERS, fileOf(phase)))}`);
  return ["[handler.session]", ...lines].join("\n");
}

/** The server as users start it. */
export async function startReal({ handlers, workers, socket, signal }: ServerOptions): Promise<RunningServer> {
  signal.throwIfAborted();
  const server = await startPmilter({
    // Beside the configuration, and not where this user's own server may have its socket.
    server: { workers, control: "pmilter.ctl" },
    config: handlerConfig(handlers),
    ...(socket !== undefined && { listen: `unix:${socket}` }),
  });
  return {
    socket: socket ?? join(server.dir, "pmilter.sock"),
    pid: server.process.pid,
    command: `bun src/main.ts -c pmilter.toml   # ${handlers} handlers, workers = ${workers}`,
    async [Symbol.asyncDispose]() {
      await server[Symbol.asyncDispose]();
      const complaints = server.log.all.filter((line) => /\]\[(error|crit|alert|emerg)\]/.test(line));
      if (complaints.length > 0) throw new Error(`the server complained:\n${complaints.join("\n")}`);
    },
  };
}

/** `peers/bare.ts`: answers as the real server negotiated it, and does nothing else. */
export async function startBare({ handlers, signal }: ServerOptions): Promise<RunningServer> {
  const answer = await answerOfReal(handlers, signal);
  return startPeer("bare.ts", signal, (socket) => [socket, Buffer.from(answer).toString("hex")]);
}

/** `peers/shared-listener.ts`: the same workers, which accept for themselves. */
export async function startShared({ handlers, workers, signal }: ServerOptions): Promise<RunningServer> {
  return startPeer("shared-listener.ts", signal, (socket) => [socket, handlers, String(workers)]);
}

async function startPeer(
  file: string,
  signal: AbortSignal,
  args: (socket: string) => readonly string[],
): Promise<RunningServer> {
  await using stack = new AsyncDisposableStack();
  const dir = stack.use(await tempDir("bench"));
  const socket = join(dir.path, "peer.sock");
  const child = stack.use(new BenchChild<never, "ready">(join(PEERS, file), { signal, args: args(socket) }));
  await child.next();
  const owned = stack.move();
  return {
    socket,
    pid: child.pid,
    command: `bun bench/peers/${file} SOCKET ${args("").slice(1).join(" ")}`,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

const answers = new Map<HandlerSet, Uint8Array>();

/** The OPTNEG answer of the real server with these handlers, asked for once. */
async function answerOfReal(handlers: HandlerSet, signal: AbortSignal): Promise<Uint8Array> {
  const known = answers.get(handlers);
  if (known !== undefined) return known;
  await using server = await startReal({ handlers, workers: 1, signal });
  const answer = await answerOf(server.socket);
  answers.set(handlers, answer);
  return answer;
}

/** What whoever listens on a unix socket answers to OPTNEG. */
export async function answerOf(path: string): Promise<Uint8Array> {
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  let read = Buffer.alloc(0);
  const socket = await Bun.connect({
    unix: path,
    socket: {
      data(_, chunk) {
        read = Buffer.concat([read, chunk]);
        if (read.length >= 4 && read.length >= 4 + read.readUInt32BE(0)) resolve(read);
      },
      close: () => reject(new Error("the server closed the connection instead of negotiating")),
    },
  });
  socket.write(OPTNEG);
  const answer = await promise;
  socket.end();
  return answer;
}
