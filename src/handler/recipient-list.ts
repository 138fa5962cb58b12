/** The recipients of a message as one filter sees them: those accepted, with the changes of the filters before and its own. */
import type { RecipientChange } from "./changes.ts";
import { type ReceivedMessage, withoutBrackets } from "./message.ts";
import type { Address } from "./types.ts";

/** What two spellings of one mailbox have in common: local parts as they are, domains in any case (RFC 5321 2.4). */
export function mailboxKey(address: string): string {
  const at = address.lastIndexOf("@");
  return at === -1 ? address : address.slice(0, at) + address.slice(at).toLowerCase();
}

export class RecipientList {
  readonly #received: ReceivedMessage;
  readonly #changes: RecipientChange[] = [];
  #made: readonly Address[] | null = null;
  #count = -1;

  constructor(received: ReceivedMessage) {
    this.#received = received;
  }

  apply(change: RecipientChange): void {
    this.#changes.push(change);
    this.#made = null;
  }

  /** In order; made in one pass over recipients and changes. */
  get all(): readonly Address[] {
    const { recipients } = this.#received;
    if (this.#made === null || this.#count !== recipients.length) {
      this.#made = this.#changes.length === 0 ? recipients : this.#make();
      this.#count = recipients.length;
    }
    return this.#made;
  }

  #make(): Address[] {
    const places: (Address | null)[] = [];
    const byKey = new Map<string, number[]>();
    const add = (recipient: Address): void => {
      const key = mailboxKey(recipient.address);
      const found = byKey.get(key);
      if (found === undefined) byKey.set(key, [places.length]);
      else found.push(places.length);
      places.push(recipient);
    };
    for (const recipient of this.#received.recipients) add(recipient);
    for (const change of this.#changes) {
      if (change.kind === "add") {
        add(givenAddress(change.address, change.params));
        continue;
      }
      const key = mailboxKey(change.address);
      for (const place of byKey.get(key) ?? []) places[place] = null;
      byKey.delete(key);
    }
    return places.filter((recipient) => recipient !== null);
  }
}

/** An address of a handler's own. */
export function givenAddress(address: string, params: readonly string[]): Address {
  return { raw: `<${withoutBrackets(address)}>`, address, params };
}
