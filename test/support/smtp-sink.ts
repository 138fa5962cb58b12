/**
 * An SMTP server that accepts and keeps every message, to see what an MTA delivered, byte for byte. It refuses nothing
 * but commands out of order, knows no TLS, and is not for use as a relay or under load: messages stay in memory.
 */
import { createServer, type AddressInfo, type Socket } from "node:net";
import { PATIENCE_MS } from "./temp.ts";

export interface SinkRecipient {
  /** Without angle brackets. */
  readonly address: string;
  readonly params: Readonly<Record<string, string>>;
}

export interface SinkMessage {
  readonly helo: string;
  /** Without angle brackets; "" is the null sender. */
  readonly from: string;
  /** By upper-case keyword; "" for a keyword without a value. */
  readonly fromParams: Readonly<Record<string, string>>;
  readonly to: readonly SinkRecipient[];
  /** As sent, without the doubled dots and the final dot. */
  readonly data: Uint8Array;
  /** The same, one character per byte. */
  readonly text: string;
}

export interface SmtpSink extends AsyncDisposable {
  readonly port: number;
  /** All messages so far, oldest first. */
  readonly messages: readonly SinkMessage[];
  /**
   * The oldest message that `next` has not returned yet; waits for it, by default for 20 000 ms, then throws. Several
   * waits at once are served in the order they were made.
   */
  next(options?: { readonly timeoutMs?: number }): Promise<SinkMessage>;
}

/** Starts a sink on an ephemeral port of 127.0.0.1; on dispose it drops its connections. */
export async function startSmtpSink(): Promise<SmtpSink> {
  const messages: SinkMessage[] = [];
  const waiting: ((message: SinkMessage) => void)[] = [];
  const sockets = new Set<Socket>();
  let returned = 0;

  function deliver(message: SinkMessage): void {
    messages.push(message);
    const wake = waiting.shift();
    if (wake === undefined) return;
    returned++;
    wake(message);
  }

  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    // A client that resets its connection is none of the sink's business.
    socket.on("error", () => socket.destroy());
    serve(socket, deliver);
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });

  return {
    port: (server.address() as AddressInfo).port,
    messages,
    async next({ timeoutMs = PATIENCE_MS } = {}) {
      const ready = messages[returned];
      if (ready !== undefined) {
        returned++;
        return ready;
      }
      const { promise, resolve, reject } = Promise.withResolvers<SinkMessage>();
      waiting.push(resolve);
      const timer = setTimeout(() => {
        waiting.splice(waiting.indexOf(resolve), 1);
        reject(new Error(`no message after ${timeoutMs} ms; ${messages.length} came before`));
      }, timeoutMs);
      try {
        return await promise;
      } finally {
        clearTimeout(timer);
      }
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

interface Envelope {
  readonly from: string;
  readonly fromParams: Record<string, string>;
  readonly to: SinkRecipient[];
}

const EXTENSIONS = ["sink.example.test", "PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"];
const LONGEST_LINE = 65_536;
const END_OF_DATA = Buffer.from("\r\n.\r\n");
const CRLF = Buffer.from("\r\n");

/** One connection: commands by the line, and after DATA bytes up to CRLF "." CRLF. */
function serve(socket: Socket, deliver: (message: SinkMessage) => void): void {
  let helo = "";
  let envelope: Envelope | undefined;
  let line: Buffer = Buffer.alloc(0);
  /** Pieces of the message being received, after an invented CRLF; undefined between messages. */
  let pieces: Buffer[] | undefined;

  reply("220 sink.example.test ESMTP");
  socket.on("data", (chunk: Buffer) => {
    let rest: Buffer | undefined = chunk;
    while (rest !== undefined && rest.length > 0) rest = pieces === undefined ? takeLine(rest) : takeData(rest);
  });

  function reply(text: string): void {
    socket.write(`${text}\r\n`);
  }

  function takeLine(bytes: Buffer): Buffer | undefined {
    // Only the last byte of the part before can belong to a CRLF that is cut in two.
    const from = Math.max(0, line.length - 1);
    line = line.length === 0 ? bytes : Buffer.concat([line, bytes]);
    const end = line.indexOf(CRLF, from);
    if (end < 0) {
      if (line.length > LONGEST_LINE) socket.destroy();
      return undefined;
    }
    const text = line.toString("utf8", 0, end);
    const rest = line.subarray(end + 2);
    line = Buffer.alloc(0);
    command(text);
    return rest;
  }

  /** Looks for the end in the new bytes and the four before them only, so a long message costs O(n). */
  function takeData(bytes: Buffer): Buffer | undefined {
    const kept = pieces!;
    const tail = tailOf(kept, END_OF_DATA.length - 1);
    const seam = Buffer.concat([tail, bytes.subarray(0, END_OF_DATA.length - 1)]).indexOf(END_OF_DATA);
    const at = seam >= 0 ? seam - tail.length : bytes.indexOf(END_OF_DATA);
    if (seam < 0 && at < 0) {
      kept.push(bytes);
      return undefined;
    }
    kept.push(bytes.subarray(0, at + END_OF_DATA.length));
    const all = Buffer.concat(kept);
    // Without the invented CRLF in front and the dot's line behind.
    const data = unstuffDots(all.subarray(0, all.length - 3)).subarray(2);
    const { from, fromParams, to } = envelope!;
    envelope = undefined;
    pieces = undefined;
    deliver({
      helo,
      from,
      fromParams,
      to,
      data,
      get text() {
        return Buffer.from(data.buffer, data.byteOffset, data.length).toString("latin1");
      },
    });
    reply("250 2.0.0 kept");
    return bytes.subarray(at + END_OF_DATA.length);
  }

  function command(text: string): void {
    const [verb = ""] = text.split(" ", 1);
    const path = /^(?:MAIL FROM|RCPT TO): *(<(?:"(?:[^"\\]|\\.)*"|[^">])*>)(?: +(.*))?$/i.exec(text);
    const address = path?.[1]?.slice(1, -1);
    switch (verb.toUpperCase()) {
      case "EHLO":
      case "HELO":
        helo = text.slice(verb.length + 1);
        envelope = undefined;
        reply(
          verb.toUpperCase() === "HELO"
            ? "250 sink.example.test"
            : EXTENSIONS.map((each, i) => `250${i < EXTENSIONS.length - 1 ? "-" : " "}${each}`).join("\r\n"),
        );
        return;
      case "MAIL":
        if (envelope !== undefined) return reply("503 5.5.1 nested MAIL");
        if (address === undefined) return reply("501 5.5.4 MAIL FROM:<address>");
        envelope = { from: address, fromParams: params(path?.[2]), to: [] };
        return reply("250 2.1.0 ok");
      case "RCPT":
        if (envelope === undefined) return reply("503 5.5.1 RCPT before MAIL");
        if (address === undefined) return reply("501 5.5.4 RCPT TO:<address>");
        envelope.to.push({ address, params: params(path?.[2]) });
        return reply("250 2.1.5 ok");
      case "DATA":
        if (envelope === undefined || envelope.to.length === 0) return reply("503 5.5.1 DATA before RCPT");
        // The end may come at once, without a line before it: the CRLF of DATA counts as the one before the dot.
        pieces = [CRLF];
        return reply("354 go on");
      case "RSET":
        envelope = undefined;
        return reply("250 2.0.0 ok");
      case "NOOP":
        return reply("250 2.0.0 ok");
      case "VRFY":
        return reply("252 2.0.0 perhaps");
      case "QUIT":
        socket.end("221 2.0.0 bye\r\n");
        return;
      default:
        return reply("502 5.5.2 unknown command");
    }
  }
}

function params(text: string | undefined): Record<string, string> {
  const pairs = (text ?? "").split(" ").filter((word) => word !== "");
  return Object.fromEntries(
    pairs.map((word) => {
      const [keyword = "", ...value] = word.split("=");
      return [keyword.toUpperCase(), value.join("=")];
    }),
  );
}

/** The last `length` bytes of a list of pieces, or all if there are fewer. */
function tailOf(pieces: readonly Buffer[], length: number): Buffer {
  const tail: Buffer[] = [];
  for (let i = pieces.length - 1, need = length; i >= 0 && need > 0; i--) {
    const part = pieces[i]!.subarray(-need);
    tail.unshift(part);
    need -= part.length;
  }
  return Buffer.concat(tail);
}

function unstuffDots(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  let from = 0;
  for (let at = bytes.indexOf("\r\n."); at >= 0; at = bytes.indexOf("\r\n.", from)) {
    parts.push(bytes.subarray(from, at + 2));
    from = at + 3;
  }
  parts.push(bytes.subarray(from));
  return Buffer.concat(parts);
}
