/** The filter of libmilter: compiled once, and run as often as there are negotiations. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import type { Subprocess } from "bun";
import type { MacroList } from "../../src/protocol/encode.ts";
import { type OutsideTool, outsideTool } from "../support/available.ts";

export const cc = outsideTool("cc");

const HEADER = "/usr/include/libmilter/mfapi.h";
export const libmilter: OutsideTool = existsSync(HEADER)
  ? { name: "libmilter", path: HEADER, available: true, reason: `found at ${HEADER}` }
  : { name: "libmilter", path: "", available: false, reason: `${HEADER} is not there (Debian: libmilter-dev)` };

/** @returns the path of the program */
export async function compilePeer(folder: string): Promise<string> {
  const program = join(folder, "peer");
  const source = join(import.meta.dir, "peer.c");
  const flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-o", program, source];
  const child = Bun.spawn([cc.path, ...flags, "-lmilter", "-lpthread"], { stdio: ["ignore", "ignore", "pipe"] });
  const problems = await new Response(child.stderr).text();
  if ((await child.exited) !== 0) throw new Error(`peer.c does not compile:\n${problems}`);
  return program;
}

export interface PeerOptions {
  readonly program: string;
  /** Where it listens. */
  readonly path: string;
  /** The letters of the phases that have rules. */
  readonly phases: string;
  /** `exact`: what follows is the answer to each offer. `offered`: it is what is wanted of the offer. */
  readonly mode: "exact" | "offered";
  readonly actions: number;
  readonly protocol: number;
  readonly lists: readonly MacroList[];
}

export interface Peer extends AsyncDisposable {
  readonly path: string;
  /** What it complained about. */
  problems(): Promise<string>;
}

export async function startPeer(options: PeerOptions): Promise<Peer> {
  const { program, path, phases, mode, actions, protocol, lists } = options;
  const child: Subprocess<"ignore", "pipe", "pipe"> = Bun.spawn(
    [
      program,
      `unix:${path}`,
      phases,
      mode,
      String(actions),
      String(protocol),
      ...lists.flatMap(({ stage, names }) => [String(stage), names.join(" ")]),
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  const problems = new Response(child.stderr).text();
  const reader = child.stdout.getReader();
  const { done } = await reader.read();
  reader.releaseLock();
  if (done) throw new Error(`the peer did not start: ${await problems}`);
  let hasStopped = false;
  const stop = async (): Promise<void> => {
    if (hasStopped) return;
    hasStopped = true;
    // Its own stop waits for its threads, up to seconds; there is nothing in it to be saved.
    const hadEnded = child.exitCode !== null || child.signalCode !== null;
    child.kill("SIGKILL");
    await child.exited;
    if (hadEnded) throw new Error(`the peer ended by itself: ${child.exitCode ?? child.signalCode} ${await problems}`);
  };
  return {
    path,
    async problems() {
      await stop();
      return await problems;
    },
    [Symbol.asyncDispose]: stop,
  };
}
