// Adds a disclaimer to the text and HTML of messages: docs/handlers/disclaimer.md.
import { readFileSync } from "node:fs";
import { defineFilter, type Message, type State } from "pmilter";
import {
  check,
  expected,
  file,
  type InferOutput,
  picklist,
  pipe,
  rawTransform,
  string,
  table,
  transform,
} from "pmilter/options";
import { append, type Appended, decodeText, type Disclaimer, LeftAlone } from "./lib/append-text.ts";
import { leavesOf, type Mime, multipartsOf, type Part, readMime } from "./lib/mime.ts";
import { domains, headerName, line, made, option, unset } from "./lib/options.ts";
import { latin1 } from "./lib/transfer-encoding.ts";
import libmime from "libmime";

/** SMTP allows lines of 998 bytes; some room for encoding. */
const MAX_LINE_BYTES = 900;

/** Text for people, without white space around it and at the ends of its lines, where it has a meaning in format=flowed. */
const words = () =>
  pipe(
    string(),
    transform((text) => text.split(/\r?\n/).map((line) => line.trimEnd())),
    check((lines) => lines.join("").trim() !== "", expected("some text")),
    check(
      // oxlint-disable-next-line no-control-regex
      (lines) => !lines.some((line) => /[\0-\x08\x0b-\x1f\x7f\ufffd]/.test(line)),
      expected("text in UTF-8 without control characters"),
    ),
    check(
      (lines) => lines.every((line) => Buffer.byteLength(asciiHtml(line)) <= MAX_LINE_BYTES),
      expected(`lines of at most ${MAX_LINE_BYTES} bytes`),
    ),
    transform((lines) => lines.join("\n").replace(/^\n+/, "").trimEnd()),
  );

/** The text of a file. */
const wordsIn = () =>
  pipe(
    file(),
    rawTransform<string, string>(({ addIssue, dataset: { value: path }, NEVER }) => {
      try {
        return readFileSync(path, "utf8").replace(/^\ufeff/, "");
      } catch (error) {
        addIssue({
          message: `expected a file that can be read: ${error instanceof Error ? error.message : String(error)}`,
        });
        return NEVER;
      }
    }),
    words(),
  );

export const entries = {
  text: unset(pipe(line(), words()), "none", "the disclaimer, one line"),
  text_file: unset(
    wordsIn(),
    "none",
    "a file with the text, in UTF-8, instead of `text`; a relative path is relative to the configuration",
  ),
  html: unset(pipe(line(), words()), "made from the text", "the disclaimer for HTML, one line"),
  html_file: unset(wordsIn(), "none", "a file with the HTML, instead of `html`"),
  sender_domains: option(domains(), [], "only mail from these domains"),
  except_sender_domains: option(domains(), [], "no mail from these domains"),
  recipient_domains: option(domains(), [], "only mail with a recipient in these domains"),
  except_recipient_domains: option(
    domains(),
    [],
    "recipients in these domains do not count: mail that goes only to them gets no disclaimer",
  ),
  marker: option(
    headerName(),
    "X-Pmilter-Disclaimer",
    "the header that marks a message with a disclaimer; a message that already has this header gets no disclaimer",
  ),
  dkim_signed: option(
    picklist(["leave", "change"]),
    "leave",
    'a message with a DKIM-Signature stays unchanged; with `"change"` it gets the disclaimer, which breaks the signature',
  ),
};

export const options = made(table(entries), ({ html, html_file, text, text_file, ...rest }, fail) => {
  if (text !== undefined && text_file !== undefined) fail("text_file", 'none beside "text"');
  if (html !== undefined && html_file !== undefined) fail("html_file", 'none beside "html"');
  const plain = text ?? text_file ?? fail("text", "the disclaimer, here or in the file that text_file names");
  const disclaimer: Disclaimer = { text: plain, html: asciiHtml(html ?? html_file ?? htmlOf(plain)) };
  return { ...rest, disclaimer };
});

type Options = InferOutput<typeof options>;

function htmlOf(text: string): string {
  const escaped = text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return `<p>${escaped.replaceAll("\n", "<br>\n")}</p>`;
}

/** References instead of characters beyond ASCII fit into every charset. */
function asciiHtml(html: string): string {
  return html.replaceAll(/[^\0-\x7f]/gu, (character) => `&#${character.codePointAt(0)};`); // oxlint-disable-line no-control-regex
}

/**
 * Each condition that is given must hold. All recipients get the same body: a single recipient that matches is enough.
 */
function applies(options: Options, message: Message<"eom", State, "skip">): boolean {
  const { except_recipient_domains, except_sender_domains, recipient_domains, sender_domains } = options;
  const { domain } = message.sender;
  return (
    (sender_domains.isEmpty || sender_domains.has(domain)) &&
    !except_sender_domains.has(domain) &&
    message.recipients.some(
      (recipient) =>
        (recipient_domains.isEmpty || recipient_domains.has(recipient.domain)) &&
        !except_recipient_domains.has(recipient.domain),
    )
  );
}

/** Parts that are signed by their author, or that only the recipient can read. */
const SEALED_TYPES = new Set([
  "multipart/signed",
  "multipart/encrypted",
  "application/pkcs7-mime",
  "application/x-pkcs7-mime",
  "application/pkcs7-signature",
  "application/x-pkcs7-signature",
  "application/pgp-encrypted",
  "application/pgp-signature",
  // Reports of delivery: programs read them.
  "multipart/report",
]);
const SEALED_NAME = /\.(?:p7[ms]|asc|sig)$/i;
const INLINE_PGP = /^-----BEGIN PGP (?:SIGNED )?MESSAGE-----/m;

/** @throws LeftAlone if nothing in the message may be changed */
function checkUntouched({ root, flaws, isCut }: Mime, body: Uint8Array): void {
  if (isCut) throw new LeftAlone("it has too many parts");
  if (flaws.length > 0) throw new LeftAlone(`it has ${flaws[0]}`);
  for (const part of [...multipartsOf(root), ...leavesOf(root)]) {
    if (SEALED_TYPES.has(part.type)) throw new LeftAlone(`it has a part ${part.type}`);
    if (part.names.some((name) => SEALED_NAME.test(name))) throw new LeftAlone("it has a signature");
    if (isText(part) && INLINE_PGP.test(latin1(decodeText(part, body.subarray(part.start, part.end))))) {
      throw new LeftAlone("it is signed or encrypted with PGP");
    }
  }
}

/** Text that is shown as the message, not as an attachment. */
function isText(part: Part): boolean {
  const isTextType = part.type === "text/plain" || part.type === "text/html";
  return isTextType && part.disposition !== "attachment" && part.names.length === 0;
}

/** The parts that are read as the text of the message: each form of it in an alternative, else the first. */
function textsOf(part: Part): readonly Part[] {
  switch (part.type) {
    case "text/plain":
    case "text/html":
      return isText(part) ? [part] : [];
    case "multipart/alternative":
      return part.parts.flatMap(textsOf);
    case "multipart/related": {
      // Its other parts belong to the root (RFC 2387).
      const start = part.params["start"];
      const root = part.parts.find((child) => start !== undefined && contentId(child) === start) ?? part.parts[0];
      return root === undefined ? [] : textsOf(root);
    }
    case "multipart/mixed":
      return part.parts.map(textsOf).find((texts) => texts.length > 0) ?? [];
    default:
      return [];
  }
}

function contentId(part: Part): string | undefined {
  return part.fields.find(({ name }) => name.toLowerCase() === "content-id")?.value;
}

/** A line of the disclaimer must not look like the end of a part, with any boundary that the sender chose. */
function checkBoundaries(root: Part, { text, html }: Disclaimer): void {
  const lines = `${text}\n${html}`.split("\n").filter((line) => line.startsWith("--"));
  for (const { boundary } of multipartsOf(root)) {
    if (lines.some((line) => line.startsWith(`--${boundary}`))) {
      throw new LeftAlone("a line of the disclaimer is its boundary");
    }
  }
}

interface Edit {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

/** The header fields of a part after the change. */
function changedFields(part: Part, { charset, encoding }: Appended): Map<string, string> {
  const changes = new Map<string, string>();
  if (charset !== undefined) {
    const params = { ...part.params, charset };
    changes.set("Content-Type", libmime.buildHeaderValue({ value: part.type, params }));
  }
  if (encoding !== undefined) changes.set("Content-Transfer-Encoding", encoding);
  return changes;
}

function editFields(part: Part, changes: Map<string, string>): Edit[] {
  return Array.from(changes, ([name, value]) => {
    const field = part.fields.find((field) => field.name.toLowerCase() === name.toLowerCase());
    const { start, end } = field ?? { start: part.head, end: part.head };
    return { start, end, bytes: Buffer.from(`${name}: ${value}\r\n`, "utf8") };
  });
}

function applyEdits(body: Uint8Array, edits: readonly Edit[]): Uint8Array {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const { start, end, bytes } of [...edits].sort((one, other) => one.start - other.start)) {
    pieces.push(body.subarray(at, start), bytes);
    at = end;
  }
  return Buffer.concat([...pieces, body.subarray(at)]);
}

/** @throws LeftAlone */
function addDisclaimer(message: Message<"eom", State, "skip">, body: Uint8Array, disclaimer: Disclaimer): void {
  const mime = readMime(message.headers, body);
  checkUntouched(mime, body);
  checkBoundaries(mime.root, disclaimer);
  const texts = textsOf(mime.root);
  if (texts.length === 0) throw new LeftAlone("it has no text");

  const edits: Edit[] = [];
  for (const part of texts) {
    const appended = append(part, body.subarray(part.start, part.end), disclaimer);
    edits.push({ start: part.start, end: part.end, bytes: appended.content });
    const changes = changedFields(part, appended);
    if (part !== mime.root) {
      edits.push(...editFields(part, changes));
      continue;
    }
    for (const [name, value] of changes) message.changeHeader(name, value);
    if (changes.size > 0 && message.headers.get("MIME-Version") === undefined) message.addHeader("MIME-Version", "1.0");
  }
  const changed = applyEdits(body, edits);
  // Encoded text may end without a line end; in SMTP a message does not.
  message.replaceBody(changed.at(-1) === 0x0a ? changed : Buffer.concat([changed, Buffer.from("\r\n")]));
}

export default defineFilter({
  name: "disclaimer",
  options,
  collectBody: { over: "skip" },

  eom({ log, message, options }) {
    if (!applies(options, message) || message.headers.get(options.marker) !== undefined) return;
    // Null: larger than a body that is collected.
    const body = message.body();
    try {
      if (body === null) throw new LeftAlone("its body is larger than limits.body");
      if (options.dkim_signed === "leave" && message.headers.get("DKIM-Signature") !== undefined) {
        throw new LeftAlone("it is signed with DKIM");
      }
      addDisclaimer(message, body, options.disclaimer);
      message.addHeader(options.marker, "added");
    } catch (error) {
      if (!(error instanceof LeftAlone)) throw error;
      log.warn(`left alone: ${error.message}`);
    }
  },
});
