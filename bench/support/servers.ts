/** The servers under measurement, each a fresh process in a temporary folder, ended when disposed of. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PHASE_NAMES, type Phase } from "../../src/protocol/phases.ts";
import { startPmilter } from "../../test/support/pmilter.ts";
import { tempDir } from "../../test/support/temp.ts";
import { BenchChild } from "./child.ts";
import { ROOT } from "./machine.ts";
import { OPTNEG } from "./traffic.ts";

/**
 * The filters of a server: handlers of `bench/handlers`, the same in Ruby, the printing examples as shipped, or a filter of
 * `bench/filters`.
 */
export const HANDLER_SETS = ["ten", "ruby", "eom", "examples", "collect", "empty"] as const;
export type HandlerSet = (typeof HANDLER_SETS)[number];

const HANDLERS = join(import.meta.dir, "..", "handlers");
const FILTERS = join(import.meta.dir, "..", "filters");
const PEERS = join(import.meta.dir, "..", "peers");

/** The phases with a file in `bench/handlers`. */
const TEN: readonly Phase[] = PHASE_NAMES.filter((phase) => phase !== "unknown" && phase !== "abort");

export interface ServerOptions {
  readonly handlers: HandlerSet;
  readonly workers: number | "auto";
  readonly signal: AbortSignal;
  /** The server's entry file; by default this tree's. */
  readonly main?: string;
}

export interface RealOptions extends ServerOptions {
  /** In place of the handlers, so many filters, each with all ten of them. */
  readonly filters?: number;
  /** Tables of pmilter.toml instead of those of `handlers`. */
  readonly config?: string;
}

export interface RunningServer extends AsyncDisposable {
  /** The path of its unix socket. */
  readonly socket: string;
  readonly pid: number;
  readonly command: string;
  /** It replies to QUIT, though no reply is due: a mail server does not read it, and neither does the generator. */
  readonly answersQuit?: boolean;
  /** The path of its control socket; undefined of a peer. */
  readonly control?: string;
}

/** The tables of pmilter.toml for a set of handlers. */
export function handlerConfig(handlers: HandlerSet): string {
  switch (handlers) {
    case "ten":
      return sessionTable(TEN);
    case "ruby":
      return sessionTable(TEN, (phase) => join("ruby", `${phase}.rb`));
    case "eom":
      return sessionTable(["eom"]);
    case "examples":
      return shippedTables();
    case "collect":
    case "empty":
      return `[[filter]]\npath = ${JSON.stringify(join(FILTERS, `${handlers}.ts`))}`;
    default:
      return handlers satisfies never;
  }
}

function sessionTable(phases: readonly Phase[], fileOf = (phase: Phase) => `${phase}.ts`): string {
  return tableOf(
    "handler.session",
    phases.map((phase) => [`${phase}_handler`, join(HANDLERS, fileOf(phase))]),
  );
}

/** The handlers that the repository's own pmilter.toml names. */
function shippedTables(): string {
  const { handler } = Bun.TOML.parse(readFileSync(join(ROOT, "pmilter.toml"), "utf8")) as {
    handler: Readonly<Record<string, Readonly<Record<string, string>>>>;
  };
  return Object.entries(handler)
    .map(([name, paths]) =>
      tableOf(
        `handler.${name}`,
        Object.entries(paths).map(([key, path]) => [key, join(ROOT, path)]),
      ),
    )
    .join("\n\n");
}

function tableOf(name: string, entries: readonly (readonly [key: string, path: string])[]): string {
  return [`[${name}]`, ...entries.map(([key, path]) => `${key} = ${JSON.stringify(path)}`)].join("\n");
}

function chainConfig(count: number): string {
  const path = JSON.stringify(join(FILTERS, "all.ts"));
  return Array.from({ length: count }, (_, index) => `\n[[filter]]\npath = ${path}\nname = "all-${index + 1}"`).join(
    "\n",
  );
}

/** The server as users start it. */
export async function startReal({
  config,
  handlers,
  filters,
  workers,
  main,
  signal,
}: RealOptions): Promise<RunningServer> {
  signal.throwIfAborted();
  const server = await startPmilter({
    // Beside the configuration, and not where this user's own server may have its socket.
    server: { workers, control: "pmilter.ctl" },
    config: config ?? (filters === undefined ? handlerConfig(handlers) : chainConfig(filters)),
    // Millions of lines, and a reader would compete with the server.
    keepsPrints: false,
    ...(main !== undefined && { main }),
  });
  return {
    socket: join(server.dir, "pmilter.sock"),
    pid: server.process.pid,
    control: join(server.dir, "pmilter.ctl"),
    command: `bun src/main.ts -c pmilter.toml   # ${filters === undefined ? `${handlers} handlers` : `a chain of ${filters}`}, workers = ${workers}`,
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

/** The reply to OPTNEG of the program that listens on a unix socket. */
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
