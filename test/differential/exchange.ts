/**
 * A whole stream to a filter, and all that it answers until it closes: no waiting for silence. The stream is written at
 * once, and its end is known to the filter then or when all replies have come.
 */
import { isFinal, parseReplies } from "./commands.ts";

export interface Answered {
  readonly bytes: Buffer;
  /** It closed while bytes of the stream were unread. */
  readonly isReset: boolean;
}

const TIMEOUT_MS = 20_000;

/**
 * @param end when to end the stream: at once, when so many final replies have come, or never (behind a QUIT). pmilter sends
 *   nothing more to a mail server that is gone, while libmilter sees the end last
 * @throws Error if it does not close in time
 */
export async function exchange(path: string, stream: Uint8Array, end: "now" | "never" | number): Promise<Answered> {
  const chunks: Buffer[] = [];
  let isReset = false;
  let sent = 0;
  const over = Promise.withResolvers<void>();
  const write = (socket: Bun.Socket): void => {
    const taken = socket.write(stream, sent, stream.length - sent);
    if (taken > 0) sent += taken;
    if (sent === stream.length && end === "now") socket.shutdown();
  };
  const socket = await Bun.connect({
    unix: path,
    allowHalfOpen: true,
    socket: {
      open: write,
      drain(socket) {
        if (sent < stream.length) write(socket);
      },
      data(socket, chunk) {
        chunks.push(Buffer.from(chunk));
        if (typeof end !== "number") return;
        if (parseReplies(Buffer.concat(chunks), true).filter(isFinal).length >= end) socket.shutdown();
      },
      end(socket) {
        socket.end();
        over.resolve();
      },
      close: () => over.resolve(),
      error() {
        isReset = true;
        over.resolve();
      },
    },
  } as Bun.UnixSocketOptions<undefined>);
  const timer = setTimeout(() => over.reject(new Error(`still open after ${TIMEOUT_MS} ms`)), TIMEOUT_MS);
  try {
    await over.promise;
  } finally {
    clearTimeout(timer);
    socket.terminate();
  }
  return { bytes: Buffer.concat(chunks), isReset };
}

/** Runs `work` for each item, `count` at a time. */
export async function pooled<T>(items: readonly T[], count: number, work: (item: T) => Promise<void>): Promise<void> {
  const left = items.values();
  const run = async (): Promise<void> => {
    for (const item of left) await work(item);
  };
  await Promise.all(Array.from({ length: count }, run));
}
