/**
 * The server's side of the control socket: reads requests and writes answers. Requests are carried out by the server. The
 * socket's file has mode 0600 from its first moment on: a user who may open it may command the server.
 */
import type { Socket } from "bun";
import { toError } from "../../errors.ts";
import { adopt } from "../../net/adopt.ts";
import { close, shutdown } from "../../net/libc.ts";
import { readConfigurationFile } from "../files/configuration-file.ts";
import { openListener, type Listener } from "../listening/listener.ts";
import { Reachable } from "../listening/reachable.ts";
import type { ControlFailure, ControlRequest } from "./control.ts";

/** Answers a request; the result is sent as JSON. */
export type ControlHandler = (request: ControlRequest) => Promise<object> | object;

const MODE = 0o600;
/** A request is a few words and two paths. */
const MAX_REQUEST_BYTES = 16_384;

/** Maximum number of connections, and maximum time of each for its request. */
const MAX_OPEN = 16;
const REQUEST_TIMEOUT_MS = 10_000;

/** @throws ListenError */
export async function listenForControl(
  path: string,
  handle: ControlHandler,
  onError: (error: Error) => void,
): Promise<Listener> {
  // An administrator may need the status most when the server has no descriptors left.
  const reachable = new Reachable();
  const requests = new Requests(handle, onError);
  const options = {
    mode: MODE,
    uid: null,
    gid: null,
    backlog: 8,
    onError,
    duplicate: (fd: number) => reachable.dup(fd),
    onConnection: ({ fd }: { readonly fd: number }) => requests.accept(fd),
  };
  try {
    return reachable.watch(await openListener({ kind: "unix", path }, options));
  } catch (error) {
    reachable.close();
    throw error;
  }
}

/** A control connection. */
interface Exchange {
  text: string;
  /** The request is complete; its answer may take its time. */
  isAsked: boolean;
  /** Ends the connection. */
  end(): void;
}

class Requests {
  readonly #onError: (error: Error) => void;
  readonly #handlers: object;
  /** The open connections, oldest first. */
  readonly #open = new Set<Exchange>();

  constructor(handle: ControlHandler, onError: (error: Error) => void) {
    this.#onError = onError;
    this.#handlers = {
      data: (socket: Socket<Exchange>, chunk: Uint8Array) => read(socket, chunk, handle),
      error: (_: Socket<Exchange>, error: Error) => onError(error),
      drain() {},
    };
  }

  /** @param fd of a connection, to be closed here */
  accept(fd: number): void {
    this.#makeRoom();
    const exchange: Exchange = { text: "", isAsked: false, end: () => shutdown(fd, "both") };
    this.#open.add(exchange);
    const timer = setTimeout(() => {
      if (!exchange.isAsked) exchange.end();
    }, REQUEST_TIMEOUT_MS);
    // Once it is closed, its number may belong to another file.
    const forget = () => {
      clearTimeout(timer);
      this.#open.delete(exchange);
    };
    adopt({ fd, data: exchange, socket: { ...this.#handlers, close: forget } }).catch((error: unknown) => {
      close(fd);
      forget();
      this.#onError(toError(error));
    });
  }

  /** A client without a request is not waited for, and keeps no other client out: descriptors are for mail. */
  #makeRoom(): void {
    if (this.#open.size < MAX_OPEN) return;
    const [oldest] = [...this.#open].toSorted((a, b) => Number(a.isAsked) - Number(b.isAsked));
    this.#open.delete(oldest!);
    oldest!.end();
  }
}

/** Takes bytes of a request, and answers it once it is complete. */
function read(socket: Socket<Exchange>, chunk: Uint8Array, handle: ControlHandler): void {
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
