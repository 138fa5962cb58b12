/**
 * Edits of a message's parts. Each is worked out first and then made, as a whole or not at all: an edit that throws leaves
 * the message as it was.
 */
import { UsageError } from "../usage-error.ts";
import { asciiHtml, decorate, htmlOf, type Place, typeOf, type Words } from "./decorate.ts";
import { decodeCharset } from "./charset.ts";
import { encodeContent, type EncodedContent, encodeInto, inCharset, withCrlf } from "./encode.ts";
import type { PrepareHtml } from "./html-rewriter.ts";
import { checkFilename, checkType, withParameters } from "./parameters.ts";
import { formOf, type Forms, isFile, shownIn } from "./shown.ts";
import { charsetNamedBy, type Entity, structureOf } from "./structure.ts";
import { type FieldChanges, headerOf, PartNode, type PartTree } from "./tree.ts";
import type { Attachment, ContentOptions, Decoration, Replacement } from "./types.ts";

/** The filter whose changes the edits are. */
export interface EditHost {
  /** @throws UsageError if the filter may not change the body, or the header, of this message now */
  check(method: string, needs: { readonly body: boolean; readonly header: boolean }): void;
  /** Changes the header of the message; `""` deletes. Throws UsageError for what is no header. */
  setHeader(name: string, value: string): void;
  /** The same checks, of a part's header. @returns the value as it is written */
  checkHeader(name: string, value: string): string;
  /** The body of the message is what its parts make now. */
  edited(): void;
}

/** What an edit makes of a part. */
interface Edit {
  readonly node: PartNode;
  /** Encoded; null: it stays. */
  readonly content: Uint8Array | null;
  readonly fields: FieldChanges;
}

const LEAF: Entity = {
  fields: [],
  type: "text/plain",
  params: {},
  encoding: "7bit",
  disposition: "",
  names: [],
  head: 0,
  start: 0,
  end: 0,
  parts: [],
  boundary: "",
};

export class Editor {
  readonly #tree: PartTree;
  readonly #host: EditHost | null;

  /** @param host null: the message is only to be read */
  constructor(tree: PartTree, host: EditHost | null) {
    this.#tree = tree;
    this.#host = host;
  }

  setText(node: PartNode, text: string): void {
    checkText("setText", text);
    const { entity } = node;
    if (node.isMultipart || !entity.type.startsWith("text/")) {
      throw argument(`setText is for parts of text, this one is ${entity.type}: use setContent or replaceWith`);
    }
    this.#write("setText", node, text, typeOf(entity));
  }

  setHtml(node: PartNode, html: string): void {
    checkText("setHtml", html);
    const { entity } = node;
    this.#write("setHtml", node, html, entity.type === "text/html" ? typeOf(entity) : "text/html");
  }

  /** @param type the value of the Content-Type, to which the charset is added */
  #write(method: string, node: PartNode, text: string, type: string): void {
    const { entity } = node;
    const isText = entity.type.startsWith("text/");
    const declared = isText ? charsetNamedBy(entity) : "";
    const { bytes, charset } = inCharset(withCrlf(text), declared);
    const { bytes: content, encoding } = encodeContent(bytes, isText ? entity.encoding : "", "text", node.boundaries);
    const fields = new Map<string, string | null>();
    const isNamed = charset === declared && type === typeOf(entity);
    if (!isNamed) fields.set("Content-Type", withParameters(type, { charset: charset === "" ? null : charset }));
    encodingFields(fields, entity, encoding);
    this.#apply(method, [{ node, content, fields }]);
  }

  setContent(node: PartNode, bytes: Uint8Array, { filename, type }: ContentOptions): void {
    if (!(bytes instanceof Uint8Array)) throw argument(`setContent takes a Uint8Array, got ${typeof bytes}`);
    const { entity } = node;
    const newType = type === undefined ? entity.type : checkType(type);
    if (type === undefined && node.isMultipart) {
      throw argument(`setContent needs a type in place of ${entity.type}, whose parts it replaces`);
    }
    const { bytes: content, encoding } = encoded(bytes, newType, node.isMultipart ? "" : entity.encoding, node);
    const fields = new Map<string, string | null>();
    const name = filename === undefined ? null : checkFilename(filename);
    const value = newType === entity.type ? typeOf(entity) : newType;
    const oldName = name === null && newType !== entity.type ? (entity.names[0] ?? null) : null;
    const hasType = value !== typeOf(entity) || (name !== null && /name/i.test(value));
    if (hasType) fields.set("Content-Type", name === null ? value : withParameters(value, { name: null }));
    if (name !== null) fields.set("Content-Disposition", dispositionOf(entity, name));
    else if (oldName !== null && !hasFilename(entity)) {
      // The name stood in the Content-Type, which is another one now.
      fields.set("Content-Disposition", dispositionOf(entity, oldName));
    }
    encodingFields(fields, entity, encoding);
    this.#apply("setContent", [{ node, content, fields }]);
  }

  /** @param decoded the content of the part */
  rewriteHtml(node: PartNode, decoded: Uint8Array, prepare: PrepareHtml): void {
    if (typeof prepare !== "function") throw argument("rewriteHtml takes a function that is given an HTMLRewriter");
    const { entity } = node;
    if (formOf(entity.type) !== "html") throw argument(`rewriteHtml is for HTML, this part is ${entity.type}`);
    const declared = charsetNamedBy(entity);
    const { bytes, charset } = rewritten(decoded, declared, prepare);
    if (isSame(bytes, decoded)) return;
    const { bytes: content, encoding } = encodeContent(bytes, entity.encoding, "text", node.boundaries);
    const fields = new Map<string, string | null>();
    if (charset !== declared) fields.set("Content-Type", withParameters(typeOf(entity), { charset }));
    encodingFields(fields, entity, encoding);
    this.#apply("rewriteHtml", [{ node, content, fields }]);
  }

  replaceWith(node: PartNode, replacement: Replacement): void {
    const { filename, text } = replacement;
    checkText("replaceWith", text);
    const name = filename === undefined ? null : checkFilename(filename);
    const { content, fields } = textPart(text, name, node);
    if (node.parent === null) {
      // The header of the message says what its body is, and more.
      for (const field of node.entity.fields) {
        if (/^content-/i.test(field.name) && !has(fields, field.name)) fields.set(field.name, null);
      }
      this.#apply("replaceWith", [{ node, content, fields }]);
      return;
    }
    this.#check("replaceWith", { body: true, header: false });
    node.setContent(content);
    node.setHeader(headerOf(listed(fields)));
    this.#edited();
  }

  remove(node: PartNode): void {
    if (node.parent === null) throw argument("remove: the root of a message cannot be removed");
    this.#check("remove", { body: true, header: false });
    // A multipart needs a part.
    let only = node;
    while (only.parent !== null && only.parent.children.length === 1) only = only.parent;
    if (only.parent === null) this.replaceWith(only, { text: "" });
    else {
      node.remove();
      this.#edited();
    }
  }

  setHeader(node: PartNode, name: string, value: string): void {
    const host = this.#writable("setHeader");
    if (/^content-type$/i.test(name)) checkStructure(node, value);
    if (node.parent === null) {
      host.check("setHeader", { body: false, header: true });
      host.setHeader(name, value);
      this.#tree.headerChanged();
      return;
    }
    const checked = host.checkHeader(name, value);
    const field = node.entity.fields.filter((field) => field.name.toLowerCase() === name.toLowerCase());
    if (checked === "" ? field.length === 0 : field.length === 1 && field[0]!.value === latin1Value(checked)) return;
    this.#apply("setHeader", [{ node, content: null, fields: new Map([[name, checked === "" ? null : checked]]) }]);
  }

  /** @param check is given the parts that are changed, before they are */
  decorate(method: string, decoration: Decoration, place: Place, check: (nodes: readonly PartNode[]) => void): void {
    const words = wordsOf(method, decoration);
    const { root } = this.#tree;
    const bodies = (place === "top" ? shownIn(root) : shownIn(root).map(withoutFiles)).find(hasSome) ?? [];
    check(bodies.length === 0 ? [root] : bodies);
    if (bodies.length > 0) {
      this.#apply(
        method,
        bodies.map((node) => decorate(node, words, place)),
      );
      return;
    }
    this.#add(method, textPart(words.text, null, root), place === "top" ? "first" : "last");
  }

  attach(attachment: Attachment): void {
    const { content, filename, type } = attachment;
    const name = checkFilename(filename);
    const isText = typeof content === "string";
    if (isText) checkText("attach", content);
    else if (!(content instanceof Uint8Array))
      throw argument(`attach takes text or a Uint8Array, got ${typeof content}`);
    const mediaType = checkType(type ?? "application/octet-stream");
    const bytes = isText ? Buffer.from(withCrlf(content), "utf8") : content;
    const { bytes: written, encoding } = encoded(bytes, mediaType, "", this.#tree.root);
    const fields = new Map<string, string | null>([
      ["Content-Type", isText && mediaType.startsWith("text/") ? `${mediaType}; charset=utf-8` : mediaType],
      ["Content-Transfer-Encoding", encoding],
      ["Content-Disposition", withParameters("attachment", { filename: name })],
    ]);
    this.#add("attach", { content: written, fields }, "last");
  }

  /** Adds a part to the multipart that the message is; a message that is none becomes one. */
  #add(method: string, part: { content: Uint8Array; fields: FieldChanges }, place: "first" | "last"): void {
    const tree = this.#tree;
    const isMixed = tree.root.entity.type === "multipart/mixed" && tree.root.children.length > 0;
    this.#check(method, { body: true, header: !isMixed });
    if (!isMixed) this.#wrap(method);
    const node = new PartNode(tree, LEAF, tree.root, part.content);
    node.setHeader(headerOf(listed(part.fields)));
    tree.root.insert(node, place);
    this.#edited();
  }

  /** The message becomes a multipart, with what it was as the first part. */
  #wrap(method: string): void {
    const tree = this.#tree;
    const own = Array.from(tree.source.fields()).filter(({ name }) => /^content-/i.test(name));
    const boundary = `=_${crypto.randomUUID()}`;
    const names = new Set(own.map(({ name }) => name.toLowerCase()));
    names.delete("content-type");
    const fields = new Map<string, string | null>(Array.from(names, (name) => [name, null]));
    fields.set("Content-Type", `multipart/mixed; boundary="${boundary}"`);
    this.#checkRootFields(method, fields);
    tree.wrap(own, { ...LEAF, type: "multipart/mixed", params: { boundary }, boundary });
    this.#setRootFields(fields);
  }

  #apply(method: string, edits: readonly Edit[]): void {
    const body = edits.some(({ content, node }) => content !== null || node.parent !== null);
    const header = edits.some(({ fields, node }) => node.parent === null && fields.size > 0);
    this.#check(method, { body, header });
    // A value that was made of what the message has may be none that can be sent.
    for (const { fields, node } of edits) {
      if (node.parent === null) this.#checkRootFields(method, fields);
    }
    for (const { content, fields, node } of edits) {
      if (content !== null) node.setContent(content);
      if (fields.size === 0) continue;
      if (node.parent === null) this.#setRootFields(fields);
      else node.setFields(fields);
    }
    if (body) this.#edited();
  }

  #checkRootFields(method: string, fields: FieldChanges): void {
    const host = this.#writable(method);
    // Nor need a field that is to go have a name that can be sent.
    for (const [name, value] of fields) host.checkHeader(name, value ?? "");
  }

  #setRootFields(fields: FieldChanges): void {
    const host = this.#writable("an edit");
    const tree = this.#tree;
    const present = new Set(Array.from(tree.source.fields(), ({ name }) => name.toLowerCase()));
    if (!present.has("mime-version")) host.setHeader("MIME-Version", "1.0");
    for (const [name, value] of fields) host.setHeader(name, value ?? "");
    tree.headerChanged();
  }

  #check(method: string, needs: { readonly body: boolean; readonly header: boolean }): void {
    this.#writable(method).check(method, needs);
  }

  #edited(): void {
    this.#host?.edited();
  }

  #writable(method: string): EditHost {
    if (this.#host === null) {
      throw new UsageError("PMILTER_ERR_NOT_HERE", `${method}: this message is only to be read`);
    }
    return this.#host;
  }
}

/** A footer is for the text that the sender wrote; a banner has to be on all that may be shown. */
function withoutFiles(forms: Forms): Forms {
  return forms.filter(({ entity }) => !isFile(entity));
}

function hasSome(forms: Forms): boolean {
  return forms.length > 0;
}

function argument(message: string): UsageError {
  return new UsageError("PMILTER_ERR_ARGUMENT", message);
}

function checkText(method: string, text: unknown): void {
  if (typeof text !== "string") throw argument(`${method} takes text, got ${typeof text}`);
  if (!text.isWellFormed()) throw argument(`${method}: the text holds half a surrogate pair, which no charset has`);
}

function wordsOf(method: string, decoration: Decoration): Words {
  const { html, text } = decoration;
  checkText(method, text);
  if (html !== undefined) checkText(method, html);
  const plain = text.replaceAll(/\r\n?/g, "\n").trimEnd();
  return { text: plain, html: asciiHtml((html ?? htmlOf(plain)).replaceAll(/\r\n?/g, "\n")) };
}

/**
 * HTML through an HTMLRewriter, which takes UTF-8: in another charset as text, and back. Bytes that are not in the charset
 * stay as they are in the HTML that no handler touches.
 */
function rewritten(decoded: Uint8Array, charset: string, prepare: PrepareHtml) {
  const rewriter = new HTMLRewriter();
  prepare(rewriter);
  const text = decodeCharset(decoded, charset);
  // Most programs read ISO 8859-1 and undeclared bytes as windows-1252.
  const encode = [charset, "windows-1252"]
    .map((name) => (html: string) => encodeInto(html, name))
    .find((encode) => {
      const bytes = encode(text);
      return bytes !== null && isSame(bytes, decoded);
    });
  if (encode === undefined)
    return { bytes: new Uint8Array(rewriter.transform(new Uint8Array(decoded).buffer)), charset };
  const html = rewriter.transform(text);
  const bytes = encode(html);
  return bytes === null ? { bytes: Buffer.from(html, "utf8"), charset: "utf-8" } : { bytes, charset };
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && Buffer.compare(one, other) === 0;
}

/** A part of text in the smallest charset that has it. */
function textPart(text: string, filename: string | null, beside: PartNode) {
  const { bytes, charset } = inCharset(withCrlf(text), "us-ascii");
  const { bytes: content, encoding } = encodeContent(bytes, "", "text", beside.boundaries);
  const fields = new Map<string, string | null>([
    ["Content-Type", `text/plain; charset=${charset}`],
    ["Content-Transfer-Encoding", encoding],
    ["Content-Disposition", filename === null ? "inline" : withParameters("attachment", { filename })],
  ]);
  return { content, fields };
}

/** A filter's bytes as a part has them. A copy, also where they need no encoding: the filter may go on to write to its own. */
function encoded(bytes: Uint8Array, type: string, encoding: string, node: PartNode): EncodedContent {
  if (!type.startsWith("text/")) return encodeContent(bytes, "base64", "file", node.boundaries);
  const content = encodeContent(bytes, encoding, "text", node.boundaries);
  return content.bytes === bytes ? { ...content, bytes: new Uint8Array(bytes) } : content;
}

/** The encoding that a part has now; `7bit` need not be said. */
function encodingFields(fields: Map<string, string | null>, entity: Entity, encoding: string): void {
  const isThere = entity.fields.some(({ name }) => name.toLowerCase() === "content-transfer-encoding");
  if (encoding !== entity.encoding || (!isThere && encoding !== "7bit")) {
    fields.set("Content-Transfer-Encoding", encoding);
  }
}

function hasFilename({ fields }: Entity): boolean {
  return fields.some(({ name, value }) => name.toLowerCase() === "content-disposition" && /filename/i.test(value));
}

function dispositionOf({ disposition, fields }: Entity, filename: string): string {
  const field = fields.find(({ name }) => name.toLowerCase() === "content-disposition");
  const value = field === undefined || disposition === "" ? "attachment" : field.value.replaceAll("\r\n", "\n");
  return withParameters(value, { filename });
}

/** A new Content-Type must not make other parts of what is there. */
function checkStructure({ entity, isMultipart }: PartNode, value: string): void {
  const next = structureOf([{ name: "Content-Type", value }], new Uint8Array(0)).root;
  const isNextMultipart = next.type.startsWith("multipart/");
  if (isNextMultipart === isMultipart && next.boundary === entity.boundary) return;
  throw argument(
    `setHeader: the Content-Type of this part must ${isMultipart ? "stay a multipart with its boundary" : "be no multipart"}, or its parts would be others`,
  );
}

function has(fields: FieldChanges, name: string): boolean {
  return [...fields.keys()].some((key) => key.toLowerCase() === name.toLowerCase());
}

function listed(fields: FieldChanges): { name: string; value: string }[] {
  return Array.from(fields, ([name, value]) => ({ name, value: value ?? "" }));
}

function latin1Value(value: string): string {
  return Buffer.from(value.replaceAll("\n", "\r\n"), "utf8").toString("latin1");
}
