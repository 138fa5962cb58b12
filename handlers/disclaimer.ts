// Adds a disclaimer to the text and HTML of messages: docs/handlers/disclaimer.md.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { defineFilter, type Message, type State } from "pmilter";
import { DomainList } from "./lib/access-names.ts";
import { append, type Appended, decodeText, type Disclaimer, LeftAlone } from "./lib/append-text.ts";
import { type Options, Prepared } from "./lib/header-options.ts";
import { leavesOf, type Mime, multipartsOf, type Part, readMime } from "./lib/mime.ts";
import { latin1 } from "./lib/transfer-encoding.ts";
import libmime from "libmime";

interface Policy {
  readonly disclaimer: Disclaimer;
  readonly senderDomains: DomainList;
  readonly exceptSenderDomains: DomainList;
  readonly recipientDomains: DomainList;
  readonly exceptRecipientDomains: DomainList;
  readonly marker: string;
  readonly changesDkimSigned: boolean;
}

const policies = new Prepared((options: Options, folder): Policy => {
  const text = readText(options, "text", folder);
  if (text === null) options.fail("text", "the disclaimer, here or in the file that text_file names");
  const html = readText(options, "html", folder) ?? htmlOf(text);
  return {
    disclaimer: { text, html: asciiHtml(html) },
    senderDomains: new DomainList(options, "sender_domains"),
    exceptSenderDomains: new DomainList(options, "except_sender_domains"),
    recipientDomains: new DomainList(options, "recipient_domains"),
    exceptRecipientDomains: new DomainList(options, "except_recipient_domains"),
    marker: options.has("marker") ? options.headerName("marker") : "X-Pmilter-Disclaimer",
    changesDkimSigned: options.choice("dkim_signed", ["leave", "change"], "leave") === "change",
  };
});

/** SMTP allows lines of 998 bytes; some room for encoding. */
const MAX_LINE_BYTES = 900;

/** The option `key`, or the file that `key_file` names; null without both. */
function readText(options: Options, key: string, folder: string): string | null {
  const fileKey = `${key}_file`;
  if (!options.has(key) && !options.has(fileKey)) return null;
  if (options.has(key) && options.has(fileKey)) options.fail(fileKey, `none beside "${key}"`);
  let text = options.text(key, "");
  if (options.has(fileKey)) {
    try {
      text = readFileSync(resolve(folder, options.text(fileKey)), "utf8").replace(/^\ufeff/, "");
    } catch (error) {
      options.fail(fileKey, `a file that can be read (${error instanceof Error ? error.message : String(error)})`);
    }
  }
  const used = options.has(fileKey) ? fileKey : key;
  // Spaces at the ends of lines have a meaning in format=flowed.
  const lines = text.split(/\r?\n/).map((line) => line.trimEnd());
  const trimmed = lines.join("\n").replace(/^\n+/, "").trimEnd();
  if (trimmed === "") options.fail(used, "some text");
  // oxlint-disable-next-line no-control-regex
  if (/[\0-\x08\x0b-\x1f\x7f\ufffd]/.test(trimmed)) options.fail(used, "text in UTF-8 without control characters");
  if (lines.some((line) => Buffer.byteLength(asciiHtml(line)) > MAX_LINE_BYTES)) {
    options.fail(used, `lines of at most ${MAX_LINE_BYTES} bytes`);
  }
  return trimmed;
}

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
function applies(policy: Policy, message: Message<"eom", State, "skip">): boolean {
  const { senderDomains, exceptSenderDomains, recipientDomains, exceptRecipientDomains } = policy;
  const sender = message.sender.address;
  return (
    (senderDomains.isEmpty || senderDomains.has(sender)) &&
    !exceptSenderDomains.has(sender) &&
    message.recipients.some(
      ({ address }) =>
        (recipientDomains.isEmpty || recipientDomains.has(address)) && !exceptRecipientDomains.has(address),
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
  collectBody: { over: "skip" },

  start(options, { folder }) {
    policies.start(options, folder);
  },

  eom({ message, options, queueId }) {
    const policy = policies.of(options);
    if (!applies(policy, message) || message.headers.get(policy.marker) !== undefined) return;
    // Null: larger than a body that is collected.
    const body = message.body();
    try {
      if (body === null) throw new LeftAlone("its body is larger than limits.body");
      if (!policy.changesDkimSigned && message.headers.get("DKIM-Signature") !== undefined) {
        throw new LeftAlone("it is signed with DKIM");
      }
      addDisclaimer(message, body, policy.disclaimer);
      message.addHeader(policy.marker, "added");
    } catch (error) {
      if (!(error instanceof LeftAlone)) throw error;
      console.log(`disclaimer: queue_id=${queueId} left alone: ${error.message}`);
    }
  },
});
