/**
 * A scripted filter in memory, on the other end of a Transport. It frames and encodes by hand, so that the tests do not
 * trust the code under test.
 */
import type { Transport } from "../../src/testing/transport.ts";

/** A packet with that code letter and payload. */
export function packet(code: string, ...payload: readonly (string | number | Uint8Array)[]): Buffer {
  const parts = payload.map((part) => {
    if (typeof part === "string") return Buffer.from(part, "latin1");
    if (typeof part !== "number") return Buffer.from(part);
    const word = Buffer.alloc(4);
    word.writeUInt32BE(part);
    return word;
  });
  const body = Buffer.concat([Buffer.from(code, "latin1"), ...parts]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(body.length);
  return Buffer.concat([length, body]);
}

export const CONTINUE = packet("c");

/** The answer to OPTNEG; lists as [stage, names]. */
export function optneg(protocol = 0, actions = 0x1ff, lists: readonly (readonly [number, string])[] = []): Buffer {
  return packet("O", 6, actions, protocol, ...lists.flatMap(([stage, names]) => [stage, `${names}\0`]));
}

export interface Command {
  readonly code: string;
  /** Payload as latin1 text. */
  readonly payload: string;
}

/** What the filter sends upon a command; undefined gives the usual: CONTINUE, or nothing where no reply is due. */
export type Script = (command: Command, filter: FakeFilter) => Uint8Array | undefined;

export class FakeFilter implements Transport {
  onData: (bytes: Uint8Array) => void = () => undefined;
  onClose: (error: Error | undefined) => void = () => undefined;
  readonly commands: Command[] = [];
  /** The commands of each write, as code letters. */
  readonly writes: string[] = [];
  isClosed = false;
  readonly #script: Script;

  constructor(script: Script = () => undefined) {
    this.#script = script;
  }

  /** All commands since OPTNEG as text: the code letter, and the payload with `|` for NUL. */
  get transcript(): string[] {
    return this.commands.slice(1).map(({ code, payload }) => code + payload.replaceAll("\0", "|"));
  }

  /** The code letters of all commands since OPTNEG. */
  get letters(): string {
    return this.commands
      .slice(1)
      .map((command) => command.code)
      .join("");
  }

  send(bytes: Uint8Array): void {
    if (this.isClosed) return;
    const all = Buffer.from(bytes);
    const commands: Command[] = [];
    for (let at = 0; at < all.length;) {
      const end = at + 4 + all.readUInt32BE(at);
      commands.push({ code: String.fromCharCode(all[at + 4]!), payload: all.toString("latin1", at + 5, end) });
      at = end;
    }
    this.commands.push(...commands);
    this.writes.push(commands.map((command) => command.code).join(""));
    for (const command of commands) {
      const reply = this.#script(command, this) ?? usualReply(command.code);
      if (reply.length > 0) queueMicrotask(() => this.reply(reply));
    }
  }

  reply(bytes: Uint8Array): void {
    if (!this.isClosed) this.onData(bytes);
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    queueMicrotask(() => this.onClose(undefined));
  }
}

/** Nothing is sent. */
export const SILENCE = Buffer.alloc(0);

function usualReply(code: string): Buffer {
  if (code === "O") return optneg();
  return "DAQK".includes(code) ? SILENCE : CONTINUE;
}

/** A script from replies by code letter; a list gives its entries one after the other, then the usual reply. */
export function script(replies: Readonly<Record<string, Uint8Array | readonly Uint8Array[]>>): Script {
  const counts = new Map<string, number>();
  return ({ code }) => {
    const reply = replies[code];
    if (reply === undefined || reply instanceof Uint8Array) return reply;
    const count = counts.get(code) ?? 0;
    counts.set(code, count + 1);
    return reply[count];
  };
}
