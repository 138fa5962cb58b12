/**
 * The recipients of a message as a filter sees them: the accepted recipients, with the changes of the filters before it
 * and its own.
 */
import type { RecipientChange } from "./changes.ts";
import { GivenAddress } from "./envelope-address.ts";
import { mailboxKey, writtenMailbox } from "../../mime/mailbox.ts";
import type { ReceivedMessage } from "./received.ts";
import type { Address } from "../types.ts";

/** The recipients after the changes. */
export interface Recipients {
  readonly all: readonly Address[];
  /** Received recipients that are deleted. */
  readonly deleted: readonly Address[];
  /** Deleted recipients that the mail server did not show: an earlier milter may have added them. */
  readonly unknown: readonly string[];
  readonly added: readonly Address[];
}

export class RecipientList {
  readonly #received: ReceivedMessage;
  readonly #changes: RecipientChange[] = [];
  #result: Recipients | null = null;
  #count = -1;

  constructor(received: ReceivedMessage) {
    this.#received = received;
  }

  apply(change: RecipientChange): void {
    this.#changes.push(change);
    this.#result = null;
  }

  /** In order. */
  get all(): readonly Address[] {
    return this.#changes.length === 0 ? this.#received.recipients : this.result.all;
  }

  get result(): Recipients {
    const { length } = this.#received.recipients;
    if (this.#result === null || this.#count !== length) {
      this.#result = this.#make();
      this.#count = length;
    }
    return this.#result;
  }

  /**
   * Applies the changes in a single pass. A mailbox that is there already, in any spelling, is not added again: Postfix
   * would deliver twice. A mailbox that was added and then deleted was never there, and one that was deleted and then added
   * stays, unless it gets another spelling or other arguments.
   */
  #make(): Recipients {
    const { recipients } = this.#received;
    const keys = recipients.map(({ raw }) => mailboxKey(raw));
    const received = Map.groupBy(recipients, (_, at) => keys[at]!);
    const deleted = new Set<string>();
    const unknown = new Map<string, string>();
    const added = new Map<string, Address>();
    for (const change of this.#changes) {
      const key = mailboxKey(change.address);
      if (change.kind === "delete") {
        const wasAdded = added.delete(key);
        if (received.has(key)) deleted.add(key);
        else if (!wasAdded) unknown.set(key, change.address);
        continue;
      }
      const same = received.get(key);
      if (added.has(key) || (same !== undefined && !deleted.has(key))) continue;
      if (same?.every((recipient) => isSame(change, recipient)) === true) deleted.delete(key);
      else added.set(key, new GivenAddress(`<${change.address}>`, change.params));
    }
    const isDeleted = (at: number): boolean => deleted.has(keys[at]!);
    return {
      all: [...recipients.filter((_, at) => !isDeleted(at)), ...added.values()],
      deleted: recipients.filter((_, at) => isDeleted(at)),
      // Sendmail refuses the whole message for an address to delete that is none.
      unknown: [...unknown.values()].filter((address) => "mailbox" in writtenMailbox(address)),
      added: [...added.values()],
    };
  }
}

/** Whether an address that a handler gives is one that the mail server has: in that spelling, with these arguments or none. */
export function isSame(
  given: { readonly address: string; readonly params: readonly string[] },
  { address, params }: Address,
): boolean {
  if (given.address !== address) return false;
  return given.params.length === 0 || Bun.deepEquals(given.params, params);
}
