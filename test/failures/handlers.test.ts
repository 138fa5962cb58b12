/** Handlers that fail without harm to their worker, in the running server: rows of docs/failures.md. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { ABORT, BODY, DATA, EOH, EOM, HEADER, OPTNEG, OPTNEG_DEFER, QUIT, RawClient, RCPT } from "../server/wire.ts";
import { connect, expectCodes, header, helo, mail, rcpt, statusOf, unknown } from "../recovery/support.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";

setDefaultTimeout(120_000);

/** Fails at the phase that the HELO name says (at connect and helo: their own argument), in the way that it says. */
const SOURCE = `import { defineFilter, reject } from "pmilter";
const ways = {
  throw() { throw new Error("on purpose"); },
  async reject() { await 0; throw new Error("on purpose"); },
  never: () => new Promise(() => {}),
  after() { Promise.resolve().then(() => { throw new Error("too late"); }); },
  timer() { setTimeout(() => { throw new Error("too late"); }); },
  late: () => new Promise((_, reject) => setTimeout(() => reject(new Error("too late")), 400)),
  wrong: () => "no verdict",
};
function step(session, argument) {
  const name = session.phase === "connect" ? session.client.hostname : session.phase === "helo" ? argument : session.helo;
  const [way, phase] = name.split(".")[0].split("-");
  if (phase === session.phase) return ways[way]();
}
export default defineFilter({
  connect: step, helo: step, envfrom: step, envrcpt: step, data: step, header: step, eoh: step, body: step, eom: step,
  unknown: step, abort: step, close: step,
});
`;

const start = (server: Record<string, unknown> = {}): Promise<Pmilter> =>
  startPmilter({
    server: { workers: 1, handler_timeout: 0.3, eom_timeout: 0.3, ...server },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: { "filter.ts": SOURCE },
  });

const PHASES = ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"] as const;
type Phase = (typeof PHASES)[number];

/** Each phase with a reply of its own, and those of content deferred: their verdict is that of the end. */
const WALK: readonly (readonly [phase: Phase, offer: Uint8Array])[] = [
  ...PHASES.map((phase) => [phase, OPTNEG] as const),
  ...(["header", "eoh", "body"] as const).map((phase) => [phase, OPTNEG_DEFER] as const),
];

/** One command after the other up to the end of a message; the reply of the phase that fails, or the next there is. */
async function replyAt(server: Pmilter, phase: Phase, way: string, offer: Uint8Array = OPTNEG): Promise<string> {
  using session = await RawClient.connect(server.addresses[0]!);
  const name = `${way}-${phase}`;
  const commands: readonly [Phase, Uint8Array][] = [
    ["connect", connect(phase === "connect" ? `${name}.test` : "client.test")],
    ["helo", helo(phase === "connect" ? "client.test" : `${name}.test`)],
    ["envfrom", mail()],
    ["envrcpt", rcpt()],
    ["data", DATA],
    ["header", header()],
    ["eoh", EOH],
    ["body", BODY],
    ["eom", EOM],
  ];
  await session.ask(offer);
  let hasFailed = false;
  for (const [at, command] of commands) {
    const code = await session.ask(command);
    hasFailed ||= at === phase;
    if (code === "") continue;
    if (hasFailed) return code;
    expectCodes(code, "c");
  }
  throw new Error(`no command of ${phase} was sent`);
}

const FALLBACKS = { tempfail: "t", reject: "r", accept: "c", continue: "c" } as const;

describe.each(Object.entries(FALLBACKS))("throws: with on_error = %s", (fallback, code) => {
  test.each(["throw", "reject", "wrong"])("a handler that fails by %s, at each phase", async (way) => {
    await using server = await start({ on_error: fallback });
    for (const [phase, offer] of WALK) {
      const from = server.log.all.length;
      const reply = await replyAt(server, phase, way, offer);
      // The wire's ACCEPT is sent where no filter has anything left to do.
      expect(reply === "a" ? "c" : reply, phase).toBe(code);
      const line = await server.log.next(/handler failed/, { from });
      expect(line).toMatch(/^\[.*\]\[error\]: handler failed: client="[^"]*" .*filter=filter phase=\w+ at=filter\.ts/);
      expect(line).toContain(`phase=${phase}`);
      expect(line).toContain(`fallback=${fallback}`);
    }
    const { counters } = await statusOf(server);
    const isRefusal = fallback === "tempfail" || fallback === "reject";
    expect(counters).toMatchObject({ errors: WALK.length, workersDied: 0, sessionsLost: 0 });
    if (isRefusal)
      expect(counters).toMatchObject({ connectionsRefused: 2, recipientsRefused: 1, messages: 9, fallbacks: 12 });
  });
});

test("throws: at unknown, abort and close it is only logged", async () => {
  await using server = await start({ on_error: "reject" });
  using session = await RawClient.connect(server.addresses[0]!);
  for (const command of [OPTNEG, connect(), helo("throw-abort.test"), mail()]) await session.ask(command);
  await session.send(ABORT);
  expectCodes(await session.ask(helo("throw-unknown.test")), "c");
  expectCodes(await session.ask(unknown("WHO")), "c");
  expectCodes(await session.ask(helo("throw-close.test")), "c");
  await session.send(QUIT);
  await session.ended();
  await server.log.next(/handler failed: .*phase=close/);
  expect((await statusOf(server)).counters).toMatchObject({ errors: 3, fallbacks: 0 });
});

test("late: what is thrown after the verdict, or in a timer, is logged and counted, and changes nothing", async () => {
  await using server = await start();
  using bystander = await RawClient.connect(server.addresses[0]!);
  for (const command of [OPTNEG, connect(), helo()]) await bystander.ask(command);
  for (const [way, pattern] of [
    ["after", /a handler failed outside of any call: filter=filter at=filter\.ts:6 error="Error: too late"/],
    ["timer", /a handler failed outside of any call: filter=filter at=filter\.ts:7 error="Error: too late"/],
  ] as const) {
    for (const [phase, offer] of [
      ["envfrom", OPTNEG],
      ["header", OPTNEG_DEFER],
    ] as const) {
      const from = server.log.all.length;
      expect(await replyAt(server, phase, way, offer)).toBe("c");
      await server.log.next(pattern, { from });
    }
  }
  expectCodes(await bystander.ask(mail()), "c");
  expect((await statusOf(server)).counters).toMatchObject({ late: 4, errors: 0, fallbacks: 0, workersDied: 0 });
});

test("late: a promise that nobody awaits names filter, file and line, by its stack or by who imports the file", async () => {
  const own = (name: string, call: string, imports: string) => `import { defineFilter } from "pmilter";
${imports}
async function save() { await Bun.sleep(1); throw new Error("${name} itself"); }
export default defineFilter({
  envfrom(session, sender) { if (sender === "<${name}-own@c.test>") save(); },
  envrcpt(session, recipient) { ${call} },
});
`;
  await using server = await startPmilter({
    server: { workers: 1 },
    config: ["first", "second"].map((name) => `[[filter]]\npath = "rules/${name}.ts"\nname = "${name}"\n`).join(""),
    files: {
      "rules/first.ts": own("first", "", ""),
      "rules/second.ts": own(
        "second",
        'if (recipient === "<lib@c.test>") write(); if (recipient === "<both@c.test>") shared(); if (recipient === "<text@c.test>") Promise.reject("text");',
        'import { write } from "./lib/write.ts";\nimport { shared } from "./shared.ts";',
      ),
      "rules/lib/write.ts": "export async function write() { await Bun.sleep(1); throw new Error('lib'); }\n",
      "rules/shared.ts": "export async function shared() { throw new Error('both'); }\n",
    },
  });
  using session = await RawClient.connect(server.addresses[0]!);
  await session.ask(OPTNEG, connect(), helo());
  for (const [sender, recipient, expected] of [
    ["first-own", "x", 'filter=first at=rules/first.ts:3 error="Error: first itself"'],
    ["second-own", "x", 'filter=second at=rules/second.ts:4 error="Error: second itself"'],
    ["x", "lib", 'filter=second at=rules/lib/write.ts:1 error="Error: lib"'],
    // The stack shows who has called it.
    ["x", "both", 'filter=second at=rules/shared.ts:1 error="Error: both"'],
    // Without a stack nothing tells.
    ["x", "text", 'error="thrown: text"'],
  ] as const) {
    const from = server.log.all.length;
    expectCodes(await session.ask(mail(`<${sender}@c.test>`), rcpt(`<${recipient}@c.test>`)), "cc");
    const line = await server.log.next(/outside of any call/, { from });
    expect(line).toEndWith(`[error]: a handler failed outside of any call: ${expected}`);
    await session.send(ABORT);
  }
});

test("outcome-fails: outcome throws, rejects or is too slow: it is logged and counted, and the mail is answered", async () => {
  await using server = await startPmilter({
    server: { workers: 1, handler_timeout: 0.3 },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: {
      "filter.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  async outcome({ message }) {
    const { address } = message.sender;
    if (address.startsWith("throw")) throw new Error("on purpose");
    if (address.startsWith("slow")) await new Promise(() => {});
  },
});
`,
    },
  });
  using session = await RawClient.connect(server.addresses[0]!);
  await session.ask(OPTNEG, connect(), helo());
  const lines = [
    [
      "throw",
      /handler failed: .* from=<throw@c\.test> .* filter=filter phase=outcome at=filter\.ts:5 error="Error: on purpose"$/,
    ],
    [
      "slow",
      /handler too slow: .* from=<slow@c\.test> .* phase=outcome at=filter\.ts error="Error: not settled after 0\.3 s"$/,
    ],
  ] as const;
  for (const [way, line] of lines) {
    expectCodes(await session.ask(mail(`<${way}@c.test>`), rcpt(), EOM), "ccc");
    await server.log.next(line);
  }
  expect((await statusOf(server)).counters).toMatchObject({ errors: 1, timeouts: 1, fallbacks: 0, accepted: 2 });
});

test("unreturned: a verdict without its return is told once for all workers, by filter, file and line, and counted", async () => {
  await using server = await startPmilter({
    server: { workers: 2 },
    config: '[[filter]]\npath = "rules.ts"\n\n[[filter]]\npath = "late.ts"\n',
    files: {
      "rules.ts": `import { defineFilter, reject } from "pmilter";
const never = reject("550 5.7.1 a constant");
export default defineFilter({
  envfrom(_, sender) {
    if (sender.includes("x")) reject("550 5.7.1 forgotten");
    if (sender.includes("never")) return never;
  },
});
`,
      "late.ts": `import { accept, defineFilter } from "pmilter";
export default defineFilter({
  async eom() {
    accept();
    await 0;
  },
});
`,
    },
  });
  for (let connection = 0; connection < 6; connection++) {
    using session = await RawClient.connect(server.addresses[0]!);
    await session.ask(OPTNEG, connect(), helo());
    expectCodes(await session.ask(mail("<x@c.test>")), "c");
    expectCodes(await session.ask(EOM), "c");
    await session.send(QUIT);
    await session.ended();
  }
  const about = /^\[.*\]\[warn\]: (\w+)\(\) was not returned and has no effect: client=.* (filter=.*)$/;
  await server.log.next(/reject\(\) was not returned/);
  await server.log.next(/accept\(\) was not returned/);
  await server.stop();
  const told = server.log.all.flatMap((line) => about.exec(line)?.slice(1).join(" ") ?? []);
  expect(told.toSorted()).toEqual([
    "accept filter=late phase=eom at=late.ts:4",
    "reject filter=rules phase=envfrom at=rules.ts:5",
  ]);
});

test("unreturned: it is counted each time, and said again by code that was loaded anew", async () => {
  const source = (mark: string) => `import { defineFilter, reject } from "pmilter";
export default defineFilter({ helo() { reject(); } }); // ${mark}
`;
  await using server = await startPmilter({
    server: { workers: 1 },
    config: '[[filter]]\npath = "rules.ts"\n',
    files: { "rules.ts": source("one") },
  });
  const play = async () => {
    using session = await RawClient.connect(server.addresses[0]!);
    await session.ask(OPTNEG, connect(), helo());
    await session.send(QUIT);
    await session.ended();
  };
  for (let times = 0; times < 3; times++) await play();
  await server.log.next(/was not returned/);
  expect((await statusOf(server)).counters.unreturned).toBe(3);
  const from = server.log.all.length;
  await Bun.write(`${server.dir}/rules.ts`, source("two"));
  await server.log.next(/reload: generation 2 serves/, { from });
  await play();
  await server.log.next(/was not returned/, { from });
  expect(server.log.all.filter((line) => line.includes("was not returned"))).toHaveLength(2);
});

test("never-settles: the fallback at the deadline, with on_timeout and not on_error, at each phase", async () => {
  await using server = await start({ on_error: "continue", on_timeout: "reject" });
  for (const [phase, offer] of WALK) {
    const before = performance.now();
    expect(await replyAt(server, phase, "never", offer), phase).toBe("r");
    expect(performance.now() - before).toBeGreaterThan(290);
  }
  await server.log.next(/handler too slow: .*phase=eom .*error="Error: not settled after 0\.3 s" fallback=reject/);
  expect((await statusOf(server)).counters).toMatchObject({
    timeouts: WALK.length,
    errors: 0,
    fallbacks: WALK.length,
  });
});

test("never-settles: what it says after its time is logged once and changes nothing", async () => {
  await using server = await start();
  expect(await replyAt(server, "envfrom", "late")).toBe("t");
  expect(await replyAt(server, "header", "late", OPTNEG_DEFER)).toBe("t");
  for (const phase of ["envfrom", "header"]) {
    await server.log.next(
      new RegExp(`failed after its verdict: .*phase=${phase} at=\\S*filter\\.ts:8 error="Error: too late"`),
    );
  }
  expect((await statusOf(server)).counters).toMatchObject({ timeouts: 2, late: 2, errors: 0 });
});

test("out-of-order: commands that make no sense are answered or end the message, and the next is served", async () => {
  await using server = await start();
  using session = await RawClient.connect(server.addresses[0]!);
  expectCodes(await session.ask(OPTNEG), "O");
  // No CONNECT, no MAIL, the end twice, HELO in a message.
  expectCodes(await session.ask(rcpt(), HEADER, EOM, EOM, mail(), helo(), RCPT, DATA, DATA, EOM), "c".repeat(10));
  await session.send(ABORT, ABORT);
  for (const command of [mail(), rcpt(), DATA, HEADER, EOH, BODY, EOM]) expectCodes(await session.ask(command), "c");
  expect((await statusOf(server)).counters).toMatchObject({ protocolErrors: 0, internalErrors: 0 });
});

test("floods-output: a handler that prints without an end loses lines, and nobody waits for it", async () => {
  await using server = await startPmilter({
    server: { workers: 2, block_timeout: 2 },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: {
      "filter.ts": `import { defineFilter } from "pmilter";
const line = "x".repeat(1000);
export default defineFilter({
  envfrom(_, sender) { if (sender.includes("flood")) for (let count = 0; count < 50_000; count++) console.log(line); },
});
`,
    },
  });
  using bystander = await RawClient.connect(server.addresses[0]!);
  for (const command of [OPTNEG, connect(), helo()]) await bystander.ask(command);
  using session = await RawClient.connect(server.addresses[0]!);
  for (const command of [OPTNEG, connect(), helo()]) await session.ask(command);
  expectCodes(await session.ask(mail("<flood@example.com>")), "c");
  expectCodes(await bystander.ask(mail()), "c");
  await server.log.next(/lines .*were dropped/);
  const { counters, residentBytes } = await statusOf(server);
  expect(counters.linesDropped).toBeGreaterThan(1000);
  expect(residentBytes).toBeLessThan(400 * 2 ** 20);
});
