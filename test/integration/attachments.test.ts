/** `action = "replace"` of attachments, behind both mail servers: the note arrives, the original is kept. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readMessage } from "../../src/index.ts";
import { zip } from "../support/archives.ts";
import { tempDir, type TempDir } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { outcome } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const ARCHIVE = zip([{ name: "readme.txt" }, { name: "setup.exe" }]);
const MESSAGE = [
  "From: <a@example.net>",
  "Subject: hi",
  "MIME-Version: 1.0",
  "Content-Type: multipart/mixed; boundary=b",
  "",
  "--b",
  "",
  "see below",
  "--b",
  "Content-Type: application/zip; name=all.zip",
  "Content-Transfer-Encoding: base64",
  "",
  ...ARCHIVE.toString("base64").match(/.{1,76}/g)!,
  "--b",
  "Content-Type: text/plain; name=ok.txt",
  "",
  "fine",
  "--b--",
  "",
].join("\r\n");

describeBehindEach("attachments that are replaced", (server) => {
  let site: MailSite;
  let dir: TempDir;
  beforeAll(async () => {
    dir = await tempDir("kept");
    const options = `action = "replace"\nkeep_folder = ${JSON.stringify(join(dir.path, "kept"))}\n`;
    site = await server.startSite({ all: { config: `[[filter]]\nuse = "attachments"\n[filter.options]\n${options}` } });
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await dir?.[Symbol.asyncDispose]();
  });

  test("the note arrives in the place of the attachment, which is kept", async () => {
    const { last } = await site.send({ message: MESSAGE });
    const { text } = await site.delivered(last);
    const mime = readMessage(Buffer.from(text));
    expect(mime.flaws).toEqual([]);
    expect(mime.parts.map(({ filename }) => filename)).toEqual([null, "removed.txt", "ok.txt"]);
    expect(mime.parts.map((part) => part.text().trimEnd())).toEqual([
      "see below",
      expect.stringContaining('The attachment "all.zip" was removed from this message.'),
      "fine",
    ]);
    expect(mime.root.headers.text("X-Attachment-Report")).toBe('"all.zip > setup.exe": its name matches *.exe');
    const [name] = await readdir(join(dir.path, "kept"));
    expect(mime.parts[1]!.text()).toContain(`find it as ${name}.`);
    expect((await readFile(join(dir.path, "kept", name!))).equals(ARCHIVE)).toBe(true);
  });

  test("a message with a flaw is refused as a whole", async () => {
    const message = MESSAGE.replace("--b--\r\n", "");
    expect(outcome(await site.send({ message }))).toMatch(/^end: 550 5\.7\.1 .*a multipart that does not end$/);
  });
});
