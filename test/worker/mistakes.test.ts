/**
 * Mistakes of ours: an exception at the beginning of each method that a connection runs through, one at a time, at each
 * command of a session. Whatever throws, the mail server gets an answer to each command or the end of its connection,
 * nothing keeps a timer or the lock of its worker, and the next connection of the worker is served.
 *
 * The sources are copied, and each method of the copy begins with a call that throws when it is told to.
 */
import { TIMERS } from "../../src/testing/in-memory.ts";
import { testServices } from "../../src/testing/services.ts";
import { RunningOutcomes } from "../../src/handler/outcomes.ts";
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Chain } from "../../src/handler/chain.ts";
import { PHASE_LIST } from "../../src/protocol/phases.ts";
import type { Connection as ConnectionType, ConnectionHome } from "../../src/worker/connection.ts";
import type { SessionRecords } from "../../src/shared/session-records.ts";
import type { WorkerRows } from "../../src/shared/worker-rows.ts";
import { ALL, ALL_NR, cmd, packetsOf } from "../protocol/wire.ts";
import { tempDir, type TempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const ROOT = new URL("../..", import.meta.url).pathname;

/** The files whose methods fail. */
const FILES = [
  "handler/conversation.ts",
  "handler/rules.ts",
  "handler/filter-parts.ts",
  "handler/awaited-calls.ts",
  "handler/phase-deadline.ts",
  "handler/intake.ts",
  "handler/reporter.ts",
  "handler/filter-session.ts",
  "handler/message/received.ts",
  "handler/message/send-changes.ts",
  "protocol/session.ts",
  "protocol/macros.ts",
  "protocol/encode.ts",
  "protocol/framer.ts",
  "protocol/survey.ts",
  "protocol/packets.ts",
  "worker/connection.ts",
  "worker/write-queue.ts",
  "worker/recorder.ts",
] as const;

/** The beginning of a method or a function: its line, or the last line of its parameters. Constructors are left out. */
const BEGINNING =
  /^(?: {2}(?:static |async |get |set )*#?(?!constructor|if\b|for\b|while\b|switch\b)\w+\(.*\).*\{| {2}\)(?:: .*)? \{|(?:export )?function \w+\(.*\).*\{)$/;
/** Told each beginning; it throws where one is to fail. */
type Probe = (place: string) => void;
const probe = globalThis as { mistakeAt?: Probe };

/** Methods without a probe: they catch errors and end the connection, or read and set the state of its life, a field. */
const GUARDS =
  /^worker\/connection\.ts:.*: (?:get )?(?:opened|data|drained|disconnected|failed|#complain|#hangUp|#end|#isOpen|#isClosed|#mayBecome|#become)\(|^handler\/awaited-calls\.ts:.*: #(?:settle|sendProgress)\(/;

const HANDLERS = ["prompt", "awaited", "too slow", "failing"] as const;
const SOCKETS = ["takes all", "takes little"] as const;

const COMMANDS: readonly (readonly [string, Uint8Array])[] = [
  ["OPTNEG", cmd.optneg(6, 0x1ff, ALL & ~ALL_NR)],
  ["CONNECT", cmd.connect()],
  ["HELO", cmd.helo()],
  ["UNKNOWN", cmd.unknown()],
  ["MAIL", cmd.mail()],
  ["RCPT", cmd.rcpt()],
  ["DATA", cmd.data()],
  ["HEADER", cmd.header()],
  ["EOH", cmd.eoh()],
  ["BODY", cmd.body()],
  ["EOM", cmd.eom()],
  ["MAIL of another message", cmd.mail()],
  ["ABORT", cmd.abort()],
  ["QUIT", cmd.quit()],
];
const UNANSWERED = new Set(["ABORT", "QUIT"]);

interface Modules {
  readonly Connection: typeof ConnectionType;
  readonly ReplyWriter: typeof import("../../src/protocol/encode.ts").ReplyWriter;
  readonly SessionRecords: typeof SessionRecords;
  readonly WorkerRows: typeof WorkerRows;
  readonly chainOf: (handlers: (typeof HANDLERS)[number]) => Chain;
}

/** The timers that are pending: the copies set theirs through these functions. */
class Timers {
  readonly #pending = new Map<object, () => void>();
  readonly #original = { set: globalThis.setTimeout, clear: globalThis.clearTimeout };

  install(): void {
    const set = (callback: () => void) => {
      const timer = {};
      this.#pending.set(timer, callback);
      return timer;
    };
    Object.assign(globalThis, { setTimeout: set, clearTimeout: (timer: object) => void this.#pending.delete(timer) });
  }

  uninstall(): void {
    Object.assign(globalThis, { setTimeout: this.#original.set, clearTimeout: this.#original.clear });
    this.#pending.clear();
  }

  get count(): number {
    return this.#pending.size;
  }

  /** Runs those that are pending, and not those which they set. */
  run(): void {
    const due = [...this.#pending];
    for (const [timer, callback] of due) if (this.#pending.delete(timer)) callback();
  }
}

const timers = new Timers();

/** A socket that keeps what is written, and tells its connection what a real one would. */
class FakeSocket {
  connection: ConnectionType | null = null;
  written = Buffer.alloc(0);
  isEnded = false;
  readonly #takesLittle: boolean;

  constructor(takesLittle: boolean) {
    this.#takesLittle = takesLittle;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    const taken = this.#takesLittle ? Math.min(3, length) : length;
    this.written = Buffer.concat([this.written, bytes.subarray(offset, offset + taken)]);
    if (taken < length) setImmediate(() => this.isEnded || this.connection?.drained());
    return taken;
  }

  shutdown(): void {
    this.isEnded = true;
  }

  end(): void {
    this.isEnded = true;
    setImmediate(() => this.connection?.disconnected());
  }

  terminate(): void {
    this.end();
  }

  pause(): void {}

  resume(): void {}
}

/** One connection in a worker of its own making. */
class Trial {
  readonly socket: FakeSocket;
  readonly connection: ConnectionType;
  closed = 0;

  constructor(modules: Modules, home: Omit<ConnectionHome, "closed">, slot: number, takesLittle: boolean) {
    this.socket = new FakeSocket(takesLittle);
    const closed = (): void => {
      this.closed += 1;
    };
    this.connection = new modules.Connection({ ...home, closed }, slot, "unix:test");
    this.socket.connection = this.connection;
    this.connection.opened(this.socket as never);
  }

  /** Sends a command, and waits for its answer, the end of the connection, or until nothing is under way any more. */
  async ask(name: string, bytes: Uint8Array): Promise<boolean> {
    this.socket.written = Buffer.alloc(0);
    this.connection.data(bytes);
    const isAnswered = () => packetsOf(whole(this.socket.written)).some((packet) => !packet.startsWith("p"));
    // A handler that is too slow has a few periods of progress; more of them would be progress without an end.
    for (let round = 0; round < 12; round++) {
      await quiet();
      if (this.socket.isEnded || (UNANSWERED.has(name) && timers.count === 0)) return true;
      if (isAnswered()) return true;
      timers.run();
    }
    return false;
  }
}

/** All that is written in whole packets. */
function whole(bytes: Buffer): Buffer {
  let end = 0;
  while (end + 4 <= bytes.length && end + 4 + bytes.readUInt32BE(end) <= bytes.length)
    end += 4 + bytes.readUInt32BE(end);
  return bytes.subarray(0, end);
}

/** Promises and immediate callbacks have run. */
async function quiet(): Promise<void> {
  for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** Copies the sources into a folder, with a probe at the beginning of each method of {@link FILES}. */
async function instrument(folder: string): Promise<{ modules: Modules; places: ReadonlySet<string> }> {
  cpSync(join(ROOT, "src"), join(folder, "src"), { recursive: true });
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
  const places = new Set<string>();
  for (const file of FILES) {
    const lines = readFileSync(join(folder, "src", file), "utf8").split("\n");
    const probed = lines.map((line, index) => {
      if (!BEGINNING.test(line)) return line;
      const place = `${file}:${index + 1}: ${line.trim()}`;
      if (GUARDS.test(place)) return line;
      places.add(place);
      return `${line} globalThis.mistakeAt?.(${JSON.stringify(place)});`;
    });
    writeFileSync(join(folder, "src", file), probed.join("\n"));
  }
  const load = (file: string): Promise<Record<string, unknown>> => import(join(folder, "src", file));
  const { Connection } = await load("worker/connection.ts");
  const { ReplyWriter } = await load("protocol/encode.ts");
  const records = await load("shared/session-records.ts");
  const rows = await load("shared/worker-rows.ts");
  const { Chain: CopiedChain } = (await load("handler/chain.ts")) as typeof import("../../src/handler/chain.ts");
  const { checkFilter } = (await load("handler/filter.ts")) as typeof import("../../src/handler/filter.ts");
  const { reject } = (await load("handler/verdict.ts")) as typeof import("../../src/handler/verdict.ts");
  const handler =
    (how: (typeof HANDLERS)[number]) => (session: { phase: string; message: { addHeader?: unknown } }) => {
      if (session.phase === "eom") (session.message.addHeader as (name: string, value: string) => void)("X-Seen", "1");
      switch (how) {
        case "awaited":
          return Promise.resolve(session.phase === "envrcpt" ? reject("550 5.7.1 no") : undefined);
        case "too slow":
          return new Promise(() => undefined);
        case "failing":
          throw new Error("the handler's own");
        default:
          return session.phase === "envrcpt" ? reject("550 5.7.1 no") : undefined;
      }
    };
  const chainOf = (how: (typeof HANDLERS)[number]): Chain => {
    const handlers = Object.fromEntries(PHASE_LIST.map(({ name }) => [name, handler(how)]));
    const loaded = checkFilter(handlers, "trial");
    const place = { index: 0, loaded, timeoutMs: null, isObserved: false, options: {}, own: undefined, files: {} };
    const limits = { packet: 1 << 20, headers: 9, headerBytes: 1 << 16, recipients: 9, macros: 1 << 12, body: 1 << 16 };
    return new CopiedChain([{ ...place, onError: "tempfail", onTimeout: "tempfail" }], {
      onError: "tempfail",
      handlerTimeoutMs: 5,
      eomTimeoutMs: 5,
      deferContent: false,
      limits,
    });
  };
  return { modules: { Connection, ReplyWriter, ...records, ...rows, chainOf } as unknown as Modules, places };
}

let folder: TempDir;
let instrumented: Awaited<ReturnType<typeof instrument>>;

beforeAll(async () => {
  folder = await tempDir("mistakes");
  instrumented = await instrument(folder.path);
  timers.install();
});
afterAll(async () => {
  timers.uninstall();
  await folder[Symbol.asyncDispose]();
});

interface Setting {
  readonly handlers: (typeof HANDLERS)[number];
  readonly socket: (typeof SOCKETS)[number];
  /** The index of the command at which something fails. */
  readonly at: number;
}

const ROW = 0;

/** Places of mistakes that were survived. */
const failed = new Set<string>();

/**
 * Plays a session. While it is at one of the commands, `onPlace` is told of each method that begins.
 * @returns what went wrong, as text; nothing if all is as it has to be
 */
async function play({ at, handlers, socket }: Setting, onPlace: Probe): Promise<string[]> {
  const { modules } = instrumented;
  const workerRows = modules.WorkerRows.create(1);
  const logged: string[] = [];
  let now = 1000;
  const chain = modules.chainOf(handlers);
  const home = {
    row: ROW,
    chainOf: () => chain,
    wantsFor: () => chain.wants,
    services: testServices(TIMERS),
    spool: null,
    writer: new modules.ReplyWriter(1024),
    workerRows,
    records: modules.SessionRecords.create(2),
    reportsAccepted: true,
    outcomes: new RunningOutcomes(),
    logs: () => true,
    isTrial: false,
    tracesPackets: false,
    now: () => now++,
    report: () => undefined,
    log: (_: string, text: string) => void logged.push(text),
    releaseFor: null,
    isStandIn: false,
    released: () => undefined,
  };
  const trial = new Trial(modules, home, 0, socket === "takes little");
  const problems: string[] = [];
  for (const [index, [name, bytes]] of COMMANDS.entries()) {
    if (index === at) probe.mistakeAt = onPlace;
    if (index === at + 1) delete probe.mistakeAt;
    if (!(await trial.ask(name, bytes))) problems.push(`${name} got no answer`);
    if (trial.socket.isEnded || problems.length > 0) break;
  }
  // `abort` and `close` handlers that are awaited after the end have their time as well.
  for (let round = 0; round < 4; round++) {
    await quiet();
    timers.run();
  }
  delete probe.mistakeAt;
  if (!trial.socket.isEnded) problems.push("the connection did not end");
  if (trial.closed !== 1) problems.push(`the slot was given back ${trial.closed} times`);
  if (timers.count > 0) problems.push(`${timers.count} timers are left`);
  if (home.writer.length > 0) problems.push("replies of a connection that is over are left");
  if (!workerRows.lock(ROW)) problems.push("the worker's lock is held");
  workerRows.unlock(ROW);
  if (workerRows.busySlot(ROW) !== null) problems.push("a handler is still said to run");
  const next = new Trial(modules, home, 1, false);
  for (const [name, bytes] of COMMANDS) {
    if (!(await next.ask(name, bytes))) problems.push(`${name} of the next connection got no answer`);
    else if (next.socket.isEnded && name !== "QUIT") problems.push(`the next connection ended at ${name}`);
  }
  await quiet();
  timers.run();
  return problems.length === 0 ? [] : [...problems, ...logged];
}

const PAIRS = [
  ...HANDLERS.map((handlers) => [handlers, "takes all"] as const),
  ["prompt", "takes little"],
  ["awaited", "takes little"],
] as const;

describe.each(PAIRS)("handlers that are %s, a socket that %s", (handlers, socket) => {
  test.each(COMMANDS.map(([name], at) => [name, at] as const))("mistake: at %s", async (_, at) => {
    const setting: Setting = { handlers, socket, at };
    const seen = new Map<string, number>();
    expect(await play(setting, (place) => void seen.set(place, (seen.get(place) ?? 0) + 1))).toEqual([]);
    expect(seen.size).toBeGreaterThan(5);
    for (const [place, times] of seen) {
      // The first time and the last: what was done in between is undone on the way out, or it is not.
      for (const fatal of new Set([1, times])) {
        let count = 0;
        const problems = await play(setting, (now) => {
          if (now === place && ++count === fatal) throw new Error(`a mistake, time ${fatal} of ${times}, at ${place}`);
        });
        expect([place, fatal, problems]).toEqual([place, fatal, []]);
        failed.add(place);
      }
    }
  });
});

test("mistake: most of the methods have failed", () => {
  expect(instrumented.places.size).toBeGreaterThan(150);
  expect(failed.size).toBeGreaterThan(instrumented.places.size / 2);
});
