/**
 * The parts of a message and what was edited in them. A part that nobody edited is a slice of the body as it came; the new
 * body is such slices and what is new, put together only for those who read it as a whole.
 */
import { encodeText } from "../protocol/bytes.ts";
import { type Entity, type Structure, structureOf, structureOfMessage } from "./structure.ts";

/** New values of header fields by their names; null takes the field away. Lines are separated by LF. */
export type FieldChanges = ReadonlyMap<string, string | null>;

/** What a part is in a multipart: bytes between two parts, or a part. */
type Piece = Uint8Array | PartNode;

const LF = 0x0a;
const CR = 0x0d;
const EMPTY = new Uint8Array(0);
const CRLF = Buffer.from("\r\n");

/** The message that a tree is of. */
export interface TreeSource {
  /** The body: the offsets of the structure refer to it. Throws once its memory was given back. */
  bytes(): Uint8Array;
  /** The header of the message, with its changes. */
  fields(): Iterable<{ readonly name: string; readonly value: string }>;
}

export class PartTree {
  readonly source: TreeSource;
  root: PartNode;
  /** Number of edits. */
  version = 0;
  /** The new body; null until it is put together, and after each edit. */
  #body: Uint8Array | null = null;

  constructor(source: TreeSource, { root }: Structure) {
    this.source = source;
    this.root = new PartNode(this, root, null);
  }

  /** The body with its edits. */
  get bytes(): Uint8Array {
    return (this.#body ??= joined(this.#slices()));
  }

  /** The same in order: slices of the body as it came, and what is new. */
  get pieces(): readonly Uint8Array[] {
    return this.#body === null ? this.#slices() : [this.#body];
  }

  /** Something was edited. */
  changed(): void {
    this.#body = null;
    this.version += 1;
  }

  #slices(): Uint8Array[] {
    const pieces: Uint8Array[] = [];
    // Also where no slice of it is made now: those that were made before are empty once its memory is gone.
    this.source.bytes();
    this.root.writeContent(pieces);
    if (this.root.isChanged && !endsInLine(pieces)) pieces.push(CRLF);
    return pieces;
  }

  /** The header of the message was changed. */
  headerChanged(): void {
    const { root } = this;
    root.describe(structureOf(this.source.fields(), EMPTY).root);
    root.version += 1;
    this.version += 1;
  }

  /** Puts a multipart around the root, which becomes its first part with the fields that it had. */
  wrap(fields: readonly { readonly name: string; readonly value: string }[], multipart: Entity): PartNode {
    const inner = this.root;
    const outer = new PartNode(this, multipart, null, EMPTY, [inner]);
    inner.moveInto(outer, headerOf(fields));
    this.root = outer;
    outer.touch();
    return outer;
  }
}

function joined(pieces: readonly Uint8Array[]): Uint8Array {
  // Without another copy: memory that is touched for the first time costs more than the bytes.
  const { buffer, byteOffset, length } = Buffer.concat(pieces);
  return new Uint8Array(buffer, byteOffset, length);
}

/** Whether the last of these bytes is a line end, as that of a message is. */
function endsInLine(pieces: readonly Uint8Array[]): boolean {
  const last = pieces.findLast(({ length }) => length > 0);
  return last === undefined || last.at(-1) === LF;
}

export class PartNode {
  readonly tree: PartTree;
  #entity: Entity;
  #parent: PartNode | null;
  #children: PartNode[] | null = null;
  /** The header if it is new, with the empty line that ends it. */
  #header: Buffer | null = null;
  /** The content if it is new, encoded. */
  #content: Uint8Array | null = null;
  /** The content of a multipart if parts of it were added or taken out. */
  #pieces: Piece[] | null = null;
  /** Number of its edits, and of those of the parts in it. */
  version = 0;
  #isChanged = false;
  #isGone = false;

  /** @param content of a part that was not in the message; @param parts of a multipart that was not */
  constructor(
    tree: PartTree,
    entity: Entity,
    parent: PartNode | null,
    content: Uint8Array | null = null,
    parts: readonly PartNode[] | null = null,
  ) {
    this.tree = tree;
    this.#entity = entity;
    this.#parent = parent;
    this.#content = content;
    if (parts !== null) {
      this.#content = null;
      this.#children = [...parts];
      this.#pieces = [this.#delimiter(""), ...parts, Buffer.from(`\r\n--${entity.boundary}--\r\n`, "latin1")];
    }
  }

  get entity(): Entity {
    return this.#entity;
  }

  get parent(): PartNode | null {
    return this.#parent;
  }

  get children(): readonly PartNode[] {
    return (this.#children ??= this.#entity.parts.map((entity) => new PartNode(this.tree, entity, this)));
  }

  get isMultipart(): boolean {
    return this.#entity.type.startsWith("multipart/");
  }

  /** It, or a part in it, was edited. */
  get isChanged(): boolean {
    return this.#isChanged;
  }

  /** It was taken out of the message, or what it was in. */
  get isGone(): boolean {
    return this.#isGone || this.#parent?.isGone === true;
  }

  /** The boundaries of the multiparts around it. */
  get boundaries(): string[] {
    const boundaries: string[] = [];
    for (let node = this.#parent; node !== null; node = node.parent) {
      if (node.entity.boundary !== "") boundaries.push(node.entity.boundary);
    }
    return boundaries;
  }

  /** The content as it stands in the message. */
  get raw(): Uint8Array {
    if (this.#content !== null) return this.#content;
    if (this.#isChanged && this.children.length > 0) {
      const pieces: Uint8Array[] = [];
      this.writeContent(pieces);
      return Buffer.concat(pieces);
    }
    return this.#slice(this.#entity.start, this.#entity.end);
  }

  /** The header as it stands in the message; of the root nothing. */
  get header(): Buffer {
    return this.#header ?? this.#slice(this.#entity.head, this.#entity.start);
  }

  #slice(start: number, end: number): Buffer {
    const bytes = this.tree.source.bytes();
    return Buffer.from(bytes.buffer, bytes.byteOffset + start, end - start);
  }

  // ---- edits ----

  /** New content, encoded; the parts in it are gone. */
  setContent(content: Uint8Array): void {
    for (const child of this.children) child.#isGone = true;
    this.#children = [];
    this.#pieces = null;
    // A message ends in a line end, which encoded content need not have.
    const isWhole = this.#parent !== null || content.length === 0 || content.at(-1) === LF;
    this.#content = isWhole ? content : Buffer.concat([content, CRLF]);
    this.touch();
  }

  /** New values for some fields; each is there once then. Not of the root: its header is the message's. */
  setFields(changes: FieldChanges): void {
    this.setHeader(changedHeader(this.header, changes));
  }

  /** A new header, with the empty line that ends it. */
  setHeader(header: Buffer): void {
    this.#header = header;
    const { root } = structureOfMessage(header);
    // In a digest a part without a type is a message (RFC 2046 5.1.5).
    const isMessage =
      this.parent?.entity.type === "multipart/digest" &&
      root.fields.every(({ name }) => name.toLowerCase() !== "content-type");
    this.describe(isMessage ? { ...root, type: "message/rfc822" } : root);
    this.touch();
  }

  /** Takes what another header says about it. */
  describe(entity: Entity): void {
    const { boundary, end, head, parts, start } = this.#entity;
    this.#entity = { ...entity, boundary, end, head, parts, start };
  }

  /** Adds a part behind the others, or in front of them. It must have parts. */
  insert(node: PartNode, place: "first" | "last"): void {
    const pieces = this.#layout();
    const beside = place === "first" ? pieces.findIndex(isNode) : pieces.findLastIndex(isNode);
    const delimiter = this.#delimiter("\r\n");
    if (place === "first") pieces.splice(beside, 0, node, delimiter);
    else pieces.splice(beside + 1, 0, delimiter, node);
    this.#children = pieces.filter(isNode);
    node.touch();
  }

  /** Takes it out of the multipart that it is in, and a multipart that is empty then as well. Not the root. */
  remove(): void {
    const parent = this.#parent!;
    this.#isGone = true;
    if (parent.children.length === 1 && parent.parent !== null) {
      parent.remove();
      return;
    }
    const pieces = parent.#layout();
    const at = pieces.indexOf(this);
    // With the delimiter behind it; the last one with the delimiter in front, since behind it is the end.
    const isLast = pieces.findLastIndex(isNode) === at;
    pieces.splice(isLast ? at - 1 : at, 2);
    parent.#children = pieces.filter(isNode);
    parent.touch();
  }

  /** It is a part of another one now. */
  moveInto(parent: PartNode, header: Buffer): void {
    this.#parent = parent;
    this.setHeader(header);
  }

  /** The body is not as it was. */
  touch(): void {
    this.#mark();
    this.tree.changed();
  }

  #mark(): void {
    this.#isChanged = true;
    this.version += 1;
    if (this.#parent !== null) this.#parent.#mark();
  }

  #layout(): Piece[] {
    if (this.#pieces !== null) return this.#pieces;
    const pieces: Piece[] = [];
    let at = this.#entity.start;
    for (const child of this.children) {
      pieces.push(this.#slice(at, child.entity.head), child);
      at = child.entity.end;
    }
    pieces.push(this.#slice(at, this.#entity.end));
    return (this.#pieces = pieces);
  }

  #delimiter(before: string): Buffer {
    return Buffer.from(`${before}--${this.#entity.boundary}\r\n`, "latin1");
  }

  // ---- the new body ----

  writeContent(out: Uint8Array[]): void {
    if (this.#content !== null || !this.#isChanged || this.children.length === 0) {
      out.push(this.raw);
      return;
    }
    let isNew = false;
    for (const piece of this.#layout()) {
      if (isNode(piece)) {
        piece.#write(out);
        isNew = piece.isChanged;
        continue;
      }
      // A part without content may have shared its line end with the delimiter in front (RFC 2046 5.1.1).
      if (isNew && piece.length > 0 && !beginsWithLineEnd(piece)) out.push(CRLF);
      out.push(piece);
    }
  }

  #write(out: Uint8Array[]): void {
    if (this.#isChanged) {
      out.push(closed(this.header));
      this.writeContent(out);
    } else out.push(this.#slice(this.#entity.head, this.#entity.end));
  }
}

function isNode(piece: Piece): piece is PartNode {
  return piece instanceof PartNode;
}

function beginsWithLineEnd(bytes: Uint8Array): boolean {
  return bytes[0] === LF || (bytes[0] === CR && bytes[1] === LF);
}

// ---- headers ----

/** A header of these fields, with the empty line that ends it. */
export function headerOf(fields: readonly { readonly name: string; readonly value: string }[]): Buffer {
  return Buffer.concat([...fields.map(({ name, value }) => fieldOf(name, value)), CRLF]);
}

function fieldOf(name: string, value: string): Uint8Array {
  return encodeText(`${name}: ${value.replaceAll(/\r?\n/g, "\r\n")}\r\n`);
}

/** A header with new values for some fields; all other bytes stay. */
function changedHeader(header: Buffer, changes: FieldChanges): Buffer {
  const wanted = new Map(Array.from(changes, ([name, value]) => [name.toLowerCase(), { name, value }]));
  const pieces: Uint8Array[] = [];
  const written = new Set<string>();
  let at = 0;
  for (const field of structureOfMessage(header).root.fields) {
    const key = field.name.toLowerCase();
    const change = wanted.get(key);
    if (change === undefined) continue;
    pieces.push(header.subarray(at, field.start));
    at = field.end;
    if (change.value === null || written.has(key)) continue;
    pieces.push(fieldOf(field.name, change.value));
    written.add(key);
  }
  const rest = closed(header.subarray(at));
  const lastLine = rest.at(-2) === CR ? rest.length - 2 : rest.length - 1;
  pieces.push(rest.subarray(0, lastLine));
  for (const [key, { name, value }] of wanted) {
    if (value !== null && !written.has(key)) pieces.push(fieldOf(name, value));
  }
  pieces.push(rest.subarray(lastLine));
  return Buffer.concat(pieces);
}

/** A header that ends in an empty line, which a part may lack if it has no content. */
function closed(header: Buffer): Buffer {
  const text = header.toString("latin1", Math.max(0, header.length - 4));
  if (header.length <= 2 ? /^\r?\n$/.test(text) : /\n\r?\n$/.test(text)) return header;
  return Buffer.concat([header, header.length === 0 || text.endsWith("\n") ? CRLF : Buffer.from("\r\n\r\n")]);
}
