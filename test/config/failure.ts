/** Runs what must fail with a ConfigError, and returns it. Anything else that is thrown goes on. */
import { ConfigError } from "../../src/config/errors.ts";
import { parseConfig } from "../../src/config/load.ts";

/** The file that the faults are in. */
export const FILE = "/etc/pmilter.toml";

export function failure(run: () => unknown): ConfigError {
  try {
    run();
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

/** Of a file in a folder with a short name: sockets beside it may have no longer path than the system takes. */
export function failureOf(text: string): ConfigError {
  return failure(() => parseConfig(text, FILE, {}));
}

/** The faults of a text without the quoted source: `12:3: server.workers: …`. */
export function faultsOf(text: string): string[] {
  return failureOf(text).issues.map(({ line, column, key, text: what }) => {
    const place = [line, column].join(":");
    return [place, key, what].filter((part) => part !== undefined).join(": ");
  });
}
