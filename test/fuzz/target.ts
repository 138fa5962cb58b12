/** What the fuzzer runs: the contract between its loop and a target. */
import type { Random } from "../protocol/random.ts";

export interface Target {
  readonly name: string;
  /** How an input is cut when it is made smaller: at packets or at lines, before single bytes. */
  readonly unit: "packet" | "line";
  /** How long a failing input is made smaller, in milliseconds. */
  readonly shrinkMs?: number;
  /** The input of one iteration. */
  generate(random: Random): Uint8Array;
  /**
   * Throws if the input shows a fault. Everything else that is random (splits, decisions) comes from `random`, which
   * does not depend on the input: so a failing input can be made smaller, and repeated.
   */
  check(input: Uint8Array, random: Random): void | Promise<void>;
  /** After the last iteration; gives lines for the report, throws if something was left behind. */
  finish?(): Promise<readonly string[]>;
  /** Ends what the target started, also after a failure. */
  [Symbol.asyncDispose]?(): Promise<void>;
}

/** A fault that was found. */
export class Fault extends Error {
  override readonly name = "Fault";
}

/** Throws a Fault with `what` unless `condition` holds. */
export function must(condition: boolean, what: string | (() => string)): asserts condition {
  if (!condition) throw new Fault(typeof what === "string" ? what : what());
}
