/** Edits in a digest, where a part without a type is a message (RFC 2046 5.1.5). */
import { expect, test } from "bun:test";
import { editable } from "./editable.ts";

test("a new field of a part without a type leaves it a message", () => {
  const { mime } = editable("Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: a\n\nhello\n--b--\n");
  const [part] = mime.parts;
  expect(part!.type).toBe("message/rfc822");
  part!.setHeader("X-New", "a");
  expect(part!.type).toBe("message/rfc822");
  part!.setHeader("Content-Type", "text/plain");
  expect(part!.type).toBe("text/plain");
});
