/**
 * The changes of a chain to a message, compared with the message as it was received. A change that changes nothing, or that
 * another one takes back, is not among them: it is neither sent nor counted.
 */
import type { FilterChanges } from "./changes.ts";
import type { HeaderList } from "./header-list.ts";
import type { ReceivedMessage } from "./received.ts";
import type { Recipients } from "./recipient-list.ts";
import { headersUnder, recipientsUnder, senderUnder } from "./view.ts";

export class Difference {
  readonly received: ReceivedMessage;
  /** The changes that count, in chain order. */
  readonly layers: readonly FilterChanges[];
  readonly sender: FilterChanges["sender"];
  /** In pieces, in order. */
  readonly body: readonly Uint8Array[] | null;
  readonly quarantine: FilterChanges["quarantine"];
  /** Null if no recipient was added or deleted. */
  readonly recipients: Recipients | null;
  /** Null until it is first read. */
  #headers: HeaderList | null = null;

  /** @param collectsBody whether the message has collected its body */
  constructor(received: ReceivedMessage, layers: readonly FilterChanges[], collectsBody: boolean) {
    this.received = received;
    this.layers = layers;
    // The last of each counts. Loops, since this runs for every message that is changed.
    let sender: FilterChanges["sender"] = null;
    let body: FilterChanges["body"] = null;
    let quarantine: FilterChanges["quarantine"] = null;
    let recipients = 0;
    for (const layer of layers) {
      sender = layer.sender ?? sender;
      body = layer.body ?? body;
      quarantine = layer.quarantine ?? quarantine;
      recipients += layer.recipients.length;
    }
    this.sender = sender === null ? null : senderUnder(received, layers);
    const pieces = body?.pieces ?? null;
    this.body = pieces === null || (collectsBody && received.isBody(pieces)) ? null : pieces;
    this.quarantine = quarantine;
    this.recipients = recipients === 0 ? null : recipientsUnder(received, layers).result;
  }

  get headers(): HeaderList {
    return (this.#headers ??= headersUnder(this.received, this.layers));
  }

  /** Number of headers, recipients and other things that are changed, for the log. */
  get count(): number {
    const single = [this.sender, this.body, this.quarantine].filter((change) => change !== null).length;
    return single + this.#recipientCount + this.#headerCount;
  }

  get #recipientCount(): number {
    if (this.recipients === null) return 0;
    const { added, deleted, unknown } = this.recipients;
    return added.length + deleted.length + unknown.length;
  }

  get #headerCount(): number {
    if (this.layers.every(({ headers }) => headers.length === 0)) return 0;
    const { headers } = this;
    let count = 0;
    for (const entry of headers.entries) {
      const isReceived = entry.id >= 0;
      if (entry.isDeleted ? isReceived : !isReceived || headers.differs(entry)) count += 1;
    }
    return count;
  }
}
