/** Content-Transfer-Encodings as mail programs read them, whatever stands in between. */
import { expect, test } from "bun:test";
import { decodeLeniently } from "../../src/mime/transfer-encoding.ts";

test.each([
  ["aGVsbG8=", "hello"],
  ["aGVs\r\nbG8=\r\n", "hello"],
  ["aGVs bG8", "hello"],
  ["aG*Vs-b_G8=", "hello"],
  ["aGU=bGxv", "hello"],
  ["aGVsbA==\r\n\r\n\r\n\r\n\r\n\r\nbw==", "hello"],
  ["====aGVsbG8", "hello"],
  ["aGVsbG9a", "helloZ"],
  ["aGVsbG8h\0IQ", "hello!!"],
  ["aGVsbG8hI", "hello!"],
  ["a", ""],
  ["=", ""],
  ["", ""],
])("base64: %j is %j", (text, expected) => {
  expect(Buffer.from(decodeLeniently(Buffer.from(text, "latin1"), "base64")).toString()).toBe(expected);
});
