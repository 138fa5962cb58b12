/** `pmilter dkim`: keys for the filter dkim-sign. */
import type { DkimArguments } from "../args.ts";
import { checkKeys } from "./check.ts";
import { newKey } from "./new.ts";

/** @returns the exit code */
export async function dkim(configFile: string, asked: DkimArguments): Promise<number> {
  return asked.action === "new" ? newKey(configFile, asked) : await checkKeys(configFile, asked);
}
