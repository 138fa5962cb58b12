/** `.eml` files to header fields and body, and back. */
import { describe, expect, test } from "bun:test";
import { addressesOf, formatMail, parseMail } from "../../src/testing/mail.ts";

function bodyOf(eml: string | Uint8Array): string {
  return Buffer.from(parseMail(eml).body).toString("latin1");
}

describe("parseMail", () => {
  test("keeps names and values as written, with LF in folded ones, whatever the line ends", () => {
    const expected = [
      { name: "SUBJECT", value: " hi\n\tthere" },
      { name: "X-Empty", value: "" },
      { name: "x-tight", value: "a:b " },
    ];
    const eml = "SUBJECT: hi\n\tthere\nX-Empty:\nx-tight:a:b \n\nbody\n";
    expect(parseMail(eml).headers).toEqual(expected);
    expect(parseMail(eml.replaceAll("\n", "\r\n"))).toEqual(parseMail(eml));
  });

  test("gives the body CRLF line ends, one after the last line, and leaves a lone CR", () => {
    expect(bodyOf("A: b\n\none\ntwo\r\nthr\ree")).toBe("one\r\ntwo\r\nthr\ree\r\n");
    expect(bodyOf("A: b\n\n\n\n")).toBe("\r\n\r\n");
  });

  test("an empty body stays empty", () => {
    expect(bodyOf("A: b\n\n")).toBe("");
    expect(bodyOf("A: b")).toBe("");
    expect(parseMail("")).toEqual({ headers: [], body: Buffer.alloc(0) });
  });

  test("drops the From line of an mbox, and only there", () => {
    expect(parseMail("From a@b Mon Jan 1\nA: b\n\n").headers).toEqual([{ name: "A", value: " b" }]);
    expect(bodyOf("A: b\nFrom a@b\n")).toBe("From a@b\r\n");
  });

  test("a line that is no header field begins the body", () => {
    expect(parseMail("A: b\nhello\n\nC: d\n").headers).toHaveLength(1);
    expect(bodyOf("A: b\nhello\n\nC: d\n")).toBe("hello\r\n\r\nC: d\r\n");
    expect(bodyOf(" indented\n")).toBe(" indented\r\n");
  });

  test("bytes survive, and NUL in a header becomes a space", () => {
    const eml = Buffer.from("A: \xff\0\n\n\xfe\0", "latin1");
    const mail = parseMail(eml);
    expect(mail.headers[0]!.value).toBe(" \udcff ");
    expect(Buffer.from(formatMail(mail)).toString("latin1")).toBe("A: \xff \r\n\r\n\xfe\0\r\n");
  });
});

test("formatMail is the inverse of parseMail", () => {
  const eml = "A: b\r\n c\r\nB:\r\n\r\nbody\r\n";
  expect(Buffer.from(formatMail(parseMail(eml))).toString()).toBe(eml);
});

describe("addressesOf", () => {
  function to(value: string): string[] {
    return addressesOf([{ name: "to", value }], "To");
  }

  test("finds bracketed and bare addresses, past names, comments and groups", () => {
    expect(to(' "Doe, Jane" <jane@x>, joe@y (Joe, really)')).toEqual(["jane@x", "joe@y"]);
    expect(to(" friends: a@x, B <b@y>;")).toEqual(["a@x", "b@y"]);
  });

  test("gives none where there are none", () => {
    expect(to(" undisclosed-recipients:;")).toEqual([]);
    expect(addressesOf([], "To")).toEqual([]);
  });
});
