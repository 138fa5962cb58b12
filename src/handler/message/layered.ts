/**
 * A list under the changes of several filters, kept while possible: changes made since the last look are applied to it.
 * Only a change that belongs before an applied change makes the list anew.
 */
import type { FilterChanges } from "./changes.ts";
import type { ReceivedMessage } from "./received.ts";

interface Applies<C> {
  apply(change: C): void;
}

/** The source of a list. */
export interface ListKind<L extends Applies<C>, C> {
  /** As it was received. */
  make(received: ReceivedMessage): L;
  changesOf(layer: FilterChanges): readonly C[];
}

export class Layered<L extends Applies<C>, C> {
  readonly #received: ReceivedMessage;
  readonly #kind: ListKind<L, C>;
  #list: L | null = null;
  #layers: readonly FilterChanges[] = [];
  /** How many changes of each layer are in the list. */
  #applied: number[] = [];

  constructor(received: ReceivedMessage, kind: ListKind<L, C>) {
    this.#received = received;
    this.#kind = kind;
  }

  /** @param layers the changes that count, in chain order */
  under(layers: readonly FilterChanges[]): L {
    if (this.#list === null || !this.#mayGoOn(layers)) {
      this.#list = this.#kind.make(this.#received);
      this.#applied = [];
    }
    this.#layers = layers;
    for (const [index, layer] of layers.entries()) {
      const changes = this.#kind.changesOf(layer);
      for (let at = this.#applied[index] ?? 0; at < changes.length; at++) this.#list.apply(changes[at]!);
      this.#applied[index] = changes.length;
    }
    return this.#list;
  }

  /** The same layers, and no new change that belongs before an applied change. */
  #mayGoOn(layers: readonly FilterChanges[]): boolean {
    let hasGrown = false;
    for (const [index, layer] of layers.entries()) {
      const applied = this.#applied[index] ?? 0;
      if (applied > 0 && (hasGrown || this.#layers[index] !== layer)) return false;
      if (this.#kind.changesOf(layer).length > applied) hasGrown = true;
    }
    return this.#applied.slice(layers.length).every((applied) => applied === 0);
  }
}
