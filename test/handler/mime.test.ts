/** `message.mime()` in a conversation: when it is there, how long, and that it shows the message with its changes. */
import { describe, expect, test } from "bun:test";
import { defineFilter, type Mime, type Part, readMessage } from "../../src/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, codeOf, collecting, Line } from "./harness.ts";

const BODY = [
  "--b",
  "Content-Type: text/plain; charset=utf-8",
  "Content-Transfer-Encoding: quoted-printable",
  "",
  "Gr=C3=BC=C3=9Fe https://example.org/a.",
  "--b",
  'Content-Type: application/pdf; name="a.pdf"',
  "Content-Disposition: attachment",
  "Content-ID: <1@example.org>",
  "Content-Transfer-Encoding: base64",
  "",
  "JVBERi0=",
  "--b--",
  "",
].join("\r\n");

function run(filters: readonly AnyFilter[], body = BODY): Line {
  const line = Line.to(filters);
  const type = cmd.header("Content-Type", " multipart/mixed; boundary=b");
  line.send(cmd.mail(), cmd.rcpt(), cmd.header("Subject", " =?utf-8?q?=C3=BC?="), type, cmd.body(body), cmd.eom());
  expect(line.failures).toEqual([]);
  return line;
}

describe("message.mime()", () => {
  test("gives parts, text, attachments and links", () => {
    run([
      collecting(({ message }) => {
        const mime = message.mime();
        expect(mime.flaws).toEqual([]);
        expect(mime.isSealed).toBe(false);
        expect(mime.text).toBe("Grüße https://example.org/a.");
        expect(mime.html).toBeNull();
        expect([...mime.walk()].map(({ type }) => type)).toEqual(["multipart/mixed", "text/plain", "application/pdf"]);
        const [text, pdf] = mime.parts as readonly [Part, Part];
        expect(mime.attachments).toEqual([pdf]);
        expect([pdf.filename, pdf.names, pdf.contentId, pdf.encoding]).toEqual([
          "a.pdf",
          ["a.pdf"],
          "1@example.org",
          "base64",
        ]);
        expect([pdf.size, Buffer.from(pdf.bytes()).toString(), pdf.disposition]).toEqual([5, "%PDF-", "attachment"]);
        expect([text.charset, text.isAttachment, text.parent]).toEqual(["utf-8", false, mime.root]);
        expect(mime.links()).toEqual([{ url: "https://example.org/a", text: "https://example.org/a", part: text }]);
        expect(mime.root.headers.text("subject")).toBe("ü");
        expect([...pdf.headers].map(({ name, value }) => [name, value])[0]).toEqual([
          "Content-Type",
          'application/pdf; name="a.pdf"',
        ]);
      }),
    ]);
  });

  test("has the flaws of the message's own header, too", () => {
    const line = Line.to([
      collecting(({ message }) => expect(message.mime().flaws).toEqual(["a header with a line of white space"])),
    ]);
    const type = cmd.header("Content-Type", " multipart/mixed;\n \n boundary=b");
    line.send(cmd.mail(), cmd.rcpt(), type, cmd.body(BODY), cmd.eom());
    expect(line.failures).toEqual([]);
  });

  test("is the same object until the body or a Content-* header is changed", () => {
    run([
      collecting(({ message }) => {
        const before = message.mime();
        message.addHeader("X-Checked", "yes");
        expect(message.mime()).toBe(before);
        expect(before.root.headers.get("X-Checked")).toBe("yes");
        message.changeHeader("Content-Type", "text/plain");
        const after = message.mime();
        expect([after === before, after.root.type, after.parts.length]).toEqual([false, "text/plain", 1]);
        message.replaceBody("hello");
        expect(message.mime().text).toBe("hello");
      }),
      collecting(({ message }) => expect(message.mime().text).toBe("hello")),
    ]);
  });

  test("is null where body() is null, and not there without collectBody", () => {
    const seen: unknown[] = [];
    const skipping = defineFilter({
      collectBody: { max: 10, over: "skip" },
      eom: ({ message }) => void seen.push(message.mime()),
    });
    run([skipping as unknown as AnyFilter, { eom: ({ message }) => void seen.push(codeOf(() => message.mime())) }]);
    expect(seen).toEqual([null, "PMILTER_ERR_NOT_HERE"]);
  });

  test("of a message that is over has no bytes any more", () => {
    let kept: Mime | null = null;
    run([collecting(({ message }) => void (kept = message.mime()))]);
    const mime = kept as unknown as Mime;
    expect(mime.parts.map(({ type }) => type)).toEqual(["text/plain", "application/pdf"]);
    expect(codeOf(() => mime.text)).toBe("PMILTER_ERR_OVER");
    expect(codeOf(() => mime.parts[1]!.bytes())).toBe("PMILTER_ERR_OVER");
  });
});

describe("readMessage", () => {
  test("reads a message in bytes", () => {
    const bytes = Buffer.from(`Subject: hi\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n${BODY}`);
    const mime = readMessage(bytes);
    expect(mime.root.headers.get("Subject")).toBe("hi");
    expect(mime.attachments.map(({ filename }) => filename)).toEqual(["a.pdf"]);
    const wrapped = Buffer.concat([Buffer.from("Content-Type: message/rfc822\r\n\r\n"), bytes]);
    expect(readMessage(wrapped).root.message()!.attachments.length).toBe(1);
  });

  test("cannot be edited", () => {
    expect(codeOf(() => readMessage(Buffer.from("a: b\r\n\r\n")).root.setText("x"))).toBe("PMILTER_ERR_NOT_HERE");
    expect(codeOf(() => readMessage("a: b" as unknown as Uint8Array))).toBe("PMILTER_ERR_ARGUMENT");
  });
});
