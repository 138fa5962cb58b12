/** Reads or edits a message with one reader, in a process of its own. Arguments: the reader, the file, how often. Prints JSON. */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mimeOfMessage, MimeView } from "../../src/mime/mime.ts";
import { peakBytes as peakOfProcess } from "../support/process.ts";
import { FieldList } from "../../src/mime/part-headers.ts";
import { structureOfMessage } from "../../src/mime/structure.ts";

const [reader = "", file = "", times = "1"] = process.argv.slice(2);
const message = readFileSync(file);

/** A message whose edits are put together, and sent nowhere. */
function editable(): MimeView {
  const structure = structureOfMessage(message);
  return new MimeView({
    structure,
    headers: new FieldList(structure.root.fields),
    bytes: () => message,
    host: { check() {}, setHeader() {}, checkHeader: (_, value) => value, edited() {} },
  });
}

/** @returns bytes that were read or made, so that nothing is left out */
const READERS: Readonly<Record<string, () => number | Promise<number>>> = {
  structure() {
    const mime = mimeOfMessage(message);
    return mime.parts.reduce((sum, { names, type }) => sum + names.length + type.length, mime.flaws.length);
  },
  decoded: () => mimeOfMessage(message).parts.reduce((sum, part) => sum + part.bytes().length, 0),
  footer() {
    const mime = editable();
    mime.footer({ text: "Example Ltd", html: "<p>Example Ltd</p>" });
    return mime.tree.bytes.length;
  },
  replaced() {
    const mime = editable();
    mime.parts.at(-1)!.replaceWith({ text: "It was taken out.", filename: "removed.txt" });
    return mime.tree.bytes.length;
  },
  async mailparser() {
    const { simpleParser } = await import("mailparser");
    const { attachments, text } = await simpleParser(message, { skipTextToHtml: true, skipTextLinks: true });
    return attachments.reduce((sum, { content }) => sum + content.length, text?.length ?? 0);
  },
  async "postal-mime"() {
    const { default: PostalMime } = await import("postal-mime");
    const { attachments, text } = await PostalMime.parse(message, { attachmentEncoding: "arraybuffer" });
    return attachments.reduce((sum, { content }) => sum + (content as ArrayBuffer).byteLength, text?.length ?? 0);
  },
  async mailsplit() {
    const { Splitter } = await import("@zone-eu/mailsplit");
    const splitter = new Splitter();
    let size = 0;
    splitter.on("data", (chunk) => {
      if (chunk.type === "body") size += chunk.value.length;
    });
    splitter.end(message);
    await once(splitter, "end");
    return size;
  },
};

const read = READERS[reader];
if (read === undefined) throw new Error(`expected one of ${Object.keys(READERS).join(", ")}, got "${reader}"`);
// The first time loads libraries and compiles code.
let size = await read();
const count = Number(times);
const began = process.cpuUsage();
for (let time = 0; time < count; time++) size = await read();
const { system, user } = process.cpuUsage(began);
const peakBytes = peakOfProcess(process.pid);
console.log(JSON.stringify({ cpuMs: (user + system) / 1000 / count, peakBytes, size }));
