/**
 * The server's control socket, kept where commands look for it: when a link in its path is turned, or its file is removed, it
 * is made again. Without it no command can reach the server; mail is served all the same.
 */
import type { LogLevel } from "../../admin/log-level.ts";
import { type ControlHandler, listenForControl } from "./requests.ts";
import { toError } from "../../errors.ts";
import type { Listener } from "../listening/listener.ts";
import { CONTROL_RETRY_MS } from "../policy.ts";

export class ControlSocket {
  readonly #path: string;
  readonly #handle: ControlHandler;
  readonly #log: (level: LogLevel, text: string, of?: string) => void;
  #listener: Listener | null = null;
  /** While it is being made again. */
  #isOpening = false;
  /** When it may be made again, on the clock of `performance.now()`. */
  #tryAt = 0;
  /** Why it could not be made again when that was last tried; "" if it could. */
  #reason = "";
  #isClosed = false;

  constructor(path: string, handle: ControlHandler, log: (level: LogLevel, text: string, of?: string) => void) {
    this.#path = path;
    this.#handle = handle;
    this.#log = log;
  }

  /** Makes it; a failure is logged. */
  async open(): Promise<void> {
    try {
      await this.#listen();
    } catch (error) {
      this.#warn(toError(error).message);
    }
  }

  /** To be called several times a second: makes it again if its path does not lead to it any more. */
  look(): void {
    if (this.#isOpening || this.#listener === null || this.#listener.isReachable()) return;
    const now = performance.now();
    if (now < this.#tryAt) return;
    this.#tryAt = now + CONTROL_RETRY_MS;
    this.#isOpening = true;
    void this.#openAgain().finally(() => (this.#isOpening = false));
  }

  close(): void {
    this.#isClosed = true;
    this.#listener?.close({ unlink: true });
  }

  async #openAgain(): Promise<void> {
    const before = this.#listener;
    try {
      await this.#listen();
      before?.close({ unlink: true });
      this.#reason = "";
      this.#log("notice", `server.control: ${this.#path} did not lead to this server any more, and was made again`);
    } catch (error) {
      const reason = toError(error).message;
      if (reason !== this.#reason) this.#warn(`the socket was removed or replaced: ${reason}`);
      this.#reason = reason;
    }
  }

  /** @throws ListenError */
  async #listen(): Promise<void> {
    const listener = await listenForControl(this.#path, this.#handle, (error) =>
      this.#log("warn", `server.control: ${error.message}`, "server.control"),
    );
    if (this.#isClosed) listener.close({ unlink: true });
    else this.#listener = listener;
  }

  #warn(reason: string): void {
    this.#log("warn", `server.control: ${reason}; pmilter status and reload cannot reach this server`);
  }
}
