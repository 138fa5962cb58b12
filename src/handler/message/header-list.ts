/**
 * The headers of a message as a filter sees them: the received headers, with the changes of the filters before it and
 * its own. Entries have an identity, so that a change stays with its header when others are inserted around it. Deleted
 * headers stay as tombstones, since other headers were placed beside them.
 */
import { type HeaderAddress, parseAddresses } from "../../mime/addresses.ts";
import { textOf } from "../../mime/header-text.ts";
import { type ByteWriter, encodeText } from "../../protocol/bytes.ts";
import type { ReceivedMessage } from "./received.ts";
import type { Header, Headers } from "../types.ts";

const LF = 0x0a;
const COLON = 0x3a;

/** A change. `id`: the index of a received header, or a negative number for a header that a change made. */
export type HeaderChange =
  /** At the end, or above all other headers. */
  | { readonly kind: "add" | "addOnTop"; readonly id: number; readonly name: string; readonly value: string }
  /** Directly before or behind the entry `anchor`. */
  | {
      readonly kind: "insertBefore" | "insertAfter";
      readonly id: number;
      readonly name: string;
      readonly value: string;
      readonly anchor: number;
    }
  /** `raw`: the text behind the colon, white space included. */
  | { readonly kind: "change"; readonly id: number; readonly raw: string }
  | { readonly kind: "delete"; readonly id: number }
  /** All headers of that name (in lower case) that are there, and received headers that are still to come. */
  | { readonly kind: "deleteAll"; readonly name: string };

export interface HeaderEntry {
  readonly id: number;
  readonly name: string;
  /** Undefined until someone asks for it, or changes it. */
  value: string | undefined;
  /** The text behind the colon, once it was changed. */
  raw: string | undefined;
  isDeleted: boolean;
  readonly zone: Zone;
}

/**
 * A header block has three zones, in this order. Above the `middle` stands the mail server's own Received, which is not
 * shown. A header that is inserted beside another one belongs to the same zone.
 */
type Zone =
  /** Headers that were inserted at the top. */
  | "top"
  /** The received headers. */
  | "middle"
  /** Headers that were added at the end: received headers that come later come before them. */
  | "end";

/** A header as it was when it was read. Whatever happens to the header afterwards, this object still names it. */
export class ReadHeader implements Header {
  readonly name: string;
  readonly value: string;
  readonly #received: ReceivedMessage;
  readonly #id: number;
  /** The text behind the colon; null for a header that is as it was received. */
  readonly #raw: string | null;

  constructor(received: ReceivedMessage, { id, name }: HeaderEntry, value: string, raw: string | null) {
    this.name = name;
    this.value = value;
    this.#received = received;
    this.#id = id;
    this.#raw = raw;
  }

  /**
   * The id of the header that `value` names.
   * @returns null for a value that is no header of a message
   */
  static identify(value: unknown): { readonly received: ReceivedMessage; readonly id: number } | null {
    if (typeof value !== "object" || value === null || !(#id in value)) return null;
    return { received: value.#received, id: value.#id };
  }

  get text(): string {
    return textOf(this.value);
  }

  get bytes(): Uint8Array {
    return this.#raw === null ? this.#received.headerRawBytes(this.#id) : new Uint8Array(encodeText(this.#raw));
  }
}

export class HeaderList implements Headers {
  readonly #received: ReceivedMessage;
  readonly #entries: HeaderEntry[] = [];
  readonly #byId = new Map<number, HeaderEntry>();
  #taken = 0;
  /** Names deleted whole: received headers that come later are deleted on arrival. */
  readonly #gone = new Set<string>();

  constructor(received: ReceivedMessage) {
    this.#received = received;
    this.#takeReceived();
  }

  /** All entries, tombstones included, in order. */
  get entries(): readonly HeaderEntry[] {
    this.#takeReceived();
    return this.#entries;
  }

  /** Entries that are not deleted. */
  live(): HeaderEntry[] {
    return this.entries.filter((entry) => !entry.isDeleted);
  }

  /** Entries of a name that are not deleted. */
  named(name: string): HeaderEntry[] {
    const wanted = name.toLowerCase();
    return this.entries.filter((entry) => !entry.isDeleted && entry.name.toLowerCase() === wanted);
  }

  apply(change: HeaderChange): void {
    this.#takeReceived();
    switch (change.kind) {
      case "add":
        this.#insert(this.#entries.length, change, "end");
        return;
      case "addOnTop":
        this.#insert(0, change, "top");
        return;
      case "insertBefore":
      case "insertAfter": {
        const at = this.#entries.findIndex(({ id }) => id === change.anchor);
        // The filter that added the anchor has failed since.
        if (at === -1) this.#insert(this.#entries.length, change, "end");
        else this.#insert(change.kind === "insertBefore" ? at : at + 1, change, this.#entries[at]!.zone);
        return;
      }
      case "change": {
        const entry = this.find(change.id);
        if (entry === undefined) return;
        entry.raw = change.raw;
        entry.value = change.raw.replace(/^ /, "");
        return;
      }
      case "delete": {
        const entry = this.find(change.id);
        if (entry !== undefined) entry.isDeleted = true;
        return;
      }
      case "deleteAll":
        this.#gone.add(change.name);
        for (const entry of this.#entries) if (entry.name.toLowerCase() === change.name) entry.isDeleted = true;
        return;
      default:
        change satisfies never;
    }
  }

  get length(): number {
    return this.live().length;
  }

  get(name: string): string | undefined {
    const entry = this.named(name)[0];
    return entry === undefined ? undefined : this.valueOf(entry);
  }

  getAll(name: string): string[] {
    return this.named(name).map((entry) => this.valueOf(entry));
  }

  text(name: string): string | undefined {
    const value = this.get(name);
    return value === undefined ? undefined : textOf(value);
  }

  addresses(name: string): HeaderAddress[] {
    return parseAddresses(this.getAll(name));
  }

  first(name: string): Header | undefined {
    const entry = this.named(name)[0];
    return entry === undefined ? undefined : this.#read(entry);
  }

  all(name: string): Header[] {
    return this.named(name).map((entry) => this.#read(entry));
  }

  at(index: number): Header | undefined {
    // At `header` the last one is the header at hand: it is found without looking at the others.
    const entry = index === -1 ? this.entries.findLast(({ isDeleted }) => !isDeleted) : this.live().at(index);
    return entry === undefined ? undefined : this.#read(entry);
  }

  *[Symbol.iterator](): Iterator<Header> {
    for (const entry of this.live()) yield this.#read(entry);
  }

  #read(entry: HeaderEntry): Header {
    const raw = entry.raw ?? (entry.id < 0 ? this.rawOf(entry) : null);
    return new ReadHeader(this.#received, entry, this.valueOf(entry), raw);
  }

  /** The headers as fields: name, colon, the bytes behind it, and LF, which also separates the lines of a folded field. */
  writeFields(writer: ByteWriter): void {
    for (const entry of this.live()) {
      writer.text(entry.name);
      writer.u8(COLON);
      if (entry.raw === undefined && entry.id >= 0) writer.bytes(this.#received.headerRawBytes(entry.id));
      else writer.text(this.rawOf(entry));
      writer.u8(LF);
    }
  }

  /** The text behind the colon, white space included. */
  rawOf(entry: HeaderEntry): string {
    return entry.raw ?? (entry.id < 0 ? ` ${entry.value}` : this.#received.headerRaw(entry.id));
  }

  /** A received header that is not as it came. */
  differs(entry: HeaderEntry): boolean {
    return entry.raw !== undefined && entry.raw !== this.#received.headerRaw(entry.id);
  }

  /**
   * The text behind the colon when a header gets another value: the white space in front stays as it was, unless the
   * value begins with its own.
   */
  respaced(entry: HeaderEntry, value: string): string {
    const raw = this.rawOf(entry);
    const space = /^[ \t\n]/.test(value) ? /^ ?/ : /^[ \t\n]*/;
    return space.exec(raw)![0] + value;
  }

  valueOf(entry: HeaderEntry): string {
    entry.value ??= this.#received.headerValue(entry.id);
    return entry.value;
  }

  /** @returns undefined if no change made that header, or the changes of its filter were dropped */
  find(id: number): HeaderEntry | undefined {
    return this.#byId.get(id);
  }

  /** Makes an entry of a received header, whose value is not read yet, or of a change. */
  #insert(at: number, { id, name, value }: { id: number; name: string; value?: string }, zone: Zone): void {
    const isDeleted = id >= 0 && this.#gone.has(name.toLowerCase());
    const entry = { id, name, value, raw: undefined, isDeleted, zone };
    this.#entries.splice(at, 0, entry);
    this.#byId.set(id, entry);
  }

  /**
   * A received header goes to the end of its zone: behind the headers that were inserted there, and in front of those that
   * were added.
   */
  #takeReceived(): void {
    const count = this.#received.headerCount;
    if (this.#taken === count) return;
    let at = this.#entries.findLastIndex(({ zone }) => zone !== "end") + 1;
    for (; this.#taken < count; this.#taken++) {
      this.#insert(at++, { id: this.#taken, name: this.#received.headerName(this.#taken) }, "middle");
    }
  }
}
