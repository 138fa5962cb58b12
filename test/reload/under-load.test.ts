/**
 * The main one: reloads as fast as they are taken while mail servers send. No session fails, no connection is dropped,
 * every message is on exactly one version, and nothing is left over.
 */
import { expect, setDefaultTimeout, test } from "bun:test";
import { setTimeout as pause } from "node:timers/promises";
import { IS_LINUX } from "../support/available.ts";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import type { Pmilter } from "../support/pmilter.ts";
import {
  askReload,
  describeFootprints,
  expectSameFootprint,
  footprint,
  median,
  save,
  startVersioned,
} from "./support.ts";

setDefaultTimeout(120_000);

const CLIENTS = 20;
/** Of them, those that keep one connection to the end: they have to be moved again and again. */
const LASTING = 5;
const MESSAGES = 4;
const WARM_UP = 20;
/** The soak reloads for as long as one likes. */
const RELOADS = 60;

/**
 * Stamps what its generation says at each step: its own version, that of a module and that of a JSON file, at helo, at
 * the envelope, within the body, and at the end.
 */
function stamping(version: number): string {
  return `import { defineFilter } from "pmilter";
import { part } from "./lib/part.ts";
import data from "./data.json";
const version = [${version}, part, data.version].join("/");
export default defineFilter({
  helo({ state }) { state.helo = version; },
  async envfrom({ state }) { state.envfrom = version; await 0; },
  envrcpt({ state }) { state.envrcpt = version; },
  body({ state }) { state.body = version; },
  async eom({ state, message }) {
    await Bun.sleep(1);
    message.addHeader("X-Version", [state.helo, state.envfrom, state.envrcpt, state.body, version].join(" "));
  },
});
`;
}

/** Saves all three files of a version, and has them loaded. */
async function load(server: Pmilter, version: number): Promise<number> {
  await save(server, "lib/part.ts", `export const part = ${version};\n`);
  await save(server, "data.json", `{ "version": ${version} }`);
  await save(server, "filter.ts", stamping(version));
  const since = performance.now();
  expect(await askReload(server)).toMatchObject({ ok: true });
  return performance.now() - since;
}

const FAULTS = [
  (text: string) => text.replace("export default", "export default default"),
  (text: string) => `${text}throw new Error("not today");\n`,
  (text: string) => text.replace("./lib/part.ts", "./lib/missing.ts"),
  (text: string) => text.replace("helo(", "start() { throw new Error('no port'); }, helo("),
];

async function loadBroken(server: Pmilter, version: number): Promise<void> {
  await save(server, "filter.ts", FAULTS[version % FAULTS.length]!(stamping(version)));
  expect(await askReload(server)).toMatchObject({ ok: false });
}

interface Tally {
  sessions: number;
  messages: number;
  /** Messages on another version than the one before in the same connection. */
  moves: number;
  readonly problems: string[];
}

/** The version of a message that is on one, as a number. */
function versionOf({ verdict, modifications }: Outcome): number {
  const stamps = modifications.flatMap((change) =>
    change.kind === "addHeader" || change.kind === "insertHeader" ? change.value : [],
  );
  const parts = new Set(stamps.join(" ").split(/[ /]/));
  if (verdict !== "accept" || stamps.length !== 1 || parts.size !== 1) {
    throw new Error(`${verdict} with ${stamps.join(" and ") || "no stamp"}`);
  }
  return Number([...parts][0]);
}

/** Sends without pause until it is told to stop. */
async function sendOn(server: Pmilter, index: number, state: { isOver: boolean; broken: Set<number> }, tally: Tally) {
  const eml = `From: a@example.com\r\nSubject: ${index}\r\n\r\n${"Hello world.\r\n".repeat(20)}`;
  while (!state.isOver) {
    try {
      const client = await MilterClient.connect(server.addresses[index % 2]!, {
        as: index % 4 < 2 ? "postfix" : "sendmail",
      });
      tally.sessions += 1;
      let last = 0;
      const count = index < LASTING ? Infinity : MESSAGES;
      for (let sent = 0; sent < count && !state.isOver; sent++) {
        const outcome = await client.send({ from: "a@example.com", to: ["b@example.com", "c@example.com"], eml });
        const version = versionOf(outcome);
        tally.messages += 1;
        if (state.broken.has(version)) throw new Error(`version ${version} did not load, but runs`);
        if (version < last) throw new Error(`version ${version} after ${last}`);
        if (last !== 0 && version !== last) tally.moves += 1;
        last = version;
        // A mail server has other things to do, too: some messages follow at once, others find their session moved.
        if (sent % 3 !== index % 3) await pause(40);
      }
      await client.quit();
    } catch (error) {
      tally.problems.push(`client ${index}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

test.skipIf(!IS_LINUX)(
  `${RELOADS} reloads while ${CLIENTS} clients send`,
  async () => {
    await using server = await startVersioned({
      listen: ["unix:pmilter.sock", "inet:127.0.0.1:0"],
      // The watcher is on, too: it must find nothing to do but what was asked for.
      server: { workers: 2, drain_timeout: 0.2 },
      files: { "filter.ts": stamping(1), "lib/part.ts": "export const part = 1;\n", "data.json": '{ "version": 1 }' },
    });

    const run = async (from: number, count: number) => {
      const tally: Tally = { sessions: 0, messages: 0, moves: 0, problems: [] };
      const state = { isOver: false, broken: new Set<number>() };
      const clients = Array.from({ length: CLIENTS }, (_, index) => sendOn(server, index, state, tally));
      const times: number[] = [];
      for (let version = from; version < from + count; version++) {
        if (version % 8 === 0) {
          state.broken.add(version);
          await loadBroken(server, version);
        } else times.push(await load(server, version));
        if (tally.problems.length > 0) break;
      }
      state.isOver = true;
      await Promise.all(clients);
      return { ...tally, broken: state.broken.size, times };
    };

    expect((await run(2, WARM_UP)).problems).toEqual([]);
    const before = await footprint(server);
    const since = performance.now();
    const { sessions, messages, moves, problems, broken, times } = await run(100, RELOADS);
    const seconds = (performance.now() - since) / 1000;
    const after = await footprint(server);
    console.log(
      `${RELOADS} reloads (${broken} broken) in ${seconds.toFixed(1)} s, median ${median(times).toFixed(0)} ms, worst ${Math.max(...times).toFixed(0)} ms; ` +
        `${sessions} sessions, ${messages} messages, ${moves} on a newer version than the one before; ` +
        describeFootprints(before, after),
    );
    expect(problems).toEqual([]);
    expect(
      server.log.all.filter((line) => /\]\[(?:crit|emerg|alert)\]|internal error|connection closed|are cut/.test(line)),
    ).toEqual([]);
    expect(moves).toBeGreaterThan(LASTING);
    expect(messages).toBeGreaterThan(RELOADS);
    expectSameFootprint(before, after, 60);
  },
  600_000,
);
