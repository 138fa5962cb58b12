/**
 * The control socket: one line of JSON in, one line out, then the connection ends. It asks and tells; what is done stands
 * in the server. Its file is 0600 from its first moment on: who may open it may command the server.
 */
import type { Socket } from "bun";
import { adopt } from "../../net/adopt.ts";
import { close, connectUnix, LibcError, peerUser, shutdown } from "../../net/libc.ts";
import { PlainError } from "../../errors.ts";
import { type ConfigurationFile, readConfigurationFile } from "../files/configuration-file.ts";
import { openListener, type Listener } from "../listening/listener.ts";
import { Reachable } from "../listening/reachable.ts";
import { isSocket } from "../listening/unix-socket.ts";

/** What may be asked. */
export interface ControlRequest {
  readonly command: "status" | "reload";
  /** The configuration of the server that is meant: a server that runs another does nothing and says so. */
  readonly config?: ConfigurationFile;
}

/** What the answer is when something is wrong with the request itself. */
export interface ControlFailure {
  readonly error: string;
  /** The path of the configuration that this server runs: it runs another than the one that is meant. */
  readonly runs?: string;
}

/** Answers a request; the result is sent as JSON. */
export type ControlHandler = (request: ControlRequest) => Promise<object> | object;

const MODE = 0o600;
/** A request is a few words and two paths. */
const MAX_REQUEST_BYTES = 16_384;

/** Connections at a time, and how long each may take to say what it wants. */
const MAX_OPEN = 16;
const REQUEST_TIMEOUT_MS = 10_000;

/** The conversation on one control connection. */
interface Exchange {
  text: string;
  /** The request is complete; its answer may take its time. */
  isAsked: boolean;
  /** Ends the connection. */
  end(): void;
}

/** @throws ListenError */
export async function listenForControl(
  path: string,
  handle: ControlHandler,
  onError: (error: Error) => void,
): Promise<Listener> {
  const handlers = {
    data(socket: Socket<Exchange>, chunk: Uint8Array) {
      const exchange = socket.data;
      if (exchange.isAsked) return;
      exchange.text += Buffer.from(chunk).toString("utf8");
      const end = exchange.text.indexOf("\n");
      if (end === -1 && exchange.text.length < MAX_REQUEST_BYTES) return;
      exchange.isAsked = true;
      void answer(exchange.text.slice(0, end === -1 ? undefined : end), handle).then((reply) => {
        // A status fits into the buffer of a socket that nothing was written to before.
        socket.write(`${JSON.stringify(reply)}\n`);
        socket.end();
      });
    },
    error(_: Socket<Exchange>, error: Error) {
      onError(error);
    },
    drain() {},
  };
  /** Those that are open, oldest first. */
  const open = new Set<Exchange>();
  // Without a descriptor left is when somebody asks.
  const reachable = new Reachable();
  const listener = await openListener(
    { kind: "unix", path },
    {
      mode: MODE,
      uid: null,
      gid: null,
      backlog: 8,
      onError,
      duplicate: (fd) => reachable.dup(fd),
      onConnection({ fd }) {
        // Who says nothing is not waited for, and keeps nobody out: descriptors are for mail.
        if (open.size >= MAX_OPEN) {
          const [oldest] = [...open].toSorted((a, b) => Number(a.isAsked) - Number(b.isAsked));
          open.delete(oldest!);
          oldest!.end();
        }
        const data: Exchange = { text: "", isAsked: false, end: () => shutdown(fd, "both") };
        open.add(data);
        const timer = setTimeout(() => {
          if (!data.isAsked) data.end();
        }, REQUEST_TIMEOUT_MS);
        // Once it is closed, its number may be another descriptor's.
        const forget = () => {
          clearTimeout(timer);
          open.delete(data);
        };
        adopt({ fd, data, socket: { ...handlers, close: forget } }).catch((error: unknown) => {
          close(fd);
          forget();
          onError(error instanceof Error ? error : new Error(String(error)));
        });
      },
    },
  ).catch((error: unknown) => {
    reachable.close();
    throw error;
  });
  return reachable.watch(listener);
}

async function answer(text: string, handle: ControlHandler): Promise<object> {
  const failure = (error: string): ControlFailure => ({ error });
  let request: unknown;
  try {
    request = JSON.parse(text);
  } catch {
    return failure(`expected one line of JSON, such as {"command":"status"}`);
  }
  const { command, config } = (typeof request === "object" && request !== null ? request : {}) as Record<
    string,
    unknown
  >;
  if (command !== "status" && command !== "reload") {
    return failure(`expected the command "status" or "reload", got ${JSON.stringify(command)}`);
  }
  const meant = config === undefined ? undefined : readConfigurationFile(config);
  if (meant === null) {
    return failure(`expected a configuration such as {"path":"/etc/pmilter.toml"}, got ${JSON.stringify(config)}`);
  }
  try {
    return await handle({ command, ...(meant === undefined ? {} : { config: meant }) });
  } catch (error) {
    return failure(error instanceof Error ? error.message : String(error));
  }
}

/** How long a client waits for the answer; a reload loads every handler. */
const ANSWER_TIMEOUT_MS = 60_000;
/** How long a client tries while the queue of the socket is full, and how often. */
const QUEUE_TIMEOUT_MS = 2000;
const QUEUE_RETRY_MS = 10;

/** A server could not be asked, or refused. */
export class ControlError extends PlainError {
  override readonly name = "ControlError";
  /** The socket's path. */
  readonly path: string;
  /** What is wrong, without the path. */
  readonly reason: string;
  /** The system's, if it could not be connected to. */
  readonly code: string | null;

  constructor(path: string, reason: string, cause?: unknown) {
    super(`${path}: ${reason}`, { cause });
    this.path = path;
    this.reason = reason;
    this.code = cause instanceof LibcError ? cause.code : null;
  }
}

export interface AskOptions {
  /** Default: 60 s. */
  readonly timeoutMs?: number;
  /** Whether a server of this user is believed; asked before anything is sent. Default: every user's is. */
  readonly isTrusted?: (uid: number) => boolean;
}

/**
 * Asks a running server.
 * @throws ControlError saying that none answers, or what it said
 */
export async function askServer(
  path: string,
  request: ControlRequest,
  { isTrusted = () => true, timeoutMs = ANSWER_TIMEOUT_MS }: AskOptions = {},
): Promise<object> {
  const fd = await connect(path);
  const uid = peerUser(fd);
  if (!isTrusted(uid)) {
    close(fd);
    const reason = `the server behind it runs as user ${uid}, who has no say over this configuration: it is not asked`;
    throw new ControlError(path, reason);
  }
  const answered = Promise.withResolvers<string>();
  let text = "";
  const fail = (reason: string, cause?: unknown) => answered.reject(new ControlError(path, reason, cause));
  const socket = await adopt({
    fd,
    data: undefined,
    socket: {
      data: (_: Socket, chunk: Uint8Array) => void (text += Buffer.from(chunk).toString("utf8")),
      close: () => answered.resolve(text),
      error: (_: Socket, error: Error) => fail(`the connection broke: ${error.message}`, error),
    },
  });
  const timer = setTimeout(() => {
    fail(`no answer within ${timeoutMs / 1000} s`);
    socket.terminate();
  }, timeoutMs);
  try {
    socket.write(`${JSON.stringify(request)}\n`);
    return readAnswer(path, await answered.promise, request);
  } finally {
    clearTimeout(timer);
  }
}

/** @returns a connected descriptor. @throws ControlError */
async function connect(path: string): Promise<number> {
  const deadline = performance.now() + QUEUE_TIMEOUT_MS;
  for (;;) {
    try {
      return connectUnix(path);
    } catch (error) {
      if (!(error instanceof LibcError)) throw error;
      const isFull = error.code === "EAGAIN";
      if (!isFull || performance.now() > deadline) throw new ControlError(path, whyNotConnected(path, error), error);
    }
    await Bun.sleep(QUEUE_RETRY_MS);
  }
}

function whyNotConnected(path: string, { code }: LibcError): string {
  switch (code) {
    case "ENOENT":
    case "ENOTDIR":
      return "there is no such socket";
    case "EACCES":
    case "EPERM":
      return `no permission to connect as uid ${process.geteuid?.()}; ask as the user that the server was started by`;
    case "ECONNREFUSED":
      return isSocket(path)
        ? "nobody listens there: a server that was killed has left the socket"
        : "it is no socket: expected that of a server";
    case "EAGAIN":
      return `too many others ask as well: none was accepted within ${QUEUE_TIMEOUT_MS / 1000} s`;
    case "ENAMETOOLONG":
      return "the path is too long for a unix socket: set server.control to a shorter one";
    default:
      return `it cannot be connected to: ${code}`;
  }
}

/** @throws ControlError if it is none, or says that something went wrong */
function readAnswer(path: string, text: string, { command, config }: ControlRequest): object {
  const fail = (reason: string) => new ControlError(path, reason);
  if (text === "") throw fail("the server ended the connection without an answer: it may have stopped");
  if (!text.endsWith("\n")) throw fail("the answer was cut short: the server may have stopped");
  let reply: unknown;
  try {
    reply = JSON.parse(text);
  } catch {
    // As for JSON of another kind.
  }
  if (typeof reply !== "object" || reply === null) {
    throw fail(`expected a line of JSON, got ${JSON.stringify(text.slice(0, 80))}: this is no pmilter`);
  }
  if ("runs" in reply) throw fail(`this server runs ${String(reply.runs)}, not ${config?.path ?? "the one meant"}`);
  if ("error" in reply) throw fail(String(reply.error));
  const expected = command === "status" ? "health" : "message";
  if (!(expected in reply)) {
    throw fail(`expected the answer to ${command}, got ${JSON.stringify(text.slice(0, 80))}: this is no pmilter`);
  }
  return reply;
}
