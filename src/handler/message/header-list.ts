/**
 * The headers of a message as a filter sees them: the received headers, with the changes of the filters before it and
 * its own. Entries have an identity, so that a change stays with its header when others are inserted around it. Deleted
 * headers stay as tombstones, since other headers were placed beside them.
 */
import type { ReceivedMessage } from "./received.ts";
import type { Header, Headers } from "../types.ts";

/** A change. `id`: the index of a received header, or a negative number for a header that a change made. */
export type HeaderChange =
  | { readonly kind: "add"; readonly id: number; readonly name: string; readonly value: string }
  /** Before the entry `before`, at the top, or at the end. */
  | {
      readonly kind: "insert";
      readonly id: number;
      readonly name: string;
      readonly value: string;
      readonly before: number | "top" | "end";
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
  /** Added at the end: received headers that come later come before it. */
  readonly isAppended: boolean;
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
        this.#insert(this.#entries.length, added(change, true));
        return;
      case "insert": {
        const at = this.#place(change.before);
        if (at === -1) this.#insert(this.#entries.length, added(change, true));
        else this.#insert(at, added(change, false));
        return;
      }
      case "change": {
        const entry = this.#find(change.id);
        if (entry === undefined) return;
        entry.raw = change.raw;
        entry.value = change.raw.replace(/^ /, "");
        return;
      }
      case "delete": {
        const entry = this.#find(change.id);
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

  *[Symbol.iterator](): Iterator<Header> {
    for (const entry of this.live()) yield { name: entry.name, value: this.valueOf(entry) };
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

  #insert(at: number, entry: HeaderEntry): void {
    this.#entries.splice(at, 0, entry);
    this.#byId.set(entry.id, entry);
  }

  #find(id: number): HeaderEntry | undefined {
    return this.#byId.get(id);
  }

  /** -1 for the end. */
  #place(before: number | "top" | "end"): number {
    if (before === "top") return 0;
    return before === "end" ? -1 : this.#entries.findIndex((entry) => entry.id === before);
  }

  /**
   * A received header goes behind the received headers before it, and in front of headers that were added behind those.
   */
  #takeReceived(): void {
    const count = this.#received.headerCount;
    if (this.#taken === count) return;
    let at = this.#entries.findLastIndex((entry) => entry.id >= 0) + 1;
    if (at === 0) {
      const appended = this.#entries.findIndex((entry) => entry.isAppended);
      at = appended === -1 ? this.#entries.length : appended;
    }
    for (; this.#taken < count; this.#taken++) {
      const name = this.#received.headerName(this.#taken);
      this.#insert(at++, {
        id: this.#taken,
        name,
        value: undefined,
        raw: undefined,
        isDeleted: this.#gone.has(name.toLowerCase()),
        isAppended: false,
      });
    }
  }
}

function added(change: { id: number; name: string; value: string }, isAppended: boolean): HeaderEntry {
  return { id: change.id, name: change.name, value: change.value, raw: undefined, isDeleted: false, isAppended };
}
