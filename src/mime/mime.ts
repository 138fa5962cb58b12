/**
 * The objects of `message.mime()`: the structure of a message and its parts, as a handler reads and edits them. Nothing is
 * decoded before it is asked for.
 */
import { UsageError } from "../usage-error.ts";
import { decodeCharset } from "./charset.ts";
import { linksOfHtml, linksOfText } from "./links.ts";
import type { PrepareHtml } from "./html-rewriter.ts";
import { FieldList } from "./part-headers.ts";
import { isSealedByHeader, isSealedText } from "./seal.ts";
import { Editor, type EditHost } from "./editor.ts";
import { formOf, isFile, shownIn } from "./shown.ts";
import { charsetNamedBy, type Entity, type Structure, structureOfMessage } from "./structure.ts";
import { decodeLeniently, IDENTITY } from "./transfer-encoding.ts";
import { type PartNode, PartTree } from "./tree.ts";
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
  /** What the edits are changes of; null if the message is only to be read. */
  readonly host: EditHost | null;
}

/** What a part of these types holds is a message. */
const MESSAGES: ReadonlySet<string> = new Set(["message/rfc822", "message/global", "message/news"]);
/** A file of these types may be one: web archives (RFC 2557), and names that are not registered. */
const MESSAGE_FILES: ReadonlySet<string> = new Set([
  "text/rfc822",
  "message/rfc2822",
  "application/rfc822",
  "application/x-mimearchive",
  "application/x-eml",
]);

/** How messages begin, in a file whose name and type do not say that it is one. */
const LIKELY =
  /^(?:>?From |(?:received|return-path|delivered-to|from|to|subject|date|message-id|mime-version|content-type|dkim-signature|arc-\w+|x-[\w-]+):)/i;

/** The first line of a message is a field, or a mailbox's line. */
function beginsAsMessage(bytes: Uint8Array, isFile: boolean): boolean {
  const head = Buffer.from(bytes.subarray(0, 1000)).toString("latin1").replace("\xef\xbb\xbf", "");
  if (!isFile) return LIKELY.test(head);
  return /^\s*(?:>?From |[!-9;-~]+[ \t]*:)/.test(head);
}

/** More links than that are not looked for. */
const MAX_LINKS = 10_000;

/** The structure of a whole message in bytes, only to be read. */
export function mimeOfMessage(bytes: Uint8Array): MimeView {
  const structure = structureOfMessage(bytes);
  return new MimeView({ structure, headers: new FieldList(structure.root.fields), bytes: () => bytes, host: null });
}

export class MimeView implements Mime {
  readonly source: MimeSource;
  readonly tree: PartTree;
  readonly editor: Editor;
  readonly #views = new Map<PartNode, PartView>();
  #leaves: readonly PartView[] | null = null;
  #leavesVersion = 0;
  #shown: ReadonlySet<PartNode> | null = null;
  #shownVersion = 0;

  constructor(source: MimeSource) {
    this.source = source;
    this.tree = new PartTree({ bytes: () => source.bytes(), fields: () => source.headers }, source.structure);
    this.editor = new Editor(this.tree, source.host);
  }

  get root(): PartView {
    return this.viewOf(this.tree.root);
  }

  /** The object of a part: always the same. */
  viewOf(node: PartNode): PartView {
    let view = this.#views.get(node);
    if (view === undefined) {
      view = new PartView(this, node);
      this.#views.set(node, view);
    }
    return view;
  }

  get parts(): readonly PartView[] {
    if (this.#leaves === null || this.#leavesVersion !== this.tree.version) {
      this.#leaves = [...this.walk()].filter(({ isLeaf }) => isLeaf);
      this.#leavesVersion = this.tree.version;
    }
    return this.#leaves;
  }

  /** The text that is shown as the message. */
  get shown(): ReadonlySet<PartNode> {
    if (this.#shown === null || this.#shownVersion !== this.tree.version) {
      this.#shown = new Set(shownIn(this.tree.root).flat());
      this.#shownVersion = this.tree.version;
    }
    return this.#shown;
  }

  *walk(): Generator<PartView> {
    yield* walkFrom(this.root);
  }

  get text(): string | null {
    return this.#body("text/plain");
  }

  get html(): string | null {
    return this.#body("text/html");
  }

  #body(type: string): string | null {
    return this.parts.find((part) => part.type === type && part.isShown)?.text() ?? null;
  }

  get attachments(): readonly Part[] {
    return this.parts.filter(({ isAttachment }) => isAttachment);
  }

  links(): Link[] {
    const links: Link[] = [];
    for (const part of this.parts) {
      if (!part.isShown) continue;
      const most = MAX_LINKS - links.length;
      const found = formOf(part.type) === "html" ? linksOfHtml(part.text(), most) : linksOfText(part.text());
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

  banner(decoration: Decoration, options?: EditOptions): void {
    this.editor.decorate("banner", decoration, "top", this.#sealCheck("banner", options));
  }

  footer(decoration: Decoration, options?: EditOptions): void {
    this.editor.decorate("footer", decoration, "bottom", this.#sealCheck("footer", options));
  }

  attach(attachment: Attachment, options?: EditOptions): void {
    this.#sealCheck("attach", options)([this.tree.root]);
    this.editor.attach(attachment);
  }

  #sealCheck(method: string, options?: EditOptions): (nodes: readonly PartNode[]) => void {
    return (nodes) => {
      for (const node of nodes) this.viewOf(node).checkSeal(method, options);
    };
  }
}

function* walkFrom(part: PartView): Generator<PartView> {
  yield part;
  for (const child of part.parts) yield* walkFrom(child);
}

/** What was read of a part, until it is edited. */
class Kept {
  readonly version: number;
  parts: readonly PartView[] | null = null;
  headers: PartHeaders | null = null;
  size: number | null = null;
  isSealedText: boolean | null = null;
  /** As long as the collector has no use for its memory. */
  decoded: WeakRef<Uint8Array> | null = null;

  constructor(version: number) {
    this.version = version;
  }
}

export class PartView implements Part {
  readonly mime: MimeView;
  readonly #node: PartNode;
  #read: Kept;

  constructor(mime: MimeView, node: PartNode) {
    this.mime = mime;
    this.#node = node;
    this.#read = new Kept(node.version);
  }

  get entity(): Entity {
    return this.#node.entity;
  }

  get parent(): PartView | null {
    const { parent } = this.#node;
    return parent === null ? null : this.mime.viewOf(parent);
  }

  get #kept(): Kept {
    if (this.#read.version !== this.#node.version) this.#read = new Kept(this.#node.version);
    return this.#read;
  }

  get type(): string {
    return this.entity.type;
  }

  get charset(): string {
    return charsetNamedBy(this.entity).toLowerCase();
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
    if (value === undefined) return null;
    const start = value.indexOf("<");
    const end = value.indexOf(">", start);
    const id = start === -1 || end === -1 ? "" : value.slice(start + 1, end).trim();
    return id || value.trim() || null;
  }

  get headers(): PartHeaders {
    if (this.parent === null) return this.mime.source.headers;
    return (this.#kept.headers ??= new FieldList(this.entity.fields));
  }

  get size(): number {
    return (this.#kept.size ??= this.bytes().length);
  }

  get parts(): readonly PartView[] {
    return (this.#kept.parts ??= this.#node.children.map((node) => this.mime.viewOf(node)));
  }

  /** So is a multipart that cannot be taken apart. */
  get isLeaf(): boolean {
    return this.parts.length === 0;
  }

  get isAttachment(): boolean {
    return this.isLeaf && (!this.isShown || isFile(this.entity));
  }

  get isShown(): boolean {
    return this.mime.shown.has(this.#node);
  }

  get isSealed(): boolean {
    if (isSealedByHeader(this.entity) || this.parent?.isSealed === true) return true;
    return (this.#kept.isSealedText ??= this.isLeaf && this.type.startsWith("text/") && isSealedText(this.text()));
  }

  /** The content as it stands in the message. */
  get raw(): Uint8Array {
    return this.#node.raw;
  }

  bytes(): Uint8Array {
    const { encoding, raw } = this;
    if (this.type.startsWith("multipart/") || IDENTITY.includes(encoding)) return raw;
    const kept = this.#kept.decoded?.deref();
    if (kept !== undefined) return kept;
    const decoded = decodeLeniently(raw, encoding);
    this.#kept.decoded = new WeakRef(decoded);
    return decoded;
  }

  text(): string {
    return decodeCharset(this.bytes(), this.charset).replaceAll(/\r\n?/g, "\n");
  }

  message(): Mime | null {
    if (!this.isLeaf) return null;
    if (MESSAGES.has(this.type)) return mimeOfMessage(this.bytes());
    const isFile = MESSAGE_FILES.has(this.type) || this.names.some((name) => /\.(?:eml|mht|mhtml|nws)$/i.test(name));
    if (!isFile && this.type !== "application/octet-stream") return null;
    return beginsAsMessage(this.bytes(), isFile) ? mimeOfMessage(this.bytes()) : null;
  }

  /** @throws UsageError if an edit would break a signature, or is of a part that is not in the message any more */
  checkSeal(method: string, { breakSeal = false }: EditOptions = {}): void {
    if (this.#node.isGone) {
      throw new UsageError("PMILTER_ERR_OVER", `${method}: the part ${this.type} was taken out of the message`);
    }
    if (breakSeal || !this.isSealed) return;
    throw new UsageError(
      "PMILTER_ERR_SEALED",
      `${method}: the part ${this.type} is signed or encrypted, which an edit would break; { breakSeal: true } edits it all the same`,
    );
  }

  setText(text: string, options?: EditOptions): void {
    this.checkSeal("setText", options);
    this.mime.editor.setText(this.#node, text);
  }

  setHtml(html: string, options?: EditOptions): void {
    this.checkSeal("setHtml", options);
    this.mime.editor.setHtml(this.#node, html);
  }

  setContent(bytes: Uint8Array, options: ContentOptions = {}): void {
    this.checkSeal("setContent", options);
    this.mime.editor.setContent(this.#node, bytes, options);
  }

  rewriteHtml(prepare: PrepareHtml, options?: EditOptions): void {
    this.checkSeal("rewriteHtml", options);
    this.mime.editor.rewriteHtml(this.#node, this.bytes(), prepare);
  }

  replaceWith(replacement: Replacement, options?: EditOptions): void {
    this.checkSeal("replaceWith", options);
    this.mime.editor.replaceWith(this.#node, replacement);
  }

  remove(options?: EditOptions): void {
    this.checkSeal("remove", options);
    this.mime.editor.remove(this.#node);
  }

  setHeader(name: string, value: string, options?: EditOptions): void {
    // A signature is of the content and the fields that describe it; the rest of the message's header is not in it.
    const isDescribing = this.parent !== null || /^content-/i.test(name);
    this.checkSeal("setHeader", isDescribing ? options : { breakSeal: true });
    this.mime.editor.setHeader(this.#node, name, value);
  }
}
