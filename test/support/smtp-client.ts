/**
 * A small strict SMTP client over TCP, for tests that want to see each reply. Not a mail submission library: no TLS, no
 * AUTH, no retries, no fixing of what it is given. A refusal is a returned reply; only a broken server or a timeout
 * throws.
 */
import { PATIENCE_MS } from "./temp.ts";

export interface Reply {
  /** 0 when the server closed the connection without a reply. */
  readonly code: number;
  /** The text of each line, without code and separator. */
  readonly lines: readonly string[];
  /** The lines joined with "\n". */
  readonly text: string;
}

export interface SmtpClientOptions {
  readonly port: number;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** For each wait on the server, milliseconds, default 20 000. */
  readonly timeoutMs?: number;
}

/** What XCLIENT replaces; each is sent as given, `[UNAVAILABLE]` included. */
export interface XclientAttributes {
  /** IPv4, or IPv6 with or without the `IPV6:` prefix. */
  readonly addr?: string;
  readonly name?: string;
  readonly helo?: string;
  /** The name that the client has authenticated as. */
  readonly login?: string;
}

/** Connects and reads the greeting (`client.greeting`), whatever its code. Throws when nobody listens. */
export async function connectSmtp(options: SmtpClientOptions): Promise<SmtpClient> {
  const wire = new Wire(options.timeoutMs ?? PATIENCE_MS);
  await Bun.connect({
    hostname: options.host ?? "127.0.0.1",
    port: options.port,
    socket: {
      open: (socket) => wire.attach(socket),
      data: (_socket, bytes) => wire.received(bytes),
      drain: () => wire.flush(),
      close: () => wire.closed(),
      error: () => wire.closed(),
    },
  });
  try {
    return new SmtpClient(wire, await wire.reply("the greeting"));
  } catch (error) {
    await wire.close();
    throw error;
  }
}

export class SmtpClient implements AsyncDisposable {
  readonly greeting: Reply;
  readonly #wire: Wire;

  /** Use {@link connectSmtp}. */
  constructor(wire: Wire, greeting: Reply) {
    this.#wire = wire;
    this.greeting = greeting;
  }

  get isClosed(): boolean {
    return this.#wire.isClosed;
  }

  /**
   * Sends one line (UTF-8, without its CRLF) and reads its reply. A 421 that the server sent on its own before is
   * returned as the reply; any other reply nobody asked for throws.
   */
  async command(line: string): Promise<Reply> {
    if (/[\r\n]/.test(line)) throw new Error(`a command is one line: ${JSON.stringify(line)}`);
    const early = this.#wire.unsolicited();
    if (early !== undefined) return early;
    this.#wire.write(Buffer.from(`${line}\r\n`, "utf8"));
    return await this.#wire.reply(`the reply to ${shorten(line)}`);
  }

  async helo(name: string): Promise<Reply> {
    return await this.command(`HELO ${name}`);
  }

  async ehlo(name: string): Promise<Reply> {
    return await this.command(`EHLO ${name}`);
  }

  /** `from` without angle brackets ("" is the null sender); `params` as in `"BODY=8BITMIME SIZE=100"`. */
  async mail(from: string, params = ""): Promise<Reply> {
    return await this.command(`MAIL FROM:<${from}>${params === "" ? "" : ` ${params}`}`);
  }

  /** `to` without angle brackets. */
  async rcpt(to: string, params = ""): Promise<Reply> {
    return await this.command(`RCPT TO:<${to}>${params === "" ? "" : ` ${params}`}`);
  }

  /** DATA and, if the server said 354, the message. Returns the refusal of DATA or the final reply. */
  async data(raw: string | Uint8Array): Promise<Reply> {
    const reply = await this.command("DATA");
    return reply.code === 354 ? await this.content(raw) : reply;
  }

  /**
   * The message after a 354: the bytes as given (a string is latin1, one character per byte), with a dot doubled after
   * each CRLF, and not after a bare LF; a CRLF is added at the end if there is none.
   */
  async content(raw: string | Uint8Array): Promise<Reply> {
    for (const piece of stuffDots(toBytes(raw))) this.#wire.write(piece);
    return await this.#wire.reply("the reply to the end of the message");
  }

  async rset(): Promise<Reply> {
    return await this.command("RSET");
  }

  /** Gives the session another client address, name or HELO. Postfix answers with a new greeting; greet it again. */
  async xclient({ addr, name, helo, login }: XclientAttributes): Promise<Reply> {
    const parts = ["XCLIENT"];
    if (addr !== undefined) {
      parts.push(`ADDR=${xtext(addr.includes(":") && !/^ipv6:/i.test(addr) ? `IPV6:${addr}` : addr)}`);
    }
    if (name !== undefined) parts.push(`NAME=${xtext(name)}`);
    if (helo !== undefined) parts.push(`HELO=${xtext(helo)}`);
    if (login !== undefined) parts.push(`LOGIN=${xtext(login)}`);
    return await this.command(parts.join(" "));
  }

  /** QUIT, then waits until the server has closed. */
  async quit(): Promise<Reply> {
    const reply = await this.command("QUIT");
    await this.#wire.whenClosed("the server to close after QUIT");
    return reply;
  }

  /** For pipelining and for what `command` refuses: bytes as given, no reply awaited. */
  write(raw: string | Uint8Array): void {
    this.#wire.write(toBytes(raw));
  }

  /** The next reply, after {@link write}. */
  async read(): Promise<Reply> {
    return await this.#wire.reply("a reply");
  }

  /** Drops the connection, without QUIT. */
  async close(): Promise<void> {
    await this.#wire.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

export interface SendMailOptions extends SmtpClientOptions {
  /** Default "client.example.test"; sent with EHLO. */
  readonly helo?: string;
  readonly from: string;
  readonly to: string | readonly string[];
  readonly message: string | Uint8Array;
  readonly mailParams?: string;
  readonly rcptParams?: string;
  /** Sent after a first EHLO; EHLO is then repeated. */
  readonly xclient?: XclientAttributes;
}

/** The reply to each step that was reached. */
export interface SendMailResult {
  readonly greeting: Reply;
  readonly xclient?: Reply;
  readonly helo?: Reply;
  readonly mail?: Reply;
  /** In the order of `to`; shorter when the server hung up. */
  readonly rcpt: readonly Reply[];
  /** 354, or the refusal of DATA. */
  readonly data?: Reply;
  /** To the end of the message. */
  readonly end?: Reply;
  readonly accepted: boolean;
  /** What decided: the final reply, or that of the step which was refused (the last recipient's when all were). */
  readonly last: Reply;
}

type Steps = { -readonly [Step in keyof Omit<SendMailResult, "accepted" | "last" | "rcpt">]: SendMailResult[Step] };

/** One message on one connection, up to the step that is refused, then QUIT. Refused recipients are passed over. */
export async function sendMail(options: SendMailOptions): Promise<SendMailResult> {
  await using client = await connectSmtp(options);
  const steps: Steps = { greeting: client.greeting };
  const rcpt: Reply[] = [];
  const last = await run();
  if (!client.isClosed && last.code !== 421 && last.code !== 0) await client.quit();
  return { ...steps, rcpt, last, accepted: steps.end !== undefined && isPositive(steps.end) };

  async function run(): Promise<Reply> {
    const name = options.helo ?? "client.example.test";
    if (!isPositive(steps.greeting)) return steps.greeting;
    steps.helo = await client.ehlo(name);
    if (!isPositive(steps.helo)) return steps.helo;
    if (options.xclient !== undefined) {
      steps.xclient = await client.xclient(options.xclient);
      if (!isPositive(steps.xclient)) return steps.xclient;
      steps.helo = await client.ehlo(name);
      if (!isPositive(steps.helo)) return steps.helo;
    }
    steps.mail = await client.mail(options.from, options.mailParams);
    if (!isPositive(steps.mail)) return steps.mail;
    for (const address of typeof options.to === "string" ? [options.to] : options.to) {
      const reply = await client.rcpt(address, options.rcptParams);
      rcpt.push(reply);
      if (reply.code === 421 || reply.code === 0) return reply;
    }
    if (!rcpt.some(isPositive)) return rcpt.at(-1) ?? steps.mail;
    steps.data = await client.command("DATA");
    if (steps.data.code !== 354) return steps.data;
    steps.end = await client.content(options.message);
    return steps.end;
  }
}

/** A connection seen as replies in and bytes out. */
class Wire {
  readonly #timeoutMs: number;
  readonly #closing = Promise.withResolvers<void>();
  readonly #replies: Reply[] = [];
  readonly #unsent: Uint8Array[] = [];
  #socket: Bun.Socket | undefined;
  #unparsed: Buffer = Buffer.alloc(0);
  #lines: string[] = [];
  #failure: Error | undefined;
  #wake: (() => void) | undefined;
  isClosed = false;

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs;
  }

  attach(socket: Bun.Socket): void {
    this.#socket = socket;
    this.flush();
  }

  received(bytes: Uint8Array): void {
    // Buffer.concat copies, so nothing of the runtime's own receive buffer is kept.
    this.#unparsed = Buffer.concat([this.#unparsed, bytes]);
    for (;;) {
      const end = this.#unparsed.indexOf("\r\n");
      if (end < 0) break;
      this.#line(this.#unparsed.toString("utf8", 0, end));
      this.#unparsed = this.#unparsed.subarray(end + 2);
    }
    this.#wake?.();
  }

  #line(line: string): void {
    const parts = /^([2-5]\d\d)(?:([ -])([^\r\n]*))?$/.exec(line);
    const first = this.#lines[0];
    if (parts === null || (first !== undefined && !line.startsWith(first.slice(0, 3)))) {
      this.#failure ??= new Error(
        `not an SMTP reply line: ${JSON.stringify(line)} after ${JSON.stringify(this.#lines)}`,
      );
      return;
    }
    this.#lines.push(line);
    if (parts[2] === "-") return;
    const lines = this.#lines.map((each) => each.slice(4));
    this.#replies.push({ code: Number(parts[1]), lines, text: lines.join("\n") });
    this.#lines = [];
  }

  closed(): void {
    this.isClosed = true;
    this.#unsent.length = 0;
    this.#closing.resolve();
    this.#wake?.();
  }

  /** Queues what the socket does not take at once; after the server closed, bytes are dropped and reply() tells. */
  write(bytes: Uint8Array): void {
    if (this.isClosed || bytes.length === 0) return;
    this.#unsent.push(bytes);
    if (this.#unsent.length === 1) this.flush();
  }

  flush(): void {
    while (this.#socket !== undefined && this.#unsent.length > 0) {
      const next = this.#unsent[0]!;
      const taken = Math.max(0, this.#socket.write(next));
      if (taken < next.length) {
        this.#unsent[0] = next.subarray(taken);
        return;
      }
      this.#unsent.shift();
    }
  }

  unsolicited(): Reply | undefined {
    const early = this.#replies.shift();
    if (early === undefined || early.code === 421) return early;
    throw new Error(`a reply that nobody asked for: ${early.code} ${early.text}`);
  }

  async reply(what: string): Promise<Reply> {
    const deadline = performance.now() + this.#timeoutMs;
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure;
      const reply = this.#replies.shift();
      if (reply !== undefined) return reply;
      if (this.isClosed) {
        const text = `(the server closed the connection instead of ${what})`;
        return { code: 0, lines: [text], text };
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      await within(promise, deadline - performance.now(), `${what}, ${this.#timeoutMs} ms`);
    }
  }

  async whenClosed(what: string): Promise<void> {
    await within(this.#closing.promise, this.#timeoutMs, what);
  }

  async close(): Promise<void> {
    if (this.isClosed || this.#socket === undefined) return;
    this.#socket.terminate();
    await this.whenClosed("our own close");
  }
}

async function within(promise: Promise<void>, timeoutMs: number, what: string): Promise<void> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`timed out waiting for ${what}`)), timeoutMs);
  try {
    await Promise.race([promise, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}

function isPositive(reply: Reply): boolean {
  return reply.code >= 200 && reply.code < 300;
}

function toBytes(raw: string | Uint8Array): Buffer {
  if (typeof raw !== "string") return Buffer.from(raw.buffer, raw.byteOffset, raw.byteLength);
  // oxlint-disable-next-line no-control-regex -- the range of one byte is what is meant
  if (/[^\x00-\xff]/.test(raw))
    throw new Error("a message string is latin1, one character per byte; pass UTF-8 as bytes");
  return Buffer.from(raw, "latin1");
}

/** Views of `message` with the extra dots and the final CRLF "." CRLF between them; nothing long is copied. */
function* stuffDots(message: Buffer): Generator<Uint8Array> {
  const dot = Buffer.from(".");
  if (message[0] === 0x2e) yield dot;
  let from = 0;
  for (let at = message.indexOf("\r\n."); at >= 0; at = message.indexOf("\r\n.", at + 2)) {
    yield message.subarray(from, at + 2);
    yield dot;
    from = at + 2;
  }
  yield message.subarray(from);
  const endsLine = message.length === 0 || message.subarray(-2).equals(Buffer.from("\r\n"));
  yield Buffer.from(endsLine ? ".\r\n" : "\r\n.\r\n");
}

/** RFC 3461 section 4: "+" and "=" and all but printable ASCII as +XX. */
function xtext(value: string): string {
  return Buffer.from(value, "utf8")
    .toString("latin1")
    .replaceAll(/[^!-~]|[+=]/g, (byte) => `+${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`);
}

function shorten(line: string): string {
  return JSON.stringify(line.length > 200 ? `${line.slice(0, 200)}…` : line);
}
