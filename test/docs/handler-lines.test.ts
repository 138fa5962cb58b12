/** The `text` blocks of the handlers' pages: what those handlers say of a mail made for it. */
import { expect, spyOn, test } from "bun:test";
import { crc32 } from "node:zlib";
import attachments from "../../handlers/attachments.ts";
import disclaimer from "../../handlers/disclaimer.ts";
import type { AnyFilter } from "../../src/handler/types.ts";
import { runFilter } from "../../src/testing/index.ts";
import { blockOf, blocksOf } from "./blocks.ts";

/** What is said of a message: the SMTP reply, if there is one, and what is printed. */
async function said(filter: AnyFilter, eml: string, options: Record<string, unknown>): Promise<string> {
  const lines: string[] = [];
  const log = spyOn(console, "log").mockImplementation((line: string) => void lines.push(line));
  try {
    const { reply, failures } = await runFilter(filter, { eml, options, macros: { i: "4ZB1" } });
    expect(failures).toEqual([]);
    if (reply !== null) lines.unshift(`${reply.code} ${reply.enhanced} ${reply.lines.join("\n")}`);
  } finally {
    log.mockRestore();
  }
  return lines.map((line) => `${line}\n`).join("");
}

/** A zip archive of one file, stored. */
function zip(name: string, content: Buffer): Buffer {
  const fields = Buffer.alloc(26);
  fields.writeUInt16LE(20, 0);
  fields.writeUInt32LE(crc32(content), 10);
  fields.writeUInt32LE(content.length, 14);
  fields.writeUInt32LE(content.length, 18);
  fields.writeUInt16LE(name.length, 22);
  const local = Buffer.concat([Buffer.from("PK\x03\x04"), fields, Buffer.from(name), content]);
  const central = Buffer.concat([Buffer.from("PK\x01\x02\x14\0"), fields, Buffer.alloc(14), Buffer.from(name)]);
  const end = Buffer.alloc(18);
  end.writeUInt16LE(1, 4);
  end.writeUInt16LE(1, 6);
  end.writeUInt32LE(central.length, 8);
  end.writeUInt32LE(local.length, 12);
  return Buffer.concat([local, central, Buffer.from("PK\x05\x06"), end]);
}

test("docs/handlers/attachments.md: the reply and the line of an executable in an archive", async () => {
  const eml = [
    "Subject: x",
    "MIME-Version: 1.0",
    'Content-Type: application/zip; name="all.zip"',
    'Content-Disposition: attachment; filename="all.zip"',
    "Content-Transfer-Encoding: base64",
    "",
    zip("setup.exe", Buffer.from("no program")).toString("base64"),
    "",
  ].join("\n");
  expect(await said(attachments, eml, {})).toBe(blockOf("text", "docs/handlers/attachments.md").text);
});

test("docs/handlers/disclaimer.md: the line of a signed mail", async () => {
  const eml = [
    "Subject: x",
    "MIME-Version: 1.0",
    'Content-Type: multipart/signed; boundary="b"; protocol="application/pgp-signature"',
    "",
    "--b",
    "Content-Type: text/plain",
    "",
    "signed",
    "--b",
    "Content-Type: application/pgp-signature",
    "",
    "x",
    "--b--",
    "",
  ].join("\n");
  const options = { text: "Confidential" };
  expect(await said(disclaimer, eml, options)).toBe(blockOf("text", "docs/handlers/disclaimer.md").text);
});

test("no other handler's page has lines that nobody compares", () => {
  const pages = new Set(["docs/handlers/attachments.md", "docs/handlers/disclaimer.md"]);
  const others = blocksOf("text").filter(({ file }) => file.startsWith("docs/handlers/") && !pages.has(file));
  expect(others).toEqual([]);
});
