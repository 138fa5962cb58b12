/** Handlers that fail outside of their calls, or end their worker: what is logged, and that the service goes on. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import {
  CONNECT,
  descriptorsAtRest,
  descriptorsSettle,
  MAIL,
  OPTNEG,
  QUIT,
  RawClient,
  UNKNOWN,
} from "../server/wire.ts";

setDefaultTimeout(120_000);

function start(filter: string, server: Record<string, unknown> = {}): Promise<Pmilter> {
  return startPmilter({
    server: { workers: 1, stop_timeout: 0.1, ...server },
    config: '[[filter]]\npath = "filter.ts"\n',
    files: { "filter.ts": filter },
  });
}

/** A filter that does something at MAIL and answers UNKNOWN; `run` is its third line. */
function atMail(run: string): string {
  return `import { defineFilter } from "pmilter";
export default defineFilter({ unknown() {}, envfrom(session) {
  ${run}
} });
`;
}

describe("what a handler fails at outside of its call", () => {
  test.each<[string, string, RegExp]>([
    ["a rejection that nobody waits for", 'void Promise.reject(new Error("late"));', /Error: late/],
    [
      "a rejection after its verdict",
      'void Bun.sleep(5).then(() => { throw new RangeError("later"); });',
      /RangeError: later/,
    ],
    ["a throw in a timer", 'setTimeout(() => { throw new TypeError("timer"); }, 5);', /TypeError: timer/],
    ["a throw in an immediate", 'setImmediate(() => { throw new Error("immediate"); });', /Error: immediate/],
    ["a throw in a microtask", 'queueMicrotask(() => { throw new Error("micro"); });', /Error: micro/],
    [
      "a throw in an event listener",
      'new (require("node:events"))().emit("error", new Error("unheard"));',
      /Error: unheard/,
    ],
  ])("%s is logged with file and line; the worker lives and the session goes on", async (_, run, message) => {
    await using server = await start(atMail(run));
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, MAIL);
    const line = await server.log.next(message);
    expect(line).toMatch(/\[error\]: /);
    expect(line).toMatch(/filter\.ts:3\b/);
    expect(await client.ask(UNKNOWN)).toBe("c");
    expect(server.log.text).not.toContain("ended");
    expect(server.log.all.filter((text) => message.test(text))).toHaveLength(1);
  });

  test("something that is no error is logged, too, and cannot write a line of its own", async () => {
    await using server = await start(atMail('setTimeout(() => { throw "no\\nerror"; });'));
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, MAIL);
    expect(await server.log.next(/no\\nerror/)).toMatch(/\[error\]: /);
    expect(await client.ask(UNKNOWN)).toBe("c");
  });

  test("in start(), after it was through", async () => {
    const filter = `export default {
  unknown() {},
  start() { setTimeout(() => {
    throw new Error("after the start");
  }, 1); },
};
`;
    await using server = await start(filter);
    expect(await server.log.next(/after the start/)).toMatch(/filter\.ts:4\b/);
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, UNKNOWN)).toBe("Oc");
  });

  test("a rejection of an awaited handler is its failure: one line, and the fallback", async () => {
    await using server = await start(
      `import { defineFilter } from "pmilter";
export default defineFilter({ async envfrom() {
  await 0;
  throw new Error("no answer");
} });
`,
      { on_error: "reject" },
    );
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Ocr");
    await server.log.next(/no answer/);
    expect(server.log.all.filter((line) => line.includes("no answer"))).toEqual([
      expect.stringMatching(
        /\[error\]: handler failed: .*phase=envfrom at=filter\.ts:4 error="Error: no answer" fallback=reject$/,
      ),
    ]);
  });

  test("a handler that fails after it was too slow: the fallback stands, the failure is logged once", async () => {
    await using server = await start(
      `import { defineFilter } from "pmilter";
export default defineFilter({ unknown() {}, async envfrom() {
  await Bun.sleep(250);
  throw new Error("too late");
} });
`,
      { handler_timeout: 0.1 },
    );
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Oct");
    expect(await server.log.next(/too late/)).toMatch(/handler failed after its verdict: .*filter\.ts:4/);
    expect(await client.ask(UNKNOWN)).toBe("c");
    expect(server.log.text).toMatch(/handler too slow: .*not settled after 0\.1 s.*fallback=tempfail/);
    expect(server.log.all.filter((line) => line.includes("too late"))).toHaveLength(1);
  });
});

const EXITING = `import { threadId } from "node:worker_threads";
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  unknown: () => reject("550 5.7.1 " + threadId),
  envfrom() { process.exit(3); },
});
`;

describe("process.exit in a handler", () => {
  test("ends its worker, which is replaced; its session goes on, and new ones are served", async () => {
    await using server = await start(EXITING);
    using first = await RawClient.connect(server.addresses[0]!);
    expect(await first.ask(OPTNEG, UNKNOWN)).toBe("Oy");
    expect(await first.ask(CONNECT)).toBe("c");
    expect(await first.ask(MAIL)).toBe("t");
    expect(await server.log.next(/a worker with \d connections? ended/)).toMatch(/\[crit\]: .*another is started/);
    // At once, and before there is another worker: it waits.
    using second = await RawClient.connect(server.addresses[0]!);
    expect(await second.ask(OPTNEG, UNKNOWN)).toBe("Oy");
    expect(second.replies[1]!.payload).not.toEqual(first.replies[1]!.payload);
  });

  test("sessions of other workers go on", async () => {
    await using server = await start(EXITING, { workers: 2 });
    using first = await RawClient.connect(server.addresses[0]!);
    using other = await RawClient.connect(server.addresses[0]!);
    await Promise.all([first.ask(OPTNEG, UNKNOWN), other.ask(OPTNEG, UNKNOWN)]);
    expect(other.replies[1]!.payload).not.toEqual(first.replies[1]!.payload);
    expect(await first.ask(CONNECT)).toBe("c");
    expect(await first.ask(MAIL)).toBe("t");
    await server.log.next(/a worker with \d connections? ended/);
    expect(await other.ask(CONNECT, UNKNOWN)).toBe("cy");
    expect(other.isEnded).toBe(false);
  });

  test.skipIf(!IS_LINUX)("again and again: always replaced, and no descriptor is left over", async () => {
    await using server = await start(EXITING);
    const crash = async () => {
      const from = server.log.all.length;
      using client = await RawClient.connect(server.addresses[0]!);
      expect(await client.ask(OPTNEG, CONNECT)).toBe("Oc");
      expect(await client.ask(MAIL)).toBe("t");
      await server.log.next(/a worker with \d connections? ended/, { from });
      // Served again once its successor is there.
      expect(await client.ask(UNKNOWN)).toBe("y");
    };
    const before = await descriptorsAtRest(server);
    for (let round = 0; round < 4; round++) await crash();
    await descriptorsSettle(server, before);
  });

  test("the exit code of the server is none of a handler's business", async () => {
    await using server = await start(EXITING.replace("process.exit(3)", "process.exitCode = 7"));
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Occ");
    await client.send(QUIT);
    await client.ended();
    expect(await server.stop()).toBe(0);
  });
});

test("a filter that fails costs the others nothing: their changes are kept", async () => {
  await using server = await startPmilter({
    server: { workers: 1, on_error: "continue" },
    config: '[[filter]]\npath = "a.ts"\n[[filter]]\npath = "b.ts"\n[[filter]]\npath = "c.ts"\n',
    files: {
      "a.ts": 'export default { eom: ({ message }) => message.addHeader("X-A", "1") };\n',
      "b.ts": 'export default { eom({ message }) { message.addHeader("X-B", "1"); throw new Error("b"); } };\n',
      "c.ts": 'export default { eom: ({ message }) => message.addHeader("X-C", "1") };\n',
    },
  });
  await using client = await MilterClient.connect(server.addresses[0]!, { as: "sendmail" });
  const outcome = await client.send({ from: "a@example.com", to: ["b@example.com"], eml: "S: x\r\n\r\nx\r\n" });
  expect(outcome.modifications.map((change) => "name" in change && change.name)).toEqual(["X-A", "X-C"]);
});
