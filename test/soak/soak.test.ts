/** The soak itself: a short run of it, and that its books tell what is wrong. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { Account } from "../../soak/account.ts";
import { parseSoakArguments, SoakUsageError } from "../../soak/args.ts";
import { type Answer, judgeGreeting, judgeMessage } from "../../soak/judge.ts";
import { type MessagePlan, planSession } from "../../soak/plan.ts";
import { memoryOf, type Sample } from "../../soak/resources.ts";
import { leftOver, soak, type SoakOptions } from "../../soak/run.ts";
import type { Target } from "../../soak/transport.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import { Versions } from "../../soak/versions.ts";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");
const NO_PROBLEM = { dropped: 0, wrong: 0, "accepted against a rule": 0, late: 0, server: 0 };

test("a short run with every kind of fault: nothing dropped, wrong, late or left over", async () => {
  const summary = await soak(parseSoakArguments(["--seconds", "10", "--connections", "20", "--rate", "100"], 4));
  expect(summary.examples).toEqual([]);
  expect(summary.problems).toEqual(NO_PROBLEM);
  // How many there are is the machine's business.
  expect(summary.tally["messages"]).toBeGreaterThan(20);
  expect(summary.incidents).toBeGreaterThan(0);
}, 300_000);

describe("what is planted is found", () => {
  const run = (options: SoakOptions) =>
    soak(
      parseSoakArguments(["--seconds", "6", "--faults", "none", "--rate", "100", "--connections", "20"], 5),
      options,
    );

  test("a handler that now and then lets pass what it should refuse, or takes one message for another", async () => {
    const { examples, problems } = await run({
      editFilter: (text) =>
        text
          .replace("return at === phase ?", 'return at === phase && !(verdict === "reject" && id.endsWith("-1")) ?')
          .replace("const MEBIBYTE", 'let before = "";\nlet stamped = 0;\nconst MEBIBYTE')
          .replace(
            "`sender=${message.sender.address}`",
            "`sender=${stamped++ % 10 === 9 ? before : (before = message.sender.address)}`",
          ),
    });
    expect(problems["accepted against a rule"]).toBeGreaterThan(0);
    const passed = examples.find(({ kind }) => kind === "accepted against a rule");
    expect(passed?.text).toMatch(/<reject\.\w+\.\w+\.\d+-1@soak\.example>: accepted at /);
    expect(passed?.conversation.join("\n")).toMatch(/> MAIL .*<reject/);
    expect(problems.wrong).toBeGreaterThan(0);
    const mixed = examples.find(({ kind }) => kind === "wrong");
    expect(mixed?.text).toMatch(/: stamped sender=.*, expected sender=/);
  });

  test("connections that are closed without a reason", async () => {
    await using stack = new AsyncDisposableStack();
    const { examples, problems } = await run({
      through: (targets) => stack.use(new CuttingProxy(targets.tcp)).targets,
    });
    expect(problems.dropped).toBeGreaterThan(0);
    expect(examples.find(({ kind }) => kind === "dropped")?.conversation.at(-1)).toContain("(closed)");
  });
});

/** Passes everything on, but closes each twentieth connection in the middle. */
class CuttingProxy implements Disposable {
  readonly #listener: Bun.TCPSocketListener<Passed>;
  #count = 0;

  constructor(target: Target) {
    if (!("port" in target)) throw new Error("the proxy speaks TCP");
    const pass = (client: Bun.Socket<Passed>): Passed => ({
      isCut: ++this.#count % 20 === 0,
      server: Bun.connect({
        hostname: target.hostname,
        port: target.port,
        socket: {
          data: (_, bytes) => void client.write(bytes),
          close: () => void client.end(),
        },
      }),
    });
    this.#listener = Bun.listen<Passed>({
      hostname: "127.0.0.1",
      port: 0,
      socket: {
        open: (client) => void (client.data = pass(client)),
        data: (client, bytes) => {
          const { isCut, server } = client.data;
          if (isCut && bytes.includes("@soak.example")) client.end();
          const copy = Buffer.from(bytes);
          void server.then((socket) => socket.write(copy));
        },
        close: ({ data }) => void data.server.then((socket) => socket.end()),
      },
    });
  }

  get targets() {
    const target = { hostname: "127.0.0.1", port: this.#listener.port };
    return { tcp: target, unix: target };
  }

  [Symbol.dispose](): void {
    this.#listener.stop(true);
  }
}

interface Passed {
  readonly isCut: boolean;
  readonly server: Promise<Bun.Socket>;
}

describe("the judge", () => {
  const session = planSession(1, 1, "mail");
  const body = new Uint8Array(0);
  const plan = (rule: MessagePlan["rule"]): MessagePlan => ({
    ...session.messages[0]!,
    rule,
    recipients: [{ address: "<pass.x.0@soak.example>", verdict: "pass" }],
    fault: null,
    isAborted: false,
    unknown: null,
  });
  const say = (phase: Answer["phase"], kind: "continue" | "accept" | "tempfail"): Answer => ({
    phase,
    reply: { kind },
  });
  const judge = (message: MessagePlan, answers: Answer[], incidents = 0) =>
    judgeMessage(message, { answers, modifications: null }, { incidents, body, session }).problems.map(
      ({ kind }) => kind,
    );

  test("a message that a rule refuses and that is accepted is the worst", () => {
    const message = plan({ verdict: "reject", phase: "envfrom" });
    expect(judge(message, [say("envfrom", "continue"), say("envrcpt", "continue"), say("eom", "continue")])).toContain(
      "accepted against a rule",
    );
  });

  test("the fallback is wrong unless a worker was lost meanwhile", () => {
    const message = plan({ verdict: "pass", phase: "eom" });
    expect(judge(message, [say("envfrom", "tempfail")])).toEqual(["wrong"]);
    expect(judge(message, [say("envfrom", "tempfail")], 1)).toEqual([]);
  });

  test("a connection that is refused without a rule is wrong", () => {
    expect(judgeGreeting({ ...session, rule: null }, say("connect", "tempfail"), 0).problems).toHaveLength(1);
    expect(judgeGreeting({ ...session, rule: null }, say("connect", "continue"), 0).problems).toEqual([]);
  });
});

test("the books: what is counted too often or too seldom shows, and so does every problem", () => {
  const account = new Account();
  account.count("messages", 5, 2);
  const isRight = (messages: number) => account.compare({ messages }, ["messages"])[0]!.isRight;
  expect([4, 5, 7, 8].map(isRight)).toEqual([false, true, true, false]);
  expect(account.hasFailed).toBe(false);
  account.problem("dropped", 0, 1, "closed");
  expect(account.hasFailed).toBe(true);
  expect(account.examples).toMatchObject([{ kind: "dropped", text: "closed" }]);
});

test("versions: an old one, a broken one, two in one message", () => {
  const versions = new Versions();
  versions.written(1, false);
  versions.serves(1, 0);
  versions.written(2, true);
  versions.written(3, false);
  versions.serves(3, 100);
  expect(versions.problemOf([3, 3, 3], 1, 3)).toBeNull();
  expect(versions.problemOf([1, 1, 3], 1, 1)).toContain("expected one");
  expect(versions.problemOf([2], 1, 1)).toContain("does not load");
  expect(versions.problemOf([1], 3, 1)).toContain("after");
  expect(versions.problemOf([1], 1, 3)).toContain("expected 3");
});

test("memory that rises in the second half is not flat, memory that only warms up is", () => {
  const samples = (residentAt: (second: number) => number): Sample[] =>
    Array.from({ length: 100 }, (_, second) => ({
      at: second * 1000,
      residentBytes: residentAt(second) * 2 ** 20,
      descriptors: 1,
      threads: 1,
      isEating: false,
    }));
  expect(memoryOf(samples((second) => 100 + Math.min(second, 40))).isFlat).toBe(true);
  expect(memoryOf(samples((second) => 100 + second)).isFlat).toBe(false);
});

test("wrong usage says what was expected", () => {
  for (const args of [["--seconds", "0"], ["--faults", "some"], ["--speed", "1"], ["now"], ["--rate"]]) {
    expect(() => parseSoakArguments(args, 1)).toThrow(SoakUsageError);
  }
});

test("what is left over is named, one thing after the other", () => {
  const held = { descriptors: 20, threads: 10 };
  const worker = { generation: 1, state: "ready", connections: 0, heapBytes: 0, blockedMs: 0 } as const;
  const status = { connections: 0, ending: [], stuckThreads: 0, workers: [worker, worker] };
  const left = (changed: Partial<Parameters<typeof leftOver>[0]>, now = held) =>
    leftOver({ ...status, ...changed }, now, held);
  expect(left({})).toBeNull();
  expect(left({ connections: 1 })).toContain("connections");
  expect(left({ stuckThreads: 1 })).toContain("stuck");
  expect(left({ workers: [] })).toContain("0 workers");
  expect(left({}, { ...held, descriptors: 24 })).toBeNull();
  expect(left({}, { ...held, descriptors: 25 })).toContain("25 descriptors");
  expect(left({}, { ...held, descriptors: 19 })).toContain("19 descriptors");
  expect(left({}, { ...held, threads: 30 })).toContain("30 threads");
});

describe("bun run soak", () => {
  const run = (...args: string[]) =>
    Bun.spawn([process.execPath, "soak/run.ts", ...args], { cwd: ROOT, stdout: "pipe", stderr: "pipe" });

  test("wrong usage ends with 2, help with 0", async () => {
    const usage = run("--speed");
    expect(await usage.exited).toBe(2);
    expect(await new Response(usage.stderr).text()).toContain("there is no option --speed");
    const help = run("--help");
    expect(await help.exited).toBe(0);
    expect(await new Response(help.stdout).text()).toStartWith("Usage: bun run soak ");
  });

  test("SIGTERM ends it, and leaves neither a server nor a folder", async () => {
    await using folder = await tempDir("soak");
    const child = Bun.spawn([process.execPath, "soak/run.ts", "--faults", "none", "--seconds", "60"], {
      cwd: ROOT,
      env: { ...process.env, TMPDIR: folder.path },
      stdio: ["ignore", "ignore", "pipe"],
    });
    // Its sockets are there: the server runs.
    await waitFor(() => readdirSync(folder.path, { recursive: true }).some((name) => String(name).endsWith(".sock")), {
      what: "the server",
    });
    child.kill("SIGTERM");
    expect(await child.exited).toBe(130);
    expect(await new Response(child.stderr).text()).toContain("interrupted by SIGTERM");
    expect(readdirSync(folder.path).filter((name) => name.startsWith("pmilter-soak-"))).toEqual([]);
  });
});
