/** Asks a running server over its control socket: a line of JSON in, a line out, then the connection ends. */
import type { Socket } from "bun";
import { adopt } from "../../net/adopt.ts";
import { close, connectUnix, LibcError, peerUser } from "../../net/libc.ts";
import { PlainError } from "../../errors.ts";
import type { ConfigurationFile } from "../files/configuration-file.ts";
import { isSocket } from "../listening/unix-socket.ts";

/** A request. */
export interface ControlRequest {
  readonly command: "status" | "reload";
  /** The configuration of the server that is meant: a server that runs another does nothing and says so. */
  readonly config?: ConfigurationFile;
}

/** The answer to a request that is wrong in itself. */
export interface ControlFailure {
  readonly error: string;
  /** The path of the configuration that this server runs, if the request means another. */
  readonly runs?: string;
}

/** Maximum wait of a client for the answer; a reload loads every handler. */
const ANSWER_TIMEOUT_MS = 60_000;
/** Maximum time that a client tries while the queue of the socket is full, and the time between attempts. */
const QUEUE_TIMEOUT_MS = 2000;
const QUEUE_RETRY_MS = 10;

/** A server could not be asked, or refused. */
export class ControlError extends PlainError {
  override readonly name = "ControlError";
  /** The socket's path. */
  readonly path: string;
  /** The reason, without the path. */
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
 * @throws ControlError with the reason: no server answers, or it refused
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

/** @throws ControlError if it is no answer, or a failure */
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
