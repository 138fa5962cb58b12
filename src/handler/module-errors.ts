/** The errors of a handler's module that is not as it has to be. */
import { UsageError } from "../usage-error.ts";

/** @throws UsageError PMILTER_ERR_MODULE */
export function wrongModule(message: string): never {
  throw new UsageError("PMILTER_ERR_MODULE", message);
}

/** The kind of a value, in a word. */
export function kindOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "an array" : typeof value;
}
