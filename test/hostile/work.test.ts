/**
 * Input that makes the server work: what a mail or a peer can make long may not make one connection hold up the others.
 * Bounds are generous: what is linear passes them tenfold, what is not misses them tenfold.
 */
import { describe, expect, test } from "bun:test";
import { reject } from "../../src/index.ts";
import { formatLogLine } from "../../src/admin/log.ts";
import { decodeText, encodeText } from "../../src/protocol/bytes.ts";
import { Framer } from "../../src/protocol/framer.ts";
import { logLine } from "../../src/worker/log-lines.ts";
import { type AnyFilter, Line, settled } from "../handler/harness.ts";
import { cmd } from "../protocol/wire.ts";
import { growth, milliseconds, numbers } from "./measure.ts";

const WIDE = { limits: { headers: 20_000, headerBytes: 1 << 24, recipients: 20_000 } };

describe("decodeText of invalid UTF-8", () => {
  const size = 256 * 1024;
  const sender = Buffer.from([0xe2, 0x82, 0xc3, 0xf0, 0x9f, 0x98]);

  test.each<[string, Uint8Array]>([
    ["leads without their continuation", Buffer.alloc(size, 0xc3)],
    ["sequences cut short", Buffer.alloc(size, sender)],
    ["bytes that are never UTF-8", Buffer.alloc(size, 0xff)],
    ["Latin-1", Buffer.alloc(size, Buffer.from("Gr\xfc\xdfe aus M\xfcnchen ", "latin1"))],
    ["valid text behind one U+FFFD", Buffer.concat([Buffer.from("\ufffd"), Buffer.alloc(size, "a")])],
    ["nothing but U+FFFD", Buffer.alloc(size, "\ufffd")],
  ])("256 KiB of %s take less than 0.4 s, there and back", (_, bytes) => {
    let text = "";
    expect(milliseconds(() => void (text = decodeText(bytes)))).toBeLessThan(400);
    let back: Uint8Array = bytes;
    expect(milliseconds(() => void (back = encodeText(text)))).toBeLessThan(400);
    expect(Buffer.compare(back, bytes)).toBe(0);
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

test("a mail of 20 headers full of broken UTF-8 takes less than 1.5 s, read and logged", () => {
  const values: string[] = [];
  const filter: AnyFilter = {
    header(_session, name, value) {
      values.push(name, value);
    },
    eom: (session) => reject(`550 5.7.1 ${session.message.headers.get("X-0")!.length} bytes`),
  };
  const headers = Array.from({ length: 20 }, (_, at) => cmd.header(`X-${at}`, "\xc3".repeat(100_000)));
  const line = Line.to([filter], { limits: { headerBytes: 1 << 22 } });
  const ms = milliseconds(() => {
    line.send(cmd.connect("\xc3".repeat(100_000)), cmd.helo("\xc3".repeat(100_000)), cmd.mail(), ...headers, cmd.eom());
    for (const report of line.host.reports) {
      const { level, text, fields } = logLine(report, "/");
      formatLogLine("text", new Date(0), level, text, fields);
    }
  });
  expect(values).toHaveLength(40);
  expect(ms).toBeLessThan(1500);
});

describe("pipelined commands behind awaited handlers", () => {
  const filters: AnyFilter[] = [{ async envrcpt() {}, unknown: () => undefined }];

  test("ten times as many in one read take less than 40 times as long", async () => {
    const run = async (count: number): Promise<number> => {
      const line = Line.to(filters, WIDE);
      line.send(cmd.mail());
      const read = Buffer.concat(Array.from({ length: count }, () => cmd.rcpt("<>")));
      const from = performance.now();
      line.send(read);
      let replies = line.replies().length;
      while (replies < count) {
        await settled();
        replies += line.replies().length;
      }
      return performance.now() - from;
    };
    await run(1000);
    const small = Math.min(await run(1000), await run(1000));
    expect(Math.min(await run(10_000), await run(10_000)) / Math.max(small, 1)).toBeLessThan(40);
  });

  test("a Framer that is kept after each packet does not copy all the others again", () => {
    const times = growth((count) => {
      const framer = new Framer(1 << 20);
      const read = Buffer.alloc(count * 5, Buffer.from([0, 0, 0, 1, 0x41]));
      framer.push(read);
      let taken = 0;
      while (framer.next()) {
        framer.keep();
        // As the socket may do.
        if (taken === 0) read.fill(0);
        expect(framer.code).toBe(0x41);
        taken += 1;
      }
      expect(taken).toBe(count);
    }, 10_000);
    expect(times).toBeLessThan(40);
  });
});

test("400 lookups in stages full of macros take less than 1 s", () => {
  const line = Line.to([{ envrcpt: () => reject("550 5.1.1 no"), unknown: () => undefined }], WIDE);
  line.send(cmd.connect(), cmd.helo(), cmd.mail());
  for (const stage of "CHMRTNE") {
    const macros = Buffer.alloc(65_536 + 4);
    macros.writeUInt32BE(65_536);
    macros.write(`D${stage}`, 4, "latin1");
    line.send(macros);
  }
  // They are in force now; each refusal is reported, and looks for the queue id in all of them.
  const sent: string[] = [];
  const ms = milliseconds(() => {
    for (let count = 0; count < 400; count++) sent.push(...line.send(cmd.rcpt()));
  });
  expect(sent).toHaveLength(400);
  expect(ms).toBeLessThan(1000);
});

describe("messages with many headers", () => {
  const headers = (count: number) => Array.from({ length: count }, (_, at) => cmd.header(`X-${at}`, " v"));
  const message = (filters: readonly AnyFilter[], count: number) =>
    Line.to(filters, WIDE).send(cmd.mail(), ...headers(count), cmd.eom());

  test("changes by one filter at each header, read by the next at each header, are not cubic", () => {
    const filters: AnyFilter[] = [
      { header: (session, name) => session.message.changeHeader(name, "y") },
      { header: (session) => void session.message.headers.get("x-1") },
    ];
    expect(growth((count) => message(filters, count), 100)).toBeLessThan(150);
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
  ])("%s: 2,000 headers take less than 2 s", (_, filter) => {
    expect(milliseconds(() => message([filter], 2000))).toBeLessThan(2000);
  });
});

describe("messages with many recipients", () => {
  const recipients = (count: number) => Array.from({ length: count }, (_, at) => cmd.rcpt(`<u${at}@example.com>`));
  const message = (filter: AnyFilter, count: number) =>
    Line.to([filter], WIDE).send(cmd.mail(), ...recipients(count), cmd.eom());

  test("deleting recipients: ten times as many take less than 40 times as long", () => {
    const filter: AnyFilter = {
      eom: ({ message: mail }) => {
        for (const { address } of mail.recipients) mail.deleteRecipient(address);
        expect(mail.recipients).toHaveLength(0);
        mail.addRecipient("held@example.com");
      },
    };
    expect(growth((count) => void message(filter, count), 400)).toBeLessThan(40);
  });

  test("deleting the first until none is left is not cubic", () => {
    const filter: AnyFilter = {
      eom: ({ message: mail }) => {
        while (mail.recipients.length > 0) mail.deleteRecipient(mail.recipients[0]!.address);
      },
    };
    expect(growth((count) => void message(filter, count), 30)).toBeLessThan(150);
  });

  test("refusing many beside many that are taken: 4,000 of each take less than 3 s", () => {
    const filter: AnyFilter = { envrcpt: (_, to) => (to === "<bad>" ? reject("550 5.1.1 no") : undefined) };
    const line = Line.to([filter], WIDE);
    const packets = [cmd.mail(), ...recipients(4000), ...Array.from({ length: 4000 }, () => cmd.rcpt("<bad>"))];
    expect(milliseconds(() => void line.send(...packets))).toBeLessThan(3000);
    expect(line.verdicts).toHaveLength(4000);
  });
});

test.each(["a", "€", "a ", "%", "\udc80"])("a reply text of 200,000 times %j is settled in less than 1 s", (unit) => {
  const filter: AnyFilter = { helo: (_, name) => reject(`550 ${name}`) };
  const line = Line.to([filter]);
  const name = Buffer.from(encodeText(unit)).toString("latin1");
  let replies: string[] = [];
  expect(
    milliseconds(() => void (replies = line.send(cmd.connect(), cmd.helo(name.repeat(200_000))).slice(-1))),
  ).toBeLessThan(1000);
  // Too long for a reply: the fallback.
  expect(replies).toEqual(["t"]);
});
