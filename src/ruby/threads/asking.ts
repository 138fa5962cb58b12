/** A script's side of its questions: it stands still until the worker has replied. Other scripts have threads of their own. */
import { receiveMessageOnPort } from "node:worker_threads";
import { SessionMistake } from "../run.ts";
import type { Question, Reply } from "./questions.ts";

export class Asking {
  readonly #port: MessagePort;
  readonly #replies: Int32Array;
  readonly #raise: (message: string) => never;

  /** @param raise throws an exception of Ruby */
  constructor(port: MessagePort, replies: SharedArrayBuffer, raise: (message: string) => never) {
    this.#port = port;
    this.#replies = new Int32Array(replies);
    this.#raise = raise;
  }

  ask(question: Question): unknown {
    const before = Atomics.load(this.#replies, 0);
    this.#port.postMessage(question);
    for (;;) {
      const received = receiveMessageOnPort(this.#port as never) as { readonly message: Reply } | undefined;
      if (received === undefined) {
        Atomics.wait(this.#replies, 0, before);
        continue;
      }
      const reply = received.message;
      if ("value" in reply) return reply.value;
      if (reply.isRuby) this.#raise(reply.error.message);
      throw new SessionMistake(reply.error);
    }
  }
}
