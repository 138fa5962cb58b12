/**
 * Applies a filter's modifications as the mail server does: pure, from a message and replies to the message that would be
 * delivered. The rules are those of Postfix (`cleanup_milter.c`) and, where it differs, Sendmail (docs/protocol.md,
 * "Modifications").
 *
 * Positions: both servers have put their own Received on top before they ask the filter, and count it for `insertHeader`.
 * The messages here have no such header, so it is added at the start and removed at the end: index 0 is above it, index 1
 * just below it, both are the top of the result; index n is before the nth header given here.
 */
import { readMailbox } from "../mime/mailbox.ts";
import type { ModificationReply } from "../protocol/replies.ts";
import type { Habit } from "./habits.ts";
import type { HeaderField, MailContent } from "./mail.ts";

export interface EnvelopeAddress {
  /** As on the wire, brackets included. */
  readonly address: string;
  /** ESMTP arguments. */
  readonly params: readonly string[];
}

export interface Envelope {
  readonly sender: EnvelopeAddress;
  readonly recipients: readonly EnvelopeAddress[];
}

export interface Message extends MailContent {
  readonly envelope: Envelope;
  /** The reason, if the message is quarantined. */
  readonly quarantine?: string | undefined;
}

export interface ApplyOptions {
  readonly as: Habit;
  /** True with HDR_LEADSPC: values come with their leading space; else the server adds the space. */
  readonly leadingSpace: boolean;
}

interface Slot {
  name: string;
  value: string;
  /** The server's own Received, which the filter never sees. */
  readonly isOwn?: true;
  isDeleted?: true;
}

/** Applies `replies` in order; `message` is left as it was. */
export function applyModifications(
  message: Message,
  replies: readonly ModificationReply[],
  options: ApplyOptions,
): Message {
  const block = new HeaderBlock(message.headers, options);
  const body: Uint8Array[] = [];
  let { sender, recipients } = message.envelope;
  let { quarantine } = message;
  for (const reply of replies) {
    switch (reply.kind) {
      case "addHeader":
        block.append(reply.name, reply.value);
        break;
      case "insertHeader":
        block.insert(reply.index, reply.name, reply.value);
        break;
      case "changeHeader":
        block.change(reply.index, reply.name, reply.value);
        break;
      case "replaceBody":
        body.push(reply.chunk);
        break;
      case "changeFrom":
        sender = { address: reply.address, params: words(reply.params) };
        break;
      case "addRecipient": {
        const added = { address: reply.address, params: words(reply.params) };
        recipients = recipients.some((one) => isFound(one.address, added.address, options.as))
          ? recipients
          : [...recipients, added];
        break;
      }
      case "deleteRecipient":
        recipients = recipients.filter((one) => !isFound(one.address, reply.address, options.as));
        break;
      case "quarantine":
        quarantine = reply.reason;
        break;
      default:
        reply satisfies never;
    }
  }
  return {
    headers: block.headers(),
    body: body.length > 0 ? Buffer.concat(body) : message.body,
    envelope: { sender, recipients },
    quarantine,
  };
}

class HeaderBlock {
  readonly #slots: Slot[];
  readonly #options: ApplyOptions;

  constructor(headers: readonly HeaderField[], options: ApplyOptions) {
    this.#slots = [{ name: "Received", value: "", isOwn: true }, ...headers.map((header) => ({ ...header }))];
    this.#options = options;
  }

  append(name: string, value: string): void {
    this.#slots.push({ name, value: this.#raw(value) });
  }

  /** Postfix counts the headers as they will be delivered; Sendmail counts deleted headers as well. */
  insert(index: number, name: string, value: string): void {
    let before = 0;
    let at = 0;
    for (; at < this.#slots.length && before < index; at++) {
      if (this.#counts(this.#slots[at]!)) before += 1;
    }
    this.#slots.splice(at, 0, { name, value: this.#raw(value) });
  }

  /** The `index`th header of that name, from 1 (0 counts as 1); past the last header a value is added. */
  change(index: number, name: string, value: string): void {
    const wanted = name.toLowerCase();
    let left = Math.max(index, 1);
    for (const slot of this.#slots) {
      if (slot.isOwn || !this.#counts(slot) || slot.name.toLowerCase() !== wanted) continue;
      left -= 1;
      if (left > 0) continue;
      if (value === "") {
        slot.isDeleted = true;
      } else {
        slot.name = name;
        slot.value = this.#raw(value);
        delete slot.isDeleted;
      }
      return;
    }
    if (value !== "") this.append(name, value);
  }

  headers(): HeaderField[] {
    return this.#slots.filter((slot) => !slot.isOwn && !slot.isDeleted).map(({ name, value }) => ({ name, value }));
  }

  /** After a deletion later headers move up at once in Postfix; in Sendmail deleted headers count until the next filter. */
  #counts(slot: Slot): boolean {
    return !slot.isDeleted || this.#options.as === "sendmail";
  }

  /** The text after the colon. Postfix puts a TAB before a continuation line that lacks white space. */
  #raw(value: string): string {
    const lines = value.replaceAll(/\r\n?/g, "\n").replaceAll(/\n(?![ \t])/g, "\n\t");
    return this.#options.leadingSpace ? lines : ` ${lines}`;
  }
}

function words(params: string): string[] {
  return params.split(" ").filter((word) => word !== "");
}

/**
 * Whether a modification names a recipient. Sendmail compares the texts, without a source route and the dot at the end of a
 * domain. Postfix compares the mailboxes that it parsed, and removes the source route of the recipient alone.
 */
function isFound(recipient: string, named: string, as: Habit): boolean {
  if (as === "sendmail") return withoutRoute(recipient) === withoutRoute(named);
  const { mailbox, isRouted } = readMailbox(named);
  return !isRouted && readMailbox(recipient).mailbox === mailbox;
}

function withoutRoute(address: string): string {
  return address
    .replace(/^<(.*)>$/, "$1")
    .replace(/^(?:@[^:"]*:)+/, "")
    .replace(/\.+$/, "");
}
