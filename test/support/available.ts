/**
 * What tests need of the machine: outside programs, parts of the system, root. Where it is missing they are skipped with the
 * reason printed, or fail in CI, where a skip would hide that nothing was tested. What needs root is skipped in CI too: who
 * runs the suite as another user has chosen to. So is what mirrors need not keep. It installs nothing.
 */
import { describe, test } from "bun:test";
import { accessSync, constants } from "node:fs";

const isCI = process.env["CI"] === "true";
export const isRoot = process.geteuid?.() === 0;
const warned = new Set<string>();

export interface OutsideTool {
  readonly name: string;
  readonly available: boolean;
  /** Where it is, or why it cannot be used. */
  readonly reason: string;
  /** Absolute path of the program; empty when it is not there. */
  readonly path: string;
  /** It is missing because only root may use it. */
  readonly wantsRoot?: boolean;
  /** It is more of what the tests have: where nobody keeps it, they are skipped in CI too, with the reason printed. */
  readonly isExtra?: boolean;
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
  if (needsRoot && !isRoot) return { name, path, available: false, reason: `${name} needs root`, wantsRoot: true };
  return { name, path, available: true, reason: `found at ${path}` };
}

/**
 * `describe` for tests that need outside programs. When one is missing the suite is skipped and the reason is printed
 * once per process; in CI it is one failing test instead.
 */
export function describeWith(tools: OutsideTool | readonly OutsideTool[], name: string, body: () => void): void {
  const all: readonly OutsideTool[] = "available" in tools ? [tools] : tools;
  const missing = all.filter((tool) => !tool.available);
  if (missing.length === 0) {
    describe(name, body);
    return;
  }
  const reason = missing.map((tool) => tool.reason).join("; ");
  if (isCI && !missing.some(({ isExtra, wantsRoot }) => wantsRoot || isExtra)) {
    describe(name, () => {
      test("has the outside programs it needs", () => {
        throw new Error(inCI(reason));
      });
    });
    return;
  }
  warn(`skipped, first of them "${name}": ${reason}`, reason);
  describe.skip(name, body);
}

/**
 * Whether what tests need is there, for `test.skipIf`. If not, the reason is printed; in CI their file fails with it.
 * @param reason says what is missing, and whom it concerns
 */
export function given(isThere: boolean, reason: string): boolean {
  if (isThere) return true;
  if (isCI) throw new Error(inCI(reason));
  warn(`skipped: ${reason}`);
  return false;
}

/** Whether root runs the tests; if not, what is skipped for it is printed. */
export function givenRoot(what: string): boolean {
  if (!isRoot) warn(`skipped: ${what} needs root`);
  return isRoot;
}

/**
 * Whether a trial that needs root succeeds, such as mounting a file system: root in a container may be refused it. If not,
 * what is skipped for it is printed.
 */
export function givenTrial(what: string, tryOut: () => void): boolean {
  if (!givenRoot(what)) return false;
  try {
    tryOut();
    return true;
  } catch (error) {
    warn(`skipped: ${what} cannot be had here: ${String(error)}`);
    return false;
  }
}

/** Whether there is a Linux to look at: its /proc tells of processes, and of what the kernel holds. */
export const IS_LINUX = given(process.platform === "linux", "what only Linux has, and tells in /proc");

/** Whether connections over IPv6 can be had. */
export function givenIpv6(): boolean {
  return given(canListen("::1"), "this machine has no ::1");
}

function canListen(hostname: string): boolean {
  try {
    Bun.listen({ hostname, port: 0, socket: { data() {} } }).stop(true);
    return true;
  } catch {
    return false;
  }
}

function inCI(reason: string): string {
  return `${reason}; CI must not skip this`;
}

function warn(text: string, once = text): void {
  if (warned.has(once)) return;
  warned.add(once);
  console.warn(text);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
