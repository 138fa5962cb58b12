/**
 * The control socket: one line of JSON in, one line out, then the connection ends. It asks and tells; what is done stands
 * in the server. Its file is 0600 from its first moment on: who may open it may command the server.
 */
import type { Socket } from "bun";
import { close, shutdown } from "../net/libc.ts";
import { listen, type Listener } from "./listener.ts";
import { Reachable } from "./reachable.ts";

/** What may be asked. */
export type ControlRequest = { readonly command: "status" } | { readonly command: "reload" };

/** What the answer is when something is wrong with the request itself. */
export interface ControlFailure {
  readonly error: string;
}

/** Answers a request; the result is sent as JSON. */
export type ControlHandler = (request: ControlRequest) => Promise<object> | object;

const MODE = 0o600;
/** A request is a few words. */
const MAX_REQUEST_BYTES = 4096;

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
  const listener = await listen(
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
        const connect = Bun.connect as unknown as (options: object) => Promise<unknown>;
        connect({
          fd,
          data,
          socket: { ...handlers, close: forget },
        }).catch((error: unknown) => {
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
  const command = typeof request === "object" && request !== null && "command" in request ? request.command : undefined;
  if (command !== "status" && command !== "reload") {
    return failure(`expected the command "status" or "reload", got ${JSON.stringify(command)}`);
  }
  try {
    return await handle({ command });
  } catch (error) {
    return failure(error instanceof Error ? error.message : String(error));
  }
}

/** How long a client waits for the answer; a reload loads every handler. */
const ANSWER_TIMEOUT_MS = 60_000;

/**
 * Asks a running server.
 * @throws Error saying that none answers, or what it said
 */
export async function askServer(path: string, request: ControlRequest): Promise<unknown> {
  const answered = Promise.withResolvers<string>();
  let text = "";
  const fail = (what: string, cause?: unknown) => answered.reject(new Error(`${path}: ${what}`, { cause }));
  const timer = setTimeout(() => fail(`no answer within ${ANSWER_TIMEOUT_MS / 1000} s`), ANSWER_TIMEOUT_MS);
  try {
    const socket = await Bun.connect({
      unix: path,
      socket: {
        data: (_, chunk) => void (text += Buffer.from(chunk).toString("utf8")),
        close: () => answered.resolve(text),
        error: (_, error) => fail(`the connection broke: ${error.message}`, error),
      },
    });
    socket.write(`${JSON.stringify(request)}\n`);
  } catch (error) {
    clearTimeout(timer);
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`no server answers at ${path} (server.control): ${reason}`, { cause: error });
  }
  try {
    return readAnswer(path, await answered.promise);
  } finally {
    clearTimeout(timer);
  }
}

/** @throws Error if it is none, or says that something went wrong */
function readAnswer(path: string, text: string): object {
  if (text === "") throw new Error(`${path}: the server ended the connection without an answer: it may have stopped`);
  if (!text.endsWith("\n")) throw new Error(`${path}: the answer was cut short: the server may have stopped`);
  let reply: unknown;
  try {
    reply = JSON.parse(text);
  } catch {
    // As for JSON of another kind.
  }
  if (typeof reply !== "object" || reply === null) {
    throw new Error(`${path}: expected a line of JSON, got ${JSON.stringify(text.slice(0, 80))}: this is no pmilter`);
  }
  if ("error" in reply) throw new Error(String(reply.error));
  return reply;
}
