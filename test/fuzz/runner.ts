/** The fuzzer's loop: iterations of each target in turn until the time is over, and what is made of a fault. */
import { choicesOf, inputOf, iterationSeed, repeatCommand } from "./seeds.ts";
import { shrink } from "./shrink.ts";
import type { Target } from "./target.ts";
import { Watchdog } from "./watchdog.ts";

/** Targets take turns of this length, so that each gets as much time as the others. */
const TURN_MS = 250;
const SHRINK_MS = 10_000;
/** Longer inputs are not printed: the seed repeats them. */
const MAX_PRINTED_BYTES = 4096;

export interface Failure {
  readonly target: string;
  readonly seed: number;
  readonly error: unknown;
  /** The iteration's own input. */
  readonly input: Uint8Array;
  /** As small as it could be made in the time; null if the fault did not show again. */
  readonly smallest: Uint8Array | null;
}

export interface Count {
  readonly target: string;
  iterations: number;
  bytes: number;
  ms: number;
}

export interface FuzzResult {
  readonly failure: Failure | null;
  readonly counts: readonly Count[];
  /** What the targets have to say at the end. */
  readonly notes: readonly string[];
}

export interface FuzzPlan {
  readonly targets: readonly Target[];
  readonly seconds: number;
  readonly seed: number;
  /** Ends the run early. */
  readonly signal?: AbortSignal;
}

/** Runs until the time is over or a fault is found. */
export async function fuzz({ targets, seconds, seed, signal }: FuzzPlan): Promise<FuzzResult> {
  const counts = targets.map((target): Count => ({ target: target.name, iterations: 0, bytes: 0, ms: 0 }));
  const deadline = performance.now() + seconds * 1000;
  const isAborted = (): boolean => signal?.aborted === true;
  using checker = new Checker(targets);
  while (performance.now() < deadline && !isAborted()) {
    // Who has had the least time is next: a target whose iterations are long does not get more for it.
    const count = counts.reduce((least, other) => (other.ms < least.ms ? other : least));
    const target = targets.find(({ name }) => name === count.target)!;
    const began = performance.now();
    const until = Math.min(deadline, began + TURN_MS);
    do {
      const own = iterationSeed(seed, target.name, count.iterations);
      const input = inputOf(target, own);
      count.iterations += 1;
      count.bytes += input.length;
      const error = await checker.check(target, own, input);
      if (error !== null) return { failure: await checker.examine(target, own, input, error), counts, notes: [] };
    } while (performance.now() < until && !isAborted());
    count.ms += performance.now() - began;
  }
  const notes: string[] = [];
  for (const target of targets) notes.push(...((await target.finish?.()) ?? []));
  return { failure: null, counts, notes };
}

/** Runs one iteration again, with its own input or another. */
export async function repeat(target: Target, seed: number, input = inputOf(target, seed)): Promise<Failure | null> {
  using checker = new Checker([target]);
  const error = await checker.check(target, seed, input);
  return error === null ? null : await checker.examine(target, seed, input, error);
}

/** What a target threw, also where nobody awaits it. */
interface Thrown {
  readonly error: unknown;
}

class Checker implements Disposable {
  readonly #watchdog: Watchdog;
  readonly #stray: unknown[] = [];
  readonly #collect = (error: unknown): void => void this.#stray.push(error);

  constructor(targets: readonly Target[]) {
    this.#watchdog = new Watchdog(targets.map(({ name }) => name));
    process.on("unhandledRejection", this.#collect);
    process.on("uncaughtException", this.#collect);
  }

  [Symbol.dispose](): void {
    process.off("unhandledRejection", this.#collect);
    process.off("uncaughtException", this.#collect);
    this.#watchdog[Symbol.dispose]();
  }

  async check(target: Target, seed: number, input: Uint8Array): Promise<Thrown | null> {
    this.#watchdog.begin(target.name, seed);
    try {
      // Awaiting what is no promise would cost more than most iterations.
      const running = target.check(input, choicesOf(seed));
      if (running !== undefined) await running;
    } catch (error) {
      return { error };
    } finally {
      this.#watchdog.end();
    }
    return this.#stray.length === 0 ? null : { error: this.#stray.splice(0)[0] };
  }

  /** Makes the input smaller for as long as the same kind of error comes. */
  async examine(target: Target, seed: number, input: Uint8Array, { error }: Thrown): Promise<Failure> {
    const found = { target: target.name, seed, error, input };
    const fails = async (other: Uint8Array): Promise<boolean> => {
      const again = await this.check(target, seed, other);
      return again !== null && nameOf(again.error) === nameOf(error);
    };
    if (!(await fails(input))) return { ...found, smallest: null };
    const smallest = await shrink(input, target.unit, fails, performance.now() + (target.shrinkMs ?? SHRINK_MS));
    const last = await this.check(target, seed, smallest);
    return { ...found, error: last?.error ?? error, smallest };
  }
}

function nameOf(error: unknown): string {
  return error instanceof Error ? error.name : typeof error;
}

/** A fault in words: what it is, the input, and what repeats it. */
export function formatFailure({ target, seed, error, input, smallest }: Failure): string {
  const stack = error instanceof Error ? (error.stack ?? error.message) : `thrown: ${Bun.inspect(error)}`;
  const words = error instanceof Error && !stack.includes(error.message) ? `${error.message}\n${stack}` : stack;
  const lines = [
    `fuzz: ${target}: a fault in the iteration with seed ${seed}`,
    ...words.split("\n").map((line) => `  ${line}`),
  ];
  const printed = (bytes: Uint8Array): string =>
    bytes.length > MAX_PRINTED_BYTES ? "too long to print" : Buffer.from(bytes).toString("hex");
  if (smallest === null) {
    lines.push("  it did not show again when the iteration was repeated");
    lines.push(`  input (${input.length} bytes): ${printed(input)}`);
  } else {
    lines.push(`  input (${smallest.length} of ${input.length} bytes): ${printed(smallest)}`);
    if (smallest.length <= MAX_PRINTED_BYTES) {
      lines.push(`  repeat with that: ${repeatCommand(target, seed, smallest)}`);
    }
  }
  lines.push(`  repeat: ${repeatCommand(target, seed)}`);
  return `${lines.join("\n")}\n`;
}
