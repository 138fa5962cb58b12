/**
 * The changes of a chain as modification packets, in the one order that both mail servers take alike (docs/protocol.md,
 * "Header positions"): header changes from the last to the first, so that no index moves under a later one; then what
 * is inserted and added; the body in one run.
 */
import { lengthOf } from "../../protocol/body-packets.ts";
import { encodeText } from "../../protocol/bytes.ts";
import { encodeAddress, type ReplyWriter } from "../../protocol/encode.ts";
import { type FilterChanges, headerBytes, MAX_HEADER_BYTES } from "./changes.ts";
import type { HeaderEntry, HeaderList } from "./header-list.ts";
import type { Difference } from "./difference.ts";
import type { Recipients } from "./recipient-list.ts";
import { deletionsOf } from "../../mime/mailbox.ts";

/** The habits of the mail server at hand. */
export interface Dialect {
  /** HDR_LEADSPC was granted: the space after the colon is ours to write. */
  readonly keepsLeadingSpace: boolean;
  /** It is a Sendmail, which counts headers in its own way. */
  readonly isSendmail: boolean;
}

/** A new body up to this size is written with the other changes. A larger one leaves in pieces, as the mail server takes it. */
const MAX_COPIED_BYTES = 128 * 1024;

/** Nothing may read the body of the message any more: the memory of a large one may leave with the changes. */
export function sendChanges(writer: ReplyWriter, difference: Difference, dialect: Dialect): void {
  const { sender, recipients, body, quarantine, received } = difference;
  if (sender !== null) writer.changeFrom(encodeAddress(sender.address), sender.params.join(" "));
  if (recipients !== null) sendRecipients(writer, recipients);
  sendHeaders(writer, difference, dialect);
  if (body !== null) {
    if (lengthOf(body) <= MAX_COPIED_BYTES) writer.replaceBody(body);
    else writer.heldBody(received.handOver(body));
  }
  if (quarantine !== null) writer.quarantine(quarantine.reason);
}

/** Deletions first: a recipient that a filter deletes and another adds with other arguments is there. */
function sendRecipients(writer: ReplyWriter, { deleted, unknown, added }: Recipients): void {
  const spellings = new Set(deleted.flatMap(({ raw }) => deletionsOf(raw)));
  for (const address of unknown) spellings.add(`<${address}>`);
  for (const spelling of spellings) writer.deleteRecipient(encodeText(spelling));
  for (const { address, params } of added) writer.addRecipient(encodeAddress(address), params.join(" "));
}

/** Where a header goes that is "past the end": both mail servers append it (an INT_MAX, as their parsers take it). */
const END = 0x7fffffff;

/**
 * Headers that Sendmail makes when a message has none: adding one fills its slot, so that there are not two. For any
 * other name its ADDHEADER does not append: it goes in front of the first header of that name.
 */
const SENDMAIL_DEFAULTS = new Set(["date", "from", "message-id", "resent-date", "resent-from", "resent-message-id"]);

function sendHeaders(writer: ReplyWriter, difference: Difference, dialect: Dialect): void {
  const { layers } = difference;
  const { keepsLeadingSpace, isSendmail } = dialect;
  if (!areAllAppended(layers, isSendmail)) {
    new HeaderSender(writer, difference.headers, dialect).send();
    return;
  }
  const space = keepsLeadingSpace ? " " : "";
  for (const { headers } of layers) {
    for (const change of headers) {
      if (change.kind !== "add") continue;
      if (isSendmail) writer.insertHeader(END, change.name, space + change.value);
      else writer.addHeader(change.name, space + change.value);
    }
  }
}

/** Most filters only add a header: then the received headers need not be read. */
function areAllAppended(layers: readonly FilterChanges[], isSendmail: boolean): boolean {
  for (const { headers } of layers) {
    for (const change of headers) {
      if (change.kind !== "add") return false;
      if (isSendmail && SENDMAIL_DEFAULTS.has(change.name.toLowerCase())) return false;
    }
  }
  return true;
}

/** The difference between the headers as received and as they shall be. */
class HeaderSender {
  readonly #writer: ReplyWriter;
  readonly #list: HeaderList;
  readonly #dialect: Dialect;
  /** Not deleted, in order. */
  readonly #live: readonly HeaderEntry[];
  /** Number of headers to insert at the top, above the mail server's own Received. */
  readonly #topEnd: number;
  /** The place of the last received header, -1 if none is left. */
  readonly #last: number;
  /** Names in lower case that were received, or sent by now. */
  readonly #known = new Set<string>();

  constructor(writer: ReplyWriter, list: HeaderList, dialect: Dialect) {
    this.#writer = writer;
    this.#list = list;
    this.#dialect = dialect;
    this.#live = list.live();
    this.#topEnd = this.#live.filter(({ zone }) => zone === "top").length;
    this.#last = this.#live.findLastIndex(isReceived);
  }

  send(): void {
    const moved = this.#findMoved();
    this.#changeReceived(new Set(moved));
    if (moved.length > 0) {
      for (const entry of moved) this.#insert(END, entry);
    } else {
      this.#insertBetween();
      for (const entry of this.#live.slice(Math.max(this.#topEnd, this.#last + 1))) this.#append(entry);
    }
    for (const entry of this.#live.slice(0, this.#topEnd).reverse()) this.#insert(0, entry);
  }

  /**
   * Where a header is inserted above a received one, and below the mail server's own Received, the headers behind it are deleted and all are appended in their
   * new order, which needs no index. The mail servers count headers that they do not show, at places that they do not
   * tell: Sendmail counts headers that it does not send, Postfix its own Received, which may be below headers of
   * policies and earlier filters, or not be there at all.
   * @returns the headers to append; none where no header is inserted there
   */
  #findMoved(): readonly HeaderEntry[] {
    const from = this.#live.findIndex((entry, at) => !isReceived(entry) && at >= this.#topEnd && at < this.#last);
    if (from === -1) return [];
    const moved = this.#live.slice(from);
    return this.#dialect.isSendmail || this.#arriveWhole(moved) ? moved : [];
  }

  /** Whether Postfix would deliver these headers as it received them. */
  #arriveWhole(entries: readonly HeaderEntry[]): boolean {
    if (!this.#dialect.keepsLeadingSpace) return false;
    return entries.every((entry) => headerBytes(entry.name, this.#list.rawOf(entry)) <= MAX_HEADER_BYTES);
  }

  /** Changes and deletions, from the last header to the first: no index moves under a later change. */
  #changeReceived(moved: ReadonlySet<HeaderEntry>): void {
    const counts = new Map<string, number>();
    const received = this.#list.entries.filter(isReceived).map((entry) => {
      const name = entry.name.toLowerCase();
      const position = (counts.get(name) ?? 0) + 1;
      counts.set(name, position);
      this.#known.add(name);
      return { entry, position };
    });
    for (const { entry, position } of received.reverse()) {
      if (entry.isDeleted || moved.has(entry)) this.#writer.changeHeader(position, entry.name, "");
      else if (this.#list.differs(entry)) this.#writer.changeHeader(position, entry.name, this.#valueOf(entry));
    }
  }

  /**
   * Above a received header, by an index: where those behind it cannot be appended again as they were. From the lowest
   * place up, so that an index counts none of our own; above it are received headers only, and Postfix's own Received,
   * if that is where it mostly is.
   */
  #insertBetween(): void {
    let receivedAbove = this.#live.filter(isReceived).length;
    for (let at = this.#last; at >= this.#topEnd; at--) {
      const entry = this.#live[at]!;
      if (isReceived(entry)) receivedAbove -= 1;
      else this.#insert(receivedAbove + 1, entry);
    }
  }

  #append(entry: HeaderEntry): void {
    const name = entry.name.toLowerCase();
    const fillsSlot = SENDMAIL_DEFAULTS.has(name) && !this.#known.has(name);
    this.#known.add(name);
    if (this.#dialect.isSendmail && !fillsSlot) this.#insert(END, entry);
    else this.#writer.addHeader(entry.name, this.#valueOf(entry));
  }

  #insert(index: number, entry: HeaderEntry): void {
    this.#writer.insertHeader(index, entry.name, this.#valueOf(entry));
  }

  #valueOf(entry: HeaderEntry): string {
    const raw = this.#list.rawOf(entry);
    // Without HDR_LEADSPC the mail server puts a space in front.
    return this.#dialect.keepsLeadingSpace || !raw.startsWith(" ") ? raw : raw.slice(1);
  }
}

function isReceived(entry: HeaderEntry): boolean {
  return entry.id >= 0;
}
