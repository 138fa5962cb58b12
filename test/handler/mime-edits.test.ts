/** Edits of a message's parts in a conversation: what the mail server gets, and what later reads and filters see. */
import { describe, expect, test } from "bun:test";
import { type Mime, readMessage, reject, type Session } from "../../src/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, codeOf, collecting, Line, type Placed, type Setting } from "./harness.ts";

type Eom = Session<"eom">;

const crlf = (text: string): string => text.replaceAll("\n", "\r\n");

/** What a mail server was told to change. */
interface Changed {
  /** Packets other than the body, such as `h`, `m` and their payloads. */
  readonly headers: readonly string[];
  /** Null if it stays. */
  readonly body: string | null;
  readonly line: Line;
}

/** Sends the message in pieces of 97 bytes. */
function send(filters: readonly Placed[], header: string, body: string, setting: Setting = {}): Changed {
  const line = Line.to(filters, setting);
  const fields = header
    .split(/\n(?![ \t])/)
    .filter((field) => field !== "")
    .map((field) => {
      const colon = field.indexOf(":");
      return cmd.header(field.slice(0, colon), field.slice(colon + 1));
    });
  line.send(cmd.mail(), cmd.rcpt(), ...fields, cmd.eoh());
  const whole = Buffer.from(crlf(body), "latin1");
  for (let at = 0; at < whole.length; at += 97) line.send(cmd.body(whole.subarray(at, at + 97)));
  line.replies();
  const replies = line.send(cmd.eom());
  const pieces = replies.filter((reply) => reply.startsWith("b")).map((reply) => reply.slice(1));
  const headers = replies.filter((reply) => /^[hmi]/.test(reply)).map((reply) => reply.replaceAll("\0", "|"));
  return { headers, body: pieces.length === 0 ? null : pieces.join("").replaceAll("\r\n", "\n"), line };
}

const editing = (edit: (mime: Mime, session: Eom) => unknown): AnyFilter =>
  collecting((session) => void edit(session.message.mime(), session));

const MIXED = `preamble
--b
Content-Type: text/plain; charset=us-ascii
X-Odd:  kept as it is

hello
--b
Content-Type: application/octet-stream; name="a.bin"
Content-Transfer-Encoding: base64

AAAA
QUJD
--b--
epilogue
`;
const MIXED_TYPE = "Subject: s\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n";

describe("an edit", () => {
  test("of a part leaves the bytes of all others alone, and a message without edits is not sent again", () => {
    const { body, headers, line } = send([editing((mime) => mime.parts[0]!.setText("bye"))], MIXED_TYPE, MIXED);
    expect(line.failures).toEqual([]);
    expect(headers).toEqual([]);
    expect(body).toBe(MIXED.replace("hello", "bye"));
    const looked = send([editing((mime) => [mime.text, mime.parts[1]!.bytes()])], MIXED_TYPE, MIXED);
    expect(looked.body).toBeNull();
    expect(send([editing((mime) => mime.parts[0]!.setText("hello"))], MIXED_TYPE, MIXED).body).toBeNull();
  });

  test("is seen by later reads and filters, with the objects that were had before", () => {
    const { body, line } = send(
      [
        editing((mime, { message }) => {
          const [text, file] = mime.parts as [Mime["root"], Mime["root"]];
          text.setText("Grüße");
          expect([text.text(), text.charset, text.encoding, mime.text]).toEqual([
            "Grüße",
            "utf-8",
            "quoted-printable",
            "Grüße",
          ]);
          expect(text.headers.get("X-Odd")).toBe(" kept as it is".trim());
          file.remove();
          expect(mime.parts).toEqual([text]);
          expect(codeOf(() => file.setContent(new Uint8Array(1)))).toBe("PMILTER_ERR_OVER");
          expect(message.mime()).toBe(mime);
          expect(Buffer.from(message.body()).toString()).toContain("Gr=C3=BC=C3=9Fe");
          expect(readMessage(message.raw()).text).toBe("Grüße");
        }),
        editing((mime) => {
          expect([mime.text, mime.parts.length]).toEqual(["Grüße", 1]);
          mime.parts[0]!.setHtml("<b>ü</b>");
        }),
      ],
      MIXED_TYPE,
      MIXED,
    );
    expect(line.failures).toEqual([]);
    expect(body).toBe(`preamble
--b
Content-Type: text/html; charset=utf-8
X-Odd:  kept as it is
Content-Transfer-Encoding: quoted-printable

<b>=C3=BC</b>
--b--
epilogue
`);
  });

  test("has a copy of the bytes that it is given, encoded or not", () => {
    for (const type of ["text/plain", "application/octet-stream"]) {
      const bytes = Buffer.from("given");
      const edit = editing((mime) => {
        mime.parts[1]!.setContent(bytes, { type });
        mime.attach({ filename: "a", content: bytes, type });
        bytes.fill("x");
      });
      const after = editing((mime) => {
        expect(mime.parts.slice(1).map((part) => Buffer.from(part.bytes()).toString())).toEqual(["given", "given"]);
      });
      expect(send([edit, after], MIXED_TYPE, MIXED).line.failures).toEqual([]);
    }
  });

  test("of a filter that fails is dropped, one in observe mode is not sent", () => {
    const failing = editing((mime) => {
      mime.parts[0]!.setText("wrong");
      throw new Error("failed");
    });
    const later = editing((mime) => expect(mime.text).toBe("hello"));
    const failed = send([[failing, { onError: "accept" }], later], MIXED_TYPE, MIXED);
    expect(failed.body).toBeNull();
    expect(failed.line.failures.map(({ cause }) => cause)).toEqual(["error"]);
    const observed = send([[editing((mime) => mime.parts[0]!.remove()), { isObserved: true }]], MIXED_TYPE, MIXED);
    expect([observed.body, observed.line.failures]).toEqual([null, []]);
  });

  test("of an object that is not the message any more throws", () => {
    const codes: string[] = [];
    let kept: Mime | null = null;
    send(
      [
        editing((mime, { message }) => {
          kept = mime;
          message.replaceBody(crlf(MIXED));
          codes.push(codeOf(() => mime.parts[0]!.setText("x")));
          const next = message.mime();
          message.changeHeader("Content-Type", "text/plain");
          codes.push(codeOf(() => next.parts[0]!.setText("x")));
        }),
      ],
      MIXED_TYPE,
      MIXED,
    );
    codes.push(codeOf(() => kept!.parts[0]!.setText("x")));
    expect(codes).toEqual(["PMILTER_ERR_OVER", "PMILTER_ERR_OVER", "PMILTER_ERR_OVER"]);
  });

  test("that the mail server did not grant changes nothing", () => {
    const codes: string[] = [];
    const edits = editing((mime) => {
      codes.push(codeOf(() => mime.root.setText("Grüße")));
      expect([mime.text, mime.root.charset]).toEqual(["hello\n", ""]);
    });
    // All but CHGBODY; all but CHGHDRS.
    for (const actions of [0x1ff & ~0x2, 0x1ff & ~0x10]) send([edits], "Subject: s\n", "hello\n", { actions });
    expect(codes).toEqual(["PMILTER_ERR_NOT_GRANTED", "PMILTER_ERR_NOT_GRANTED"]);
  });

  test("of the root changes the header of the message", () => {
    const { body, headers } = send([editing((mime) => mime.root.setText("Grüße\n"))], "Subject: s\n", "hello\n");
    expect(body).toBe("Gr=C3=BC=C3=9Fe\n");
    expect(headers).toEqual([
      "hMIME-Version| 1.0|",
      "hContent-Type| text/plain; charset=utf-8|",
      "hContent-Transfer-Encoding| quoted-printable|",
    ]);
  });

  test("that cannot be written to the header changes nothing", () => {
    const codes: string[] = [];
    const { body, headers } = send(
      [editing((mime) => void codes.push(codeOf(() => mime.root.setText("Grüße"))))],
      "Content-Type: text/plain;\rx=1;\0 charset=us-ascii\n",
      "hi\n",
    );
    expect({ codes, body, headers }).toEqual({ codes: ["PMILTER_ERR_ARGUMENT"], body: null, headers: [] });
  });

  test.each(["Content-\xc3\xa9", "Content-Type ", `Content-${"x".repeat(3000)}`])(
    "that cannot take a field away changes nothing: %s",
    (name) => {
      const codes: string[] = [];
      const bytes: (Uint8Array | null)[] = [];
      const { body, headers } = send(
        [
          editing((mime, { message }) => {
            codes.push(
              codeOf(() => mime.root.replaceWith({ text: "gone" })),
              codeOf(() => mime.attach({ filename: "a", content: "x" })),
              codeOf(() => mime.root.setText("hello")),
            );
            bytes.push(message.body());
          }),
        ],
        `Content-Language: en\nContent-Type: text/plain; charset=us-ascii\n${name}: z\n`,
        "hi\n",
      );
      expect(codes).toEqual(["PMILTER_ERR_ARGUMENT", "PMILTER_ERR_ARGUMENT", "none"]);
      expect(Buffer.from(bytes[0]!).toString()).toBe("hello\r\n");
      expect({ body, headers }).toEqual({ body: "hello\n", headers: [] });
    },
  );

  test("of signed mail throws, unless it may break the seal", () => {
    const type = "Content-Type: multipart/signed; boundary=b; protocol=x\n";
    const codes: string[] = [];
    const { body } = send(
      [
        editing((mime) => {
          codes.push(
            codeOf(() => mime.parts[0]!.setText("x")),
            codeOf(() => mime.footer({ text: "x" })),
            codeOf(() => mime.attach({ filename: "a", content: "x" })),
            codeOf(() => mime.root.setHeader("Content-Description", "x")),
            codeOf(() => mime.root.setHeader("Subject", "x")),
          );
        }),
      ],
      type,
      MIXED,
    );
    expect(codes).toEqual([...Array.from({ length: 4 }, () => "PMILTER_ERR_SEALED"), "none"]);
    expect(body).toBeNull();
    const broken = send([editing((mime) => mime.parts[0]!.setText("x", { breakSeal: true }))], type, MIXED);
    expect(broken.body).toBe(MIXED.replace("hello", "x"));
  });

  test("is not made by a message that is rejected", () => {
    const { line } = send(
      [
        collecting(({ message }) => {
          message.mime()!.root.setText("x");
          return reject("550 5.7.1 no");
        }),
      ],
      "Subject: s\n",
      "hello\n",
    );
    expect(line.failures).toEqual([]);
  });
});

describe("replaceWith", () => {
  test("puts a note in the place of a part, with a header of its own", () => {
    const { body } = send(
      [editing((mime) => mime.attachments[0]!.replaceWith({ text: "It is gone.\n", filename: "gone ü.txt" }))],
      MIXED_TYPE,
      MIXED,
    );
    expect(body).toBe(
      MIXED.replace(
        /Content-Type: application[^]*QUJD/,
        "Content-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 7bit\nContent-Disposition: attachment; filename*=utf-8''gone%20%C3%BC.txt\n\nIt is gone.\n",
      ),
    );
    expect(readMessage(Buffer.from(`${MIXED_TYPE}\n${body}`)).attachments[0]!.filename).toBe("gone ü.txt");
  });

  test("of the root takes the fields away that said what it was", () => {
    const type = "Content-Type: application/zip; name=a.zip\nContent-Disposition: attachment\nContent-ID: <1@a>\n";
    const { headers } = send(
      [editing((mime) => mime.root.replaceWith({ text: "gone" }))],
      `Subject: s\n${type}`,
      "x\n",
    );
    expect(headers).toEqual([
      "m\0\0\0\x01Content-ID||".replaceAll("\0", "|"),
      "m\0\0\0\x01Content-Disposition| inline|".replaceAll("\0", "|"),
      "m\0\0\0\x01Content-Type| text/plain; charset=us-ascii|".replaceAll("\0", "|"),
      "hMIME-Version| 1.0|",
      "hContent-Transfer-Encoding| 7bit|",
    ]);
  });
});

describe("remove", () => {
  test("takes each part out with its delimiter, and a multipart that is empty then", () => {
    const nested = `--b\n\na\n--b\nContent-Type: multipart/alternative; boundary=c\n\n--c\n\nb\n--c--\n--b\n\nc\n--b--\n`;
    const without = (index: number) => send([editing((mime) => mime.parts[index]!.remove())], MIXED_TYPE, nested).body;
    expect(without(0)).toBe(nested.replace("\na\n--b\n", ""));
    expect(without(1)).toBe("--b\n\na\n--b\n\nc\n--b--\n");
    expect(without(2)).toBe(nested.replace("\n--b\n\nc\n--b--", "\n--b--"));
  });

  test("of the last part leaves an empty text, of the root is refused", () => {
    const { body, line } = send(
      [
        editing((mime) => {
          expect(codeOf(() => mime.root.remove())).toBe("PMILTER_ERR_ARGUMENT");
          for (const part of mime.parts) part.remove();
          expect([mime.text, mime.root.type]).toEqual(["", "text/plain"]);
        }),
      ],
      MIXED_TYPE,
      MIXED,
    );
    expect(line.failures).toEqual([]);
    expect(body).toBe("");
  });
});
