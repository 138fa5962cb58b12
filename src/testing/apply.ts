/**
 * What the mail server makes of a filter's modifications: pure, from a message and replies to the message that would
 * be delivered. The rules are those of Postfix (`cleanup_milter.c`) and, where it differs, Sendmail (protocol document
 * 10.1 to 10.3).
 *
 * Positions: both servers have put their own Received on top before they ask the filter, and count it for
 * `insertHeader`. The messages here have none, so one is put on top in thought: index 0 is above it, index 1 just below
 * it, and once it is taken away again both are the top of the result; index n is before the nth header given here.
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
  /** The reason, if the message is held. */
  readonly quarantine?: string | undefined;
}

export interface ApplyOptions {
  readonly as: Habit;
  /** True with HDR_LEADSPC: values come with their leading space; else the server puts one. */
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

  /** Postfix counts the headers as they will be delivered; Sendmail counts deleted ones as well. */
  insert(index: number, name: string, value: string): void {
    let before = 0;
    let at = 0;
    for (; at < this.#slots.length && before < index; at++) {
      if (this.#counts(this.#slots[at]!)) before += 1;
    }
    this.#slots.splice(at, 0, { name, value: this.#raw(value) });
  }

  /** The `index`th header of that name, from 1 (0 counts as 1); past the last one a value is added. */
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

  /** After a deletion Postfix lets later ones move up at once; in Sendmail deleted ones count until the next filter. */
  #counts(slot: Slot): boolean {
    return !slot.isDeleted || this.#options.as === "sendmail";
  }

  /** What follows the colon. Postfix puts a TAB before a continuation line that lacks white space. */
  #raw(value: string): string {
    const lines = value.replaceAll(/\r\n?/g, "\n").replaceAll(/\n(?![ \t])/g, "\n\t");
    return this.#options.leadingSpace ? lines : ` ${lines}`;
  }
}

function words(params: string): string[] {
  return params.split(" ").filter((word) => word !== "");
}

/**
 * Whether a recipient is the one that a modification names. Sendmail compares what was written, without a source route
 * and the dot at the end of a domain; Postfix what it read, and it takes the source route off the recipient alone.
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
