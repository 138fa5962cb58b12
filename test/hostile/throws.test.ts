/**
 * Handlers that throw what nobody can print: values with no text, errors whose members are no strings or throw
 * themselves. Some are what JSON in a mail is parsed to. Each is a failed call like any other
 * (docs/handlers.md, "When a handler fails").
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { type AnyFilter, Line, settled } from "../handler/harness.ts";
import { cmd } from "../protocol/wire.ts";
import {
  CONNECT,
  descriptorsAtRest,
  descriptorsSettle,
  MAIL,
  OPTNEG,
  packet,
  RawClient,
  UNKNOWN,
} from "../server/wire.ts";

setDefaultTimeout(120_000);

function withMember(name: string, descriptor: PropertyDescriptor): Error {
  return Object.defineProperty(new Error("x"), name, descriptor);
}
const fails = {
  get(): never {
    throw new Error("from a getter");
  },
};

const ODD: readonly [string, () => unknown][] = [
  ["undefined", () => undefined],
  ["null", () => null],
  ["a symbol", () => Symbol("odd")],
  ["an object without a prototype", () => Object.create(null)],
  ["parsed JSON with a toString of its own", () => JSON.parse('{"toString":1,"valueOf":2}')],
  ["an error with a symbol as its name", () => withMember("name", { value: Symbol("name") })],
  ["an error with an object as its message", () => withMember("message", { value: Object.create(null) })],
  ["an error whose message throws", () => withMember("message", fails)],
  ["an error whose stack throws", () => withMember("stack", fails)],
  ["an error whose stack is a number", () => withMember("stack", { value: 5 })],
  [
    "a proxy that throws at each touch",
    () =>
      new Proxy(
        {},
        {
          get: () => {
            throw new Error("get");
          },
          getPrototypeOf: () => {
            throw new Error("getPrototypeOf");
          },
        },
      ),
  ],
];

describe.each(ODD)("%s", (_, make) => {
  test.each(["envfrom", "envrcpt", "eom", "abort", "close", "unknown"] as const)("thrown at %s", async (phase) => {
    for (const isAsync of [false, true]) {
      const filter: AnyFilter = {
        envfrom: () => undefined,
        [phase]: () => {
          if (isAsync) return Promise.reject(make());
          throw make();
        },
      };
      const line = Line.to([filter]);
      const ask = async (...packets: readonly Uint8Array[]): Promise<string[]> => {
        const replies: string[] = [];
        for (const one of packets) {
          replies.push(...line.send(one));
          await settled();
          replies.push(...line.replies());
        }
        return replies;
      };
      line.send(cmd.connect());
      const replies = await ask(cmd.mail(), cmd.rcpt(), cmd.eom(), cmd.unknown(), cmd.mail(), cmd.abort());
      // A failed call that can decide gives the fallback; the next message is looked at again.
      expect(replies.includes("t")).toBe(phase === "envfrom" || phase === "envrcpt" || phase === "eom");
      line.hangUp();
      await settled();
      expect(line.conversation.isOver).toBe(true);
      expect(line.failures.length).toBeGreaterThan(0);
      expect(line.failures.every(({ message }) => typeof message === "string" && message !== "")).toBe(true);
    }
  });
});

describe("throws: odd values, in the server", () => {
  const FILTER = `import { defineFilter } from "pmilter";
const odd = () => JSON.parse('{"toString":1,"valueOf":2}');
export default defineFilter({
  connect() {}, unknown() {},
  helo(session, name) {
    if (name === "timer") setTimeout(() => { throw odd(); });
    if (name === "rejection") void Promise.reject(odd());
  },
  async envfrom() { await 0; throw odd(); },
  abort() { throw odd(); },
  close() { throw odd(); },
});
`;
  const start = (): Promise<Pmilter> =>
    startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": FILTER },
    });

  test("in a timer, or rejected without anyone waiting: no other session is lost", async () => {
    await using server = await start();
    using bystander = await RawClient.connect(server.addresses[0]!);
    await bystander.ask(OPTNEG, CONNECT);
    for (const name of ["timer", "rejection"]) {
      const from = server.log.all.length;
      using client = await RawClient.connect(server.addresses[0]!);
      expect(await client.ask(OPTNEG, CONNECT, packet("H", `${name}\0`))).toBe("Occ");
      await server.log.next(/a handler failed outside of any call/, { from });
      expect(await client.ask(UNKNOWN)).toBe("c");
      expect(await bystander.ask(UNKNOWN)).toBe("c");
    }
    expect(server.log.text).not.toContain("[crit]");
  });

  test.skipIf(!IS_LINUX)(
    "awaited, and at the end of a connection: it is answered, and nothing of it stays",
    async () => {
      await using server = await start();
      using bystander = await RawClient.connect(server.addresses[0]!);
      await bystander.ask(OPTNEG, CONNECT);
      const before = await descriptorsAtRest(server);
      for (let round = 0; round < 3; round++) {
        using client = await RawClient.connect(server.addresses[0]!);
        expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Oct");
      }
      await descriptorsSettle(server, before, 3000);
      expect(await bystander.ask(UNKNOWN)).toBe("c");
      expect(server.log.text).not.toContain("internal error");
    },
  );
});
