/**
 * The objects of `message.mime()`: the structure of a message and its parts, as a handler reads them. Nothing is decoded
 * before it is asked for.
 */
import { UsageError } from "../usage-error.ts";
import { decodeCharset } from "./charset.ts";
import { linksOfHtml, linksOfText } from "./links.ts";
import { FieldList } from "./part-headers.ts";
import { isSealedByHeader, isSealedText } from "./seal.ts";
import { type Entity, type Structure, structureOfMessage } from "./structure.ts";
import { decodeLeniently, IDENTITY } from "./transfer-encoding.ts";
import type {
  Attachment,
  ContentOptions,
  Decoration,
  EditOptions,
  Link,
  Mime,
  Part,
  PartHeaders,
  Replacement,
} from "./types.ts";

/** The message that a structure describes. */
export interface MimeSource {
  readonly structure: Structure;
  /** The header of the message, with its changes. */
  readonly headers: PartHeaders;
  /**
   * The bytes that the offsets of the structure refer to.
   * @throws UsageError PMILTER_ERR_OVER once their memory was given back
   */
  bytes(): Uint8Array;
}

/** More links than that are not looked for. */
const MAX_LINKS = 10_000;

/** The structure of a whole message in bytes, only to be read. */
export function mimeOfMessage(bytes: Uint8Array): MimeView {
  const structure = structureOfMessage(bytes);
  return new MimeView({ structure, headers: new FieldList(structure.root.fields), bytes: () => bytes });
}

export class MimeView implements Mime {
  readonly source: MimeSource;
  readonly root: Part;
  #leaves: readonly PartView[] | null = null;

  constructor(source: MimeSource) {
    this.source = source;
    this.root = new PartView(this, source.structure.root, null);
  }

  get parts(): readonly PartView[] {
    return (this.#leaves ??= [...this.walk()].filter(({ isLeaf }) => isLeaf));
  }

  *walk(): Generator<PartView> {
    yield* walkFrom(this.root as PartView);
  }

  get text(): string | null {
    return this.#body("text/plain");
  }

  get html(): string | null {
    return this.#body("text/html");
  }

  #body(type: string): string | null {
    return this.parts.find((part) => part.type === type && !part.isAttachment)?.text() ?? null;
  }

  get attachments(): readonly Part[] {
    return this.parts.filter(({ isAttachment }) => isAttachment);
  }

  links(): Link[] {
    const links: Link[] = [];
    for (const part of this.parts) {
      if (part.isAttachment) continue;
      const most = MAX_LINKS - links.length;
      const found = part.type === "text/html" ? linksOfHtml(part.text(), most) : linksOfText(part.text());
      for (const { url, text } of found) {
        if (links.length === MAX_LINKS) return links;
        links.push({ url, text, part });
      }
    }
    return links;
  }

  get flaws(): readonly string[] {
    return this.source.structure.flaws;
  }

  get isSealed(): boolean {
    return [...this.walk()].some((part) => part.isSealed);
  }

  banner(_decoration: Decoration, _options?: EditOptions): void {
    readOnly("banner");
  }

  footer(_decoration: Decoration, _options?: EditOptions): void {
    readOnly("footer");
  }

  attach(_attachment: Attachment, _options?: EditOptions): void {
    readOnly("attach");
  }
}

function* walkFrom(part: PartView): Generator<PartView> {
  yield part;
  for (const child of part.parts) yield* walkFrom(child);
}

export class PartView implements Part {
  readonly mime: MimeView;
  readonly entity: Entity;
  readonly parent: PartView | null;
  #parts: readonly PartView[] | null = null;
  #headers: PartHeaders | null = null;
  #size: number | null = null;
  #isSealedText: boolean | null = null;
  /** Kept as long as the collector has no use for its memory. */
  #decoded: WeakRef<Uint8Array> | null = null;

  constructor(mime: MimeView, entity: Entity, parent: PartView | null) {
    this.mime = mime;
    this.entity = entity;
    this.parent = parent;
  }

  get type(): string {
    return this.entity.type;
  }

  get charset(): string {
    return (this.entity.params["charset"] ?? "").trim().toLowerCase();
  }

  get encoding(): string {
    return this.entity.encoding;
  }

  get disposition(): string {
    return this.entity.disposition;
  }

  get filename(): string | null {
    return this.entity.names[0] ?? null;
  }

  get names(): readonly string[] {
    return this.entity.names;
  }

  get contentId(): string | null {
    const value = this.headers.get("Content-ID");
    return value === undefined ? null : /<([^>]*)>/.exec(value)?.[1]?.trim() || value.trim() || null;
  }

  get headers(): PartHeaders {
    if (this.parent === null) return this.mime.source.headers;
    return (this.#headers ??= new FieldList(this.entity.fields));
  }

  get size(): number {
    return (this.#size ??= this.bytes().length);
  }

  get parts(): readonly PartView[] {
    return (this.#parts ??= this.entity.parts.map((entity) => new PartView(this.mime, entity, this)));
  }

  /** So is a multipart that cannot be taken apart. */
  get isLeaf(): boolean {
    return this.parts.length === 0;
  }

  get isAttachment(): boolean {
    return this.isLeaf && !this.#isShown;
  }

  /** Text that is shown as the message. */
  get #isShown(): boolean {
    const { disposition, parent, type } = this;
    if (type !== "text/plain" && type !== "text/html") return false;
    // An unknown disposition means an attachment (RFC 2183 2.8).
    if (disposition !== "" && disposition !== "inline") return false;
    if (parent === null) return true;
    if (parent.type === "multipart/alternative") return true;
    return parent.parts[0] === this || (this.filename === null && parent.type !== "multipart/related");
  }

  get isSealed(): boolean {
    if (isSealedByHeader(this.entity) || this.parent?.isSealed === true) return true;
    return (this.#isSealedText ??= this.isLeaf && this.type.startsWith("text/") && isSealedText(this.text()));
  }

  /** The content as it stands in the message. */
  get raw(): Uint8Array {
    return this.mime.source.bytes().subarray(this.entity.start, this.entity.end);
  }

  bytes(): Uint8Array {
    const { encoding, raw } = this;
    if (this.type.startsWith("multipart/") || IDENTITY.includes(encoding)) return raw;
    const kept = this.#decoded?.deref();
    if (kept !== undefined) return kept;
    const decoded = decodeLeniently(raw, encoding);
    this.#decoded = new WeakRef(decoded);
    return decoded;
  }

  text(): string {
    return decodeCharset(this.bytes(), this.charset).replaceAll(/\r\n?/g, "\n");
  }

  message(): Mime | null {
    return this.type === "message/rfc822" || this.type === "message/global" ? mimeOfMessage(this.bytes()) : null;
  }

  setText(_text: string, _options?: EditOptions): void {
    readOnly("setText");
  }

  setHtml(_html: string, _options?: EditOptions): void {
    readOnly("setHtml");
  }

  setContent(_bytes: Uint8Array, _options?: ContentOptions): void {
    readOnly("setContent");
  }

  rewriteHtml(_prepare: (rewriter: HTMLRewriter) => unknown, _options?: EditOptions): void {
    readOnly("rewriteHtml");
  }

  replaceWith(_replacement: Replacement, _options?: EditOptions): void {
    readOnly("replaceWith");
  }

  remove(_options?: EditOptions): void {
    readOnly("remove");
  }

  setHeader(_name: string, _value: string, _options?: EditOptions): void {
    readOnly("setHeader");
  }
}

function readOnly(method: string): never {
  throw new UsageError("PMILTER_ERR_NOT_HERE", `${method}: this message is only to be read`);
}
