/** The replies and log lines of the handlers' pages: what those handlers say of a mail made for it. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import attachments from "../../handlers/attachments.ts";
import disclaimer from "../../handlers/disclaimer.ts";
import type { AnyFilter } from "../../src/handler/types.ts";
import { runFilter } from "../../src/testing/index.ts";
import { blockOf, blocksOf, ROOT } from "./blocks.ts";

/** What is said of a message: the SMTP reply, if there is one, and the `text` of a log line. */
async function said(filter: AnyFilter, eml: string, options: Record<string, unknown>) {
  const { failures, notes, reply } = await runFilter(filter, { eml, options });
  expect(failures).toEqual([]);
  const [note] = notes;
  expect(notes).toHaveLength(1);
  expect(note?.level).toBe("warn");
  return {
    reply: reply === null ? null : `${reply.code} ${reply.enhanced} ${reply.lines.join("\n")}\n`,
    line: `text=${JSON.stringify(note?.text)}`,
  };
}

/** The page, and whether it shows a log line. */
async function expectShown(file: string, line: string): Promise<void> {
  expect(await Bun.file(join(ROOT, file)).text()).toContain(`\`${line}\``);
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
  const { line, reply } = await said(attachments, eml, {});
  expect(reply).toBe(blockOf("text", "docs/handlers/attachments.md").text);
  await expectShown("docs/handlers/attachments.md", line);
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
  const { line, reply } = await said(disclaimer, eml, options);
  expect(reply).toBeNull();
  await expectShown("docs/handlers/disclaimer.md", line);
});

test("no other handler's page has lines that nobody compares", () => {
  const pages = blocksOf("text").map(({ file }) => file);
  expect(pages.filter((file) => file.startsWith("docs/handlers/"))).toEqual(["docs/handlers/attachments.md"]);
});
