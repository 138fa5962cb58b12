/**
 * Input that makes the server work: what a mail or a peer can make long may not make one connection hold up the others.
 * What is expected is how the work grows, see `expectGrowth`.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { reject } from "../../src/index.ts";
import { formatLogLine } from "../../src/admin/log.ts";
import { decodeText, encodeText } from "../../src/protocol/bytes.ts";
import { Framer } from "../../src/protocol/framer.ts";
import { logLine } from "../../src/handler/log-lines.ts";
import { type AnyFilter, Line, settled } from "../handler/harness.ts";
import { cmd } from "../protocol/wire.ts";
import { amountsOf, expectGrowth, NOT_AT_ALL, WITH_THE_SQUARE } from "../support/growth.ts";
import { numbers } from "./measure.ts";

setDefaultTimeout(120_000);

const WIDE = { limits: { headers: 20_000, headerBytes: 1 << 24, recipients: 20_000 } };

describe("decodeText of invalid UTF-8", () => {
  const sender = Buffer.from([0xe2, 0x82, 0xc3, 0xf0, 0x9f, 0x98]);

  test.each<[string, (size: number) => Uint8Array]>([
    ["leads without their continuation", (size) => Buffer.alloc(size, 0xc3)],
    ["sequences cut short", (size) => Buffer.alloc(size, sender)],
    ["bytes that are never UTF-8", (size) => Buffer.alloc(size, 0xff)],
    ["Latin-1", (size) => Buffer.alloc(size, Buffer.from("Gr\xfc\xdfe aus M\xfcnchen ", "latin1"))],
    ["valid text behind one U+FFFD", (size) => Buffer.concat([Buffer.from("\ufffd"), Buffer.alloc(size, "a")])],
    ["nothing but U+FFFD", (size) => Buffer.alloc(size, "\ufffd")],
  ])("%s, there and back: in proportion", async (_, make) => {
    await expectGrowth(640 * 1024, (size) => {
      const bytes = make(size);
      expect(Buffer.compare(encodeText(decodeText(bytes)), bytes)).toBe(0);
    });
  });

  /** The definition, one character at a time. */
  function decodeSlowly(bytes: Uint8Array): string {
    const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    let text = "";
    for (let at = 0; at < bytes.length;) {
      let length = 4;
      for (; length > 0; length--) {
        if (at + length > bytes.length) continue;
        try {
          const character = strict.decode(bytes.subarray(at, at + length));
          if (character.length > 2 || (character.length === 2 && length < 4)) continue;
          text += character;
          break;
        } catch {
          // Not of this length.
        }
      }
      if (length === 0) {
        text += String.fromCharCode(0xdc00 + bytes[at]!);
        length = 1;
      }
      at += length;
    }
    return text;
  }

  test("gives what the definition says, and the bytes back, whatever they are", () => {
    const random = numbers(3629);
    const odd = [0, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbd, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf];
    odd.push(0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff);
    for (let round = 0; round < 20_000; round++) {
      const bytes = Buffer.from(Array.from({ length: 1 + random(7) }, () => odd[random(odd.length)]!));
      const text = decodeText(bytes);
      expect(text).toBe(decodeSlowly(bytes));
      expect(Buffer.compare(encodeText(text), bytes)).toBe(0);
    }
  });
});

test("a mail of 20 headers full of broken UTF-8, read and logged: in proportion to their length", async () => {
  await expectGrowth(100_000, (length) => {
    const values: string[] = [];
    const filter: AnyFilter = {
      header(_session, name, value) {
        values.push(name, value);
      },
      eom: (session) => reject(`550 5.7.1 ${session.message.headers.get("X-0")!.length} bytes`),
    };
    const broken = "\xc3".repeat(length);
    const headers = Array.from({ length: 20 }, (_, at) => cmd.header(`X-${at}`, broken));
    const line = Line.to([filter], { limits: { headerBytes: 1 << 22 } });
    line.send(cmd.connect(broken), cmd.helo(broken), cmd.mail(), ...headers, cmd.eom());
    for (const report of line.host.reports) {
      const { level, text, fields } = logLine(report, { folder: "/", version: "" });
      formatLogLine("text", new Date(0), level, text, fields);
    }
    expect(values).toHaveLength(40);
  });
});

describe("pipelined commands behind awaited handlers", () => {
  const filters: AnyFilter[] = [{ async envrcpt() {}, unknown: () => undefined }];

  test("many in one read: in proportion", async () => {
    await expectGrowth(10_000, async (count) => {
      const line = Line.to(filters, WIDE);
      line.send(cmd.mail());
      line.send(Buffer.concat(Array.from({ length: count }, () => cmd.rcpt("<>"))));
      let replies = line.replies().length;
      while (replies < count) {
        await settled();
        replies += line.replies().length;
      }
    });
  });

  test("a Framer whose packets are all lent does not copy the others again", async () => {
    await expectGrowth(100_000, (count) => {
      const framer = new Framer(1 << 20);
      const read = Buffer.alloc(count * 5, Buffer.from([0, 0, 0, 1, 0x41]));
      framer.push(read);
      let taken = 0;
      while (framer.next()) {
        framer.lend();
        if (framer.code !== 0x41) break;
        taken += 1;
      }
      expect(taken).toBe(count);
    });
  });
});

test("lookups in stages full of macros: no more in 64 KiB than in 2 KiB", async () => {
  const inForce = (bytes: number): Line => {
    const line = Line.to([{ envrcpt: () => reject("550 5.1.1 no"), unknown: () => undefined }], WIDE);
    line.send(cmd.connect(), cmd.helo(), cmd.mail());
    for (const stage of "CHMRTNE") {
      const macros = Buffer.alloc(bytes + 4);
      macros.writeUInt32BE(bytes);
      macros.write(`D${stage}`, 4, "latin1");
      line.send(macros);
    }
    return line;
  };
  const lines = new Map(amountsOf(65_000, NOT_AT_ALL).map((bytes) => [bytes, inForce(bytes)]));
  await expectGrowth(
    65_000,
    (bytes) => {
      // Each refusal is reported, and looks for the queue id in all of them.
      const line = lines.get(bytes)!;
      for (let count = 0; count < 400; count++) expect(line.send(cmd.rcpt())).toHaveLength(1);
      line.host.reports.length = 0;
    },
    NOT_AT_ALL,
  );
});

describe("messages with many headers", () => {
  const headers = (count: number) => Array.from({ length: count }, (_, at) => cmd.header(`X-${at}`, " v"));
  const message = (filters: readonly AnyFilter[], count: number) =>
    Line.to(filters, WIDE).send(cmd.mail(), ...headers(count), cmd.eom());

  test("changes by one filter at each header, read by the next at each header, are not cubic", async () => {
    const filters: AnyFilter[] = [
      { header: (session, name) => session.message.changeHeader(name, "y") },
      { header: (session) => void session.message.headers.get("x-1") },
    ];
    await expectGrowth(1000, (count) => message(filters, count), WITH_THE_SQUARE);
  });

  test.each<[string, AnyFilter]>([
    [
      "each one deleted by its index",
      {
        eom: ({ message: mail }) => {
          for (const { name } of mail.headers) mail.deleteHeader(name, 1);
        },
      },
    ],
    [
      "each one changed",
      {
        eom: ({ message: mail }) => {
          for (const { name } of mail.headers) mail.changeHeader(name, "z");
        },
      },
    ],
    [
      "one inserted before each",
      {
        eom: ({ message: mail }) => {
          for (let at = mail.headers.length - 1; at >= 0; at--) mail.insertHeader(at, "Y", "z");
        },
      },
    ],
  ])("%s: not cubic", async (_, filter) => {
    await expectGrowth(2000, (count) => message([filter], count), WITH_THE_SQUARE);
  });
});

describe("messages with many recipients", () => {
  const recipients = (count: number) => Array.from({ length: count }, (_, at) => cmd.rcpt(`<u${at}@example.com>`));
  const message = (filter: AnyFilter, count: number) =>
    Line.to([filter], WIDE).send(cmd.mail(), ...recipients(count), cmd.eom());

  test("deleting recipients: in proportion", async () => {
    const filter: AnyFilter = {
      eom: ({ message: mail }) => {
        for (const { address } of mail.recipients) mail.deleteRecipient(address);
        expect(mail.recipients).toHaveLength(0);
        mail.addRecipient("held@example.com");
      },
    };
    await expectGrowth(4000, (count) => void message(filter, count));
  });

  test("deleting the first until none is left is not cubic", async () => {
    const filter: AnyFilter = {
      eom: ({ message: mail }) => {
        while (mail.recipients.length > 0) mail.deleteRecipient(mail.recipients[0]!.address);
      },
    };
    await expectGrowth(1000, (count) => void message(filter, count), WITH_THE_SQUARE);
  });

  test("refusing many beside many that are taken: not cubic", async () => {
    const filter: AnyFilter = { envrcpt: (_, to) => (to === "<bad>" ? reject("550 5.1.1 no") : undefined) };
    await expectGrowth(
      4000,
      (count) => {
        const line = Line.to([filter], WIDE);
        line.send(cmd.mail(), ...recipients(count), ...Array.from({ length: count }, () => cmd.rcpt("<bad>")));
        expect(line.verdicts).toHaveLength(count);
      },
      WITH_THE_SQUARE,
    );
  });
});

test.each(["a", "€", "a ", "%", "\udc80"])("a reply text of many times %j is settled: in proportion", async (unit) => {
  const filter: AnyFilter = { helo: (_, name) => reject(`550 ${name}`) };
  const name = Buffer.from(encodeText(unit)).toString("latin1");
  await expectGrowth(200_000, (count) => {
    const replies = Line.to([filter]).send(cmd.connect(), cmd.helo(name.repeat(count)));
    // Too long for a reply: the fallback.
    if (count === 200_000) expect(replies.slice(-1)).toEqual(["t"]);
  });
});
