/**
 * The writes of a Postfix for a session, encoded once for the options that a filter negotiated, with the reply that each
 * write waits for. The macros and the judgement of the answer are those of the testing kit; the writes are Postfix's:
 * commands without a reply stay in its buffer until a command with a reply is written, or until the session goes from smtpd
 * to the cleanup daemon before the headers.
 */
import { FAMILY, REPLY } from "../../src/protocol/constants.ts";
import { CommandWriter } from "../../src/protocol/commands.ts";
import { PHASES } from "../../src/protocol/phases.ts";
import { decodeReply } from "../../src/protocol/replies.ts";
import { defaultOffer, type EventPhase, isMacroStage, PHASE_COMMAND } from "../../src/testing/habits.ts";
import { MacroBook } from "../../src/testing/macros.ts";
import { judgeAnswer, type Negotiated } from "../../src/testing/negotiation.ts";

/** A write, and the single reply that is awaited after it. */
export interface Exchange {
  readonly bytes: Uint8Array;
  readonly awaits: "nothing" | "continue" | "body" | "eom";
}

export interface Traffic {
  readonly negotiated: Negotiated;
  /** CONNECT and HELO. */
  readonly start: readonly Exchange[];
  /** The first message of a session, from MAIL to the end of the message. */
  readonly first: readonly Exchange[];
  /** A later message: Postfix has an ABORT in front of it, for the transaction before. */
  readonly next: readonly Exchange[];
  /** The end of a session without a message, and of a session with messages. */
  readonly quit: Uint8Array;
  readonly quitAfterMail: Uint8Array;
}

/** How large a message is. */
export interface MailShape {
  readonly recipients: number;
  readonly headers: number;
  /** At least 2: it ends with a line break. */
  readonly bodyBytes: number;
}

export const ORDINARY_MAIL: MailShape = { recipients: 1, headers: 12, bodyBytes: 2048 };

const OFFER = defaultOffer(6);

/** The first packet of every connection. */
export const OPTNEG: Uint8Array = (() => {
  const writer = new CommandWriter();
  writer.optneg(OFFER.version, OFFER.actions, OFFER.protocol);
  return writer.copy();
})();

/** Twelve headers as mail has them; Postfix hands values over as they stand after the colon. */
const HEADERS: readonly (readonly [string, string])[] = [
  [
    "Received",
    "from mail.example.net (mail.example.net [192.0.2.25])\n\tby mx.example.com with ESMTPS id 4ZB1C23dF0z9xQ;\n\tMon, 16 Nov 2026 09:14:07 +0000 (UTC)",
  ],
  ["Received", "from [198.51.100.7] by mail.example.net with ESMTPSA; Mon, 16 Nov 2026 10:14:05 +0100"],
  [
    "DKIM-Signature",
    "v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=2026;\n\th=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\n\tb=dGhpcyBpcyBub3QgYSBzaWduYXR1cmUgYnV0IGFzIGxvbmcgYXMgaGFsZiBvZiBvbmUgaXMsIHNvIHRoYXQgdGhlIGhlYWRlciBpcw==",
  ],
  ["Message-ID", "<6f2d9c1e-7a55-4e6b-9a53-0b8c5a1de001@mail.example.net>"],
  ["Date", "Mon, 16 Nov 2026 10:14:05 +0100"],
  ["From", "Ada Lovelace <ada@example.net>"],
  ["To", "Charles Babbage <charles@example.com>"],
  ["Subject", "The engine, and what it might weave"],
  ["MIME-Version", "1.0"],
  ["Content-Type", 'text/plain; charset="utf-8"'],
  ["Content-Transfer-Encoding", "7bit"],
  ["User-Agent", "Mozilla Thunderbird"],
];

/** Postfix sends bodies in pieces of this size. */
const CHUNK_BYTES = 65_535;
const LINE = "The engine weaves algebraic patterns just as the loom weaves flowers and leaves.\r\n";

const CLIENT = { hostname: "mail.example.net", family: "inet", port: 41_234, address: "192.0.2.25" } as const;
const SENDER = "<ada@example.net>";
const QUEUE_ID = "4ZB1C23dF0z9xQ";

function recipient(index: number): string {
  return index === 0 ? "<charles@example.com>" : `<charles+${index}@example.com>`;
}

function bodyOf(bytes: number): Uint8Array {
  const body = Buffer.alloc(bytes, LINE);
  body.write("\r\n", bytes - 2);
  return body;
}

/**
 * @param answer the filter's whole OPTNEG packet
 * @throws Error if a Postfix would not take it
 */
export function trafficFor(answer: Uint8Array, mail: MailShape = ORDINARY_MAIL): Traffic {
  const reply = decodeReply(answer[4]!, answer, 5, answer.length);
  if (reply.kind !== "optneg") throw new Error(`the answer to OPTNEG is ${reply.kind}, expected optneg`);
  const negotiated = judgeAnswer("postfix", OFFER, reply);
  if (typeof negotiated === "string") throw new Error(`the answer to OPTNEG is wrong: ${negotiated}`);
  const book = new MacroBook("postfix");
  book.lists = negotiated.macros;
  book.connected(CLIENT);
  const encoder = new Encoder(negotiated, book, mail);
  const start = encoder.start();
  const first = encoder.message();
  encoder.abort();
  const next = encoder.message();
  return {
    negotiated,
    start,
    first,
    next,
    quit: packet((writer) => writer.quit()),
    quitAfterMail: packet((writer) => {
      writer.abort();
      writer.quit();
    }),
  };
}

/** The code of a final reply that lets a message or an event pass. */
export function isPass(code: number): boolean {
  return code === REPLY.CONTINUE || code === REPLY.ACCEPT;
}

function packet(write: (writer: CommandWriter) => void): Uint8Array {
  const writer = new CommandWriter();
  write(writer);
  return writer.copy();
}

class Encoder {
  readonly #negotiated: Negotiated;
  readonly #book: MacroBook;
  readonly #mail: MailShape;
  readonly #body: Uint8Array;
  readonly #writer = new CommandWriter();
  #exchanges: Exchange[] = [];

  constructor(negotiated: Negotiated, book: MacroBook, mail: MailShape) {
    this.#negotiated = negotiated;
    this.#book = book;
    this.#mail = mail;
    this.#body = bodyOf(mail.bodyBytes);
  }

  start(): Exchange[] {
    this.#event("connect", (w) => w.connect(CLIENT.hostname, FAMILY.INET, CLIENT.port, CLIENT.address));
    this.#event("helo", (w) => w.helo(CLIENT.hostname));
    return this.#taken();
  }

  message(): Exchange[] {
    const book = this.#book;
    book.mail(SENDER, undefined);
    this.#event("envfrom", (w) => w.mail(SENDER, ["SIZE=3145", "BODY=8BITMIME"]));
    for (let index = 0; index < this.#mail.recipients; index++) {
      book.rcpt(recipient(index));
      this.#event("envrcpt", (w) => w.rcpt(recipient(index)));
    }
    book.queueId = QUEUE_ID;
    this.#event("data", (w) => w.data());
    this.#flush("nothing");
    const space = this.#negotiated.leadingSpace ? " " : "";
    for (let index = 0; index < this.#mail.headers; index++) {
      const [name, value] = HEADERS[index % HEADERS.length]!;
      this.#event("header", (w) => w.header(name, space + value));
    }
    this.#event("eoh", (w) => w.eoh());
    for (let at = 0; at < this.#body.length; at += CHUNK_BYTES) {
      this.#event("body", (w) => w.body(this.#body.subarray(at, at + CHUNK_BYTES)), "body");
    }
    this.#event("eom", (w) => w.bodyeob(), "eom");
    return this.#taken();
  }

  /** Waits in the buffer for the next write. */
  abort(): void {
    this.#writer.abort();
  }

  /** Postfix sends macros before every event, of content events only if it sends these. */
  #event(phase: EventPhase, write: (writer: CommandWriter) => void, awaits: Exchange["awaits"] = "continue"): void {
    const { no, nr, content } = PHASES[phase];
    const { protocol } = this.#negotiated;
    const isOff = no !== 0 && (protocol & no) !== 0;
    if (isOff && content) return;
    this.#writer.macro(PHASE_COMMAND[phase], isMacroStage(phase) ? this.#book.at(phase) : []);
    if (isOff) return;
    write(this.#writer);
    if (nr === 0 || (protocol & nr) === 0) this.#flush(awaits);
  }

  #flush(awaits: Exchange["awaits"]): void {
    if (this.#writer.length === 0) return;
    this.#exchanges.push({ bytes: this.#writer.copy(), awaits });
    this.#writer.clear();
  }

  /** The rest of the buffer is sent with the next write. */
  #taken(): Exchange[] {
    const taken = this.#exchanges;
    this.#exchanges = [];
    return taken;
  }
}
