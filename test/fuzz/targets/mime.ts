/**
 * The reader of MIME on messages of any kind: nothing but a structure comes out, its parts make a tree with a bound, each
 * part has content, and the same bytes give the same structure.
 */
import { type Mime, type Part, readMessage } from "../../../src/index.ts";
import { MIME_LIMITS } from "../../../src/mime/structure.ts";
import { anyMessage } from "../../mime/random-messages.ts";
import { must, type Target } from "../target.ts";

/** What a structure says, to be compared. */
function described(mime: Mime): string {
  const parts = Array.from(mime.walk(), (part) => [part.type, part.names, part.encoding, part.disposition, part.size]);
  return JSON.stringify([parts, mime.flaws, mime.text, mime.html, mime.links().map(({ url }) => url), mime.isSealed]);
}

function check(mime: Mime, input: Uint8Array, levels: number): void {
  const all = [...mime.walk()];
  must(all[0] === mime.root && mime.root.parent === null, "the walk does not begin at the root");
  must(all.length <= MIME_LIMITS.parts + 1, () => `${all.length} parts`);
  must(new Set(all).size === all.length, "a part is walked twice");
  must(new Set(mime.flaws).size === mime.flaws.length, () => `a flaw is told twice: ${mime.flaws.join(", ")}`);
  const leaves = all.filter(({ parts }) => parts.length === 0);
  must(
    leaves.length === mime.parts.length && leaves.every((part, n) => part === mime.parts[n]),
    "parts are not the leaves",
  );
  must(
    mime.attachments.every((part) => part.isAttachment && leaves.includes(part)),
    "an attachment is no leaf",
  );
  for (const part of all) checkPart(part, input, levels);
}

function checkPart(part: Part, input: Uint8Array, levels: number): void {
  for (const child of part.parts) must(child.parent === part, "a part has another parent");
  let depth = 0;
  for (let up: Part | null = part; up !== null; up = up.parent) depth += 1;
  must(depth <= MIME_LIMITS.depth + 1, () => `a part at depth ${depth}`);
  must(part.bytes().length === part.size && part.size <= input.length, () => `a part of ${part.size} bytes`);
  must(part.names.length < 100 && part.names.every((name) => name !== ""), () => `names ${JSON.stringify(part.names)}`);
  must(!part.text().includes("\r"), "text with a CR");
  must([...part.headers].length === part.headers.length, "headers and their number differ");
  const message = part.message();
  if (message !== null && levels > 0) check(message, part.bytes(), levels - 1);
}

export const mimeTarget: Target = {
  name: "mime",
  unit: "line",
  generate: anyMessage,
  check(input) {
    const mime = readMessage(input);
    check(mime, input, 5);
    const again = readMessage(Buffer.concat([Buffer.of(10), input, Buffer.of(10)]).subarray(1, input.length + 1));
    must(described(mime) === described(again), "the same bytes elsewhere give another structure");
  },
};
