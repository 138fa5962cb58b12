/** Messages of 3 and of 20 MB through both mail servers: collected in the spool, read as a whole, and changed. */
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { oneFilter, parts } from "./support.ts";

// A busy machine starts a mail server and a filter slowly.
setDefaultTimeout(60_000);

/** Prints the digest of the whole message; from the sender `change` it takes another body. */
const FILTER = `
import { defineFilter } from "pmilter";
const digest = (bytes) => new Bun.CryptoHasher("sha256").update(bytes).digest("hex");
export default defineFilter({
  name: "reads",
  collectBody: true,
  eom({ message }) {
    const { readFileSync } = process.getBuiltinModule("node:fs");
    const isSpooled = readFileSync("/proc/self/maps", "utf8").includes("/spool");
    console.log("seen", message.sender.address, digest(message.raw()), message.raw().length, isSpooled);
    if (message.sender.address.startsWith("edit")) {
      message.mime().attachments[0].replaceWith({ text: "taken out", filename: "note.txt" });
      message.addHeader("X-Edited", "yes");
    }
    if (!message.sender.address.startsWith("change")) return;
    const body = message.body();
    const changed = Buffer.from(body);
    changed.write("CHANGED", 0);
    changed.write("END", changed.length - 5);
    message.replaceBody(changed);
    console.log("then", message.sender.address, digest(message.raw()));
  },
});
`;

const LINES = 40_000;
/** Lines of each length, with dots at their beginnings, and bytes above 127. */
const BODY = Array.from(
  { length: LINES },
  (_, line) => `${line % 7 === 0 ? "." : ""}${line} ${"x".repeat(line % 140)} \u00e9\r\n`,
).join("");
const HEADERS = [
  "From: <alice@example.test>",
  "Subject: large",
  " and folded",
  "X-Tight:1",
  "Date: Mon, 30 Nov 2026 12:00:00 +0000",
  "Message-ID: <large@example.test>",
];
const LARGE = Buffer.from(`${HEADERS.join("\r\n")}\r\n\r\n${BODY}`, "latin1");

const sha256 = (text: string) => new Bun.CryptoHasher("sha256").update(Buffer.from(text, "latin1")).digest("hex");

describeBehindEach("a large body", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({
      reads: {
        ...oneFilter(FILTER, { spool: "spool" }),
        files: { "filter.ts": FILTER, "spool/.keep": "" },
      },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const printed = (word: string, from: string) => site.pmilter().prints.next(new RegExp(`^${word} ${from}`));

  test("raw() is to the byte what is delivered", async () => {
    const { text } = await site.deliver({ from: "same@example.test", message: LARGE });
    const delivered = server.withoutOwn(text);
    expect(delivered.length).toBeGreaterThan(3 * 1024 * 1024 - 1);
    expect(await printed("seen", "same@")).toBe(`seen same@example.test ${sha256(delivered)} ${delivered.length} true`);
    expect(parts(delivered).body).toBe(BODY);
  });

  test("replaceBody() is delivered to the byte", async () => {
    const { text } = await site.deliver({ from: "change@example.test", message: LARGE });
    const delivered = server.withoutOwn(text);
    const expected = `CHANGED${BODY.slice(7, -5)}END${BODY.slice(-2)}`;
    expect(parts(delivered).body === expected).toBe(true);
    expect(await printed("then", "change@")).toBe(`then change@example.test ${sha256(delivered)}`);
  });

  test("a part of 20 MB that is replaced is delivered so, and all others as they came", async () => {
    const file = (name: string, bytes: number) =>
      `--b\r\nContent-Type: application/octet-stream; name=${name}\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment\r\n\r\n${randomBytes(
        bytes,
      )
        .toString("base64")
        .replaceAll(/.{76}/g, "$&\r\n")}\r\n`;
    const [first, second] = [file("first.bin", 1000), file("second.bin", 15_000_000)];
    const head = `${HEADERS.join("\r\n")}\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n`;
    const text = "--b\r\n\r\nhello\r\n";
    const message = Buffer.from(`${head}\r\n${text}${first}${second}--b--\r\n`, "latin1");
    const delivered = parts(server.withoutOwn((await site.deliver({ from: "edit@example.test", message })).text));
    const note =
      "--b\r\nContent-Type: text/plain; charset=us-ascii\r\nContent-Transfer-Encoding: 7bit\r\nContent-Disposition: attachment; filename=note.txt\r\n\r\ntaken out\r\n";
    expect(delivered.body === `${text}${note}${second}--b--\r\n`).toBe(true);
    expect(delivered.fields.at(-1)).toBe("X-Edited: yes");
  });
});
