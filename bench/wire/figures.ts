/** The measurements of `wire`, by server and load. Pure. */
import { ratioOf, type Spread, spreadOf } from "../support/stats.ts";
import type { LoadPoint } from "../support/suite.ts";
import type { Measurement } from "./load.ts";
import type { Variant } from "./variants.ts";

/** A load: so many connections and messages, of the fixed mail or of the mixed mail of a seed. */
export interface WireLoad extends LoadPoint {
  readonly seed: number | null;
}

export interface Measured {
  readonly variant: Variant;
  readonly load: WireLoad;
  /** A value for each round. */
  readonly rounds: readonly Measurement[];
}

export class Figures {
  readonly #all: readonly Measured[];

  constructor(all: readonly Measured[]) {
    this.#all = all;
  }

  /** The servers that were measured under a load. */
  variants(load: WireLoad): readonly Variant[] {
    return this.#all.filter((measured) => measured.load === load).map(({ variant }) => variant);
  }

  /** Null if it was not measured. */
  spread(variant: string, load: WireLoad, key: keyof Measurement): Spread | null {
    const values = this.#values(variant, load, key);
    return values === null ? null : spreadOf(values);
  }

  /** The ratio of the first to the second, round by round; null if either was not measured. */
  ratio(variant: string, base: string, load: WireLoad, key: keyof Measurement): Spread | null {
    const values = this.#values(variant, load, key);
    const bases = this.#values(base, load, key);
    return values === null || bases === null ? null : ratioOf(values, bases);
  }

  #values(variant: string, load: WireLoad, key: keyof Measurement): readonly number[] | null {
    const measured = this.#all.find((each) => each.load === load && each.variant.name === variant);
    return measured?.rounds.map((measurement) => measurement[key]) ?? null;
  }
}

export function loadName({ connections, messagesPerConnection, seed }: WireLoad): string {
  const name = `${counted(connections, "connection")}, ${counted(messagesPerConnection, "message")} each`;
  return seed === null ? name : `${name}, mail of mixed sizes`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
