/** Seeds: each iteration has its own, made of the run's seed, the target and its number, so that one is repeated alone. */
import { Random } from "../protocol/random.ts";
import type { Target } from "./target.ts";

/** The seed of the `index`th iteration of a target. */
export function iterationSeed(runSeed: number, target: string, index: number): number {
  let seed = new Random(runSeed).u32();
  for (let at = 0; at < target.length; at++) seed = Math.imul(seed ^ target.charCodeAt(at), 0x0100_0193) >>> 0;
  return new Random((seed + index) >>> 0).u32();
}

/** The input of an iteration. */
export function inputOf(target: Target, seed: number): Uint8Array {
  return target.generate(new Random(seed));
}

/** What else is random in it; the same whatever was drawn for the input. */
export function choicesOf(seed: number): Random {
  return new Random(seed ^ 0x5bd1_e995);
}

/** What is typed to run an iteration again. */
export function repeatCommand(target: string, seed: number, input?: Uint8Array): string {
  const command = `bun run fuzz --target ${target} --repeat ${seed}`;
  return input === undefined ? command : `${command} --input ${Buffer.from(input).toString("hex") || "''"}`;
}
