/**
 * The types of `message.mime()`: the parts of a message, what they contain, and edits of them (RFC 2045 to 2049, 2183, 2231,
 * 2387).
 */

import type { PrepareHtml } from "./html-rewriter.ts";

/**
 * A field of a part's header.
 * @example for (const { name, text } of part.headers) session.log(`${name}: ${text}`);
 */
export interface PartHeader {
  readonly name: string;
  /** Without the white space that follows the colon; folded lines are separated by LF. */
  readonly value: string;
  /** The text that people see: one line, encoded words decoded (RFC 2047). */
  readonly text: string;
}

/**
 * The header of a part, in order. Names match in any case.
 * @example const language = part.headers.text("Content-Language") ?? "";
 */
export interface PartHeaders extends Iterable<PartHeader> {
  readonly length: number;
  /** The value of the first field of that name, undefined if there is none. */
  get(name: string): string | undefined;
  /** The values of all fields of that name, in order. */
  getAll(name: string): string[];
  /** The text of the first field of that name, undefined if there is none. */
  text(name: string): string | undefined;
}

/**
 * Options of an edit.
 * @example part.setText("removed", { breakSeal: true });
 */
export interface EditOptions {
  /**
   * Also edit what is signed or encrypted: the signature will not verify any more. Without it such an edit throws
   * UsageError PMILTER_ERR_SEALED. Default false.
   */
  readonly breakSeal?: boolean;
}

/**
 * Options of `setContent`.
 * @example part.setContent(pdf, { type: "application/pdf", filename: "clean.pdf" });
 */
export interface ContentOptions extends EditOptions {
  /** The new Content-Type, such as `application/pdf`; without it the type stays. */
  readonly type?: string;
  /** The new file name; without it the name stays. */
  readonly filename?: string;
}

/**
 * A note in place of a part.
 * @example part.replaceWith({ text: "The attachment was removed.", filename: "removed.txt" });
 */
export interface Replacement {
  readonly text: string;
  /** With it the note is an attachment, without it text that is shown with the message. */
  readonly filename?: string;
}

/**
 * Text for people, for plain text and for HTML.
 * @example mime.footer({ text: "Example Ltd", html: "<p>Example Ltd</p>" });
 */
export interface Decoration {
  readonly text: string;
  /** A fragment of HTML; without it, it is made from the text. */
  readonly html?: string;
}

/**
 * A file to attach.
 * @example mime.attach({ filename: "terms.txt", type: "text/plain", content: "…" });
 */
export interface Attachment {
  readonly filename: string;
  /** Default `application/octet-stream`. */
  readonly type?: string;
  /** Text is written in UTF-8. */
  readonly content: string | Uint8Array;
}

/**
 * A link in the text or the HTML of a message.
 * @example const isOdd = ({ url, text }: Link) => text.startsWith("http") && new URL(text).host !== new URL(url).host;
 */
export interface Link {
  /** As a browser would open it: references such as `&amp;` decoded, white space around it left out. */
  readonly url: string;
  /** What the reader sees: the text of the element, `""` for a picture; in plain text the link itself. */
  readonly text: string;
  readonly part: Part;
}

/**
 * A part of a message: a multipart with parts in it, or a leaf. Nothing is decoded before it is asked for, and no read
 * throws, whatever a client has sent.
 * @example for (const part of message.mime().attachments) session.log(part.filename ?? part.type);
 */
export interface Part {
  /** In lower case, such as `text/plain`: what RFC 2045 says for one that is missing or cannot be read. */
  readonly type: string;
  /** Of the Content-Type, in lower case; `""` if it says none. */
  readonly charset: string;
  /** The Content-Transfer-Encoding in lower case; `7bit` if there is none. */
  readonly encoding: string;
  /** The Content-Disposition in lower case: `attachment`, `inline`; `""` if there is none. */
  readonly disposition: string;
  /** The file name that most mail programs show, decoded; null if there is none. */
  readonly filename: string | null;
  /** Every name that some mail program might show or save it by. */
  readonly names: readonly string[];
  /** The Content-ID without its brackets; null if there is none. */
  readonly contentId: string | null;
  /** Of the root: the header of the message. */
  readonly headers: PartHeaders;
  /** Bytes of the content, decoded; of a multipart as it stands there. */
  readonly size: number;
  /** The multipart that it is in; null for the root. */
  readonly parent: Part | null;
  /** The parts of a multipart, in order; of a leaf none. */
  readonly parts: readonly Part[];
  /**
   * Text that a mail program shows as the message: plain text, HTML, XHTML, enriched and rich text, and in an alternative text
   * of unknown kinds.
   */
  readonly isShown: boolean;
  /**
   * Anything but text that is shown as the message, pictures that HTML shows included. A form of an alternative that is
   * called an attachment is both: mail programs differ.
   */
  readonly isAttachment: boolean;
  /** It, or a multipart around it, is signed or encrypted. */
  readonly isSealed: boolean;
  /**
   * The content, decoded as far as it can be. Not to be written to, and valid until the message ends.
   */
  bytes(): Uint8Array;
  /** The content as text, in its charset; what is not in the charset becomes U+FFFD. Line ends are LF. */
  text(): string;
  /**
   * The message in a part `message/rfc822` or `message/global`, or in a file that holds one: only to be read. Null if it is
   * none.
   */
  message(): Mime | null;
  /** Replaces the text of a text part; its charset stays if it has all characters, else it becomes UTF-8. */
  setText(text: string, options?: EditOptions): void;
  /** Replaces the content of a part by HTML. */
  setHtml(html: string, options?: EditOptions): void;
  /** Replaces the content. */
  setContent(bytes: Uint8Array, options?: ContentOptions): void;
  /**
   * Rewrites HTML as a stream, by Bun's HTMLRewriter: what no handler of it touches stays byte-identical.
   * @example part.rewriteHtml((rewriter) => rewriter.on("img", { element: (img) => void img.remove() }));
   */
  rewriteHtml(prepare: PrepareHtml, options?: EditOptions): void;
  /** Puts a note in its place. */
  replaceWith(replacement: Replacement, options?: EditOptions): void;
  /** Takes it out of the message. The root cannot be removed. */
  remove(options?: EditOptions): void;
  /** Sets a field of its header; `""` deletes it. Of the root: as `message.changeHeader`. */
  setHeader(name: string, value: string, options?: EditOptions): void;
}

/**
 * The structure of a message, and edits of it. Edits are changes like all others: later reads and later filters see them,
 * they are dropped if the filter fails, and sent once at `eom`. Parts that nobody edited stay byte-identical.
 * @example
 * eom({ message }) {
 *   const mime = message.mime();
 *   if (mime.flaws.length === 0 && !mime.isSealed) mime.footer({ text: "Example Ltd" });
 * }
 */
export interface Mime {
  readonly root: Part;
  /** The leaves, in order. */
  readonly parts: readonly Part[];
  /** All parts, multiparts before the parts in them. */
  walk(): Generator<Part>;
  /** The first body of plain text, decoded; null if there is none. */
  readonly text: string | null;
  /** The first body of HTML, decoded; null if there is none. */
  readonly html: string | null;
  /** The leaves that are attachments. */
  readonly attachments: readonly Part[];
  /** The links of all bodies, at most 10,000. */
  links(): Link[];
  /** Where mail programs may see other parts than these, in words; each once. Empty for nearly all mail. */
  readonly flaws: readonly string[];
  /** A part of it, or all of it, is signed or encrypted: S/MIME, PGP/MIME, or PGP within text. */
  readonly isSealed: boolean;
  /** Puts text on top of the message, in every alternative of its body. */
  banner(decoration: Decoration, options?: EditOptions): void;
  /** Puts text below the message, in every alternative of its body. */
  footer(decoration: Decoration, options?: EditOptions): void;
  /** Adds an attachment behind the others. */
  attach(attachment: Attachment, options?: EditOptions): void;
}
