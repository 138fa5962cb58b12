/** The recipients of a message as one filter sees them: those accepted, with the changes of the filters before and its own. */
import type { RecipientChange } from "./changes.ts";
import { mailboxKey, withoutBrackets } from "../../mime/mailbox.ts";
import type { ReceivedMessage } from "./received.ts";
import type { Address } from "../types.ts";

/** What the changes come to. */
interface Outcome {
  readonly all: readonly Address[];
  /** Received ones that are deleted. */
  readonly deleted: readonly Address[];
  /** Deleted ones that the message does not have, as far as was shown: an earlier milter may have added them. */
  readonly unknown: readonly string[];
  readonly added: readonly Address[];
}

export class RecipientList {
  readonly #received: ReceivedMessage;
  readonly #changes: RecipientChange[] = [];
  #made: Outcome | null = null;
  #count = -1;

  constructor(received: ReceivedMessage) {
    this.#received = received;
  }

  apply(change: RecipientChange): void {
    this.#changes.push(change);
    this.#made = null;
  }

  /** In order. */
  get all(): readonly Address[] {
    return this.#changes.length === 0 ? this.#received.recipients : this.outcome.all;
  }

  get outcome(): Outcome {
    const { length } = this.#received.recipients;
    if (this.#made === null || this.#count !== length) {
      this.#made = this.#make();
      this.#count = length;
    }
    return this.#made;
  }

  /**
   * One pass over recipients and changes. A mailbox that is there already, in whatever spelling, is not added again:
   * Postfix would deliver twice. One that was added and then deleted was never there.
   */
  #make(): Outcome {
    const { recipients } = this.#received;
    const keys = recipients.map(({ raw }) => mailboxKey(raw));
    const received = new Set(keys);
    const deleted = new Set<string>();
    const unknown = new Map<string, string>();
    const added = new Map<string, Address>();
    for (const change of this.#changes) {
      const key = mailboxKey(change.address);
      if (change.kind === "delete") {
        const wasAdded = added.delete(key);
        if (received.has(key)) deleted.add(key);
        else if (!wasAdded) unknown.set(key, change.address);
      } else if (!added.has(key) && (!received.has(key) || deleted.has(key))) {
        added.set(key, givenAddress(change.address, change.params));
      }
    }
    const isDeleted = (at: number): boolean => deleted.has(keys[at]!);
    return {
      all: [...recipients.filter((_, at) => !isDeleted(at)), ...added.values()],
      deleted: recipients.filter((_, at) => isDeleted(at)),
      unknown: [...unknown.values()],
      added: [...added.values()],
    };
  }
}

/** An address of a handler's own. */
export function givenAddress(address: string, params: readonly string[]): Address {
  return { raw: `<${withoutBrackets(address)}>`, address, params };
}
