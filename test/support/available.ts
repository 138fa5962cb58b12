/**
 * Which outside programs this machine has, and suites that need them: run, skipped with the reason printed, or (in CI,
 * where a silent skip would hide that nothing was tested) failed. It installs nothing.
 */
import { describe, test } from "bun:test";
import { accessSync, constants } from "node:fs";

export interface OutsideTool {
  readonly name: string;
  readonly available: boolean;
  /** Where it is, or why it cannot be used. */
  readonly reason: string;
  /** Absolute path of the program; empty when it is not there. */
  readonly path: string;
}

export interface OutsideToolOptions {
  /** Absolute paths to look at before PATH. */
  readonly paths?: readonly string[];
  /** Usable by root only. */
  readonly needsRoot?: boolean;
}

/** Looks a program up. @example const swaks = outsideTool("swaks"); */
export function outsideTool(name: string, { paths = [], needsRoot = false }: OutsideToolOptions = {}): OutsideTool {
  const path = paths.find(isExecutable) ?? Bun.which(name) ?? "";
  if (path === "") {
    const places = [...paths, "PATH"].join(", ");
    return { name, path, available: false, reason: `${name} is not installed (looked at ${places})` };
  }
  if (needsRoot && process.getuid?.() !== 0) {
    return { name, path, available: false, reason: `${name} needs root` };
  }
  return { name, path, available: true, reason: `found at ${path}` };
}

/**
 * `describe` for tests that need outside programs. When one is missing the suite is skipped and the reason is printed
 * once per process; with CI=true it is one failing test instead.
 */
export function describeWith(tools: OutsideTool | readonly OutsideTool[], name: string, body: () => void): void {
  const all: readonly OutsideTool[] = "available" in tools ? [tools] : tools;
  const missing = all.filter((tool) => !tool.available).map((tool) => tool.reason);
  if (missing.length === 0) {
    describe(name, body);
    return;
  }
  const reason = missing.join("; ");
  if (process.env["CI"] === "true") {
    describe(name, () => {
      test("has the outside programs it needs", () => {
        throw new Error(`${reason}; CI must not skip this`);
      });
    });
    return;
  }
  if (!warned.has(reason)) {
    warned.add(reason);
    console.warn(`skipped, first of them "${name}": ${reason}`);
  }
  describe.skip(name, body);
}

const warned = new Set<string>();

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
