/** `listeners` and `share` in a running server: each session is negotiated with its own filters, and keeps them. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { askServer } from "../../src/server/control/control.ts";
import type { Status } from "../../src/server/control/status.ts";
import { controlOf, type Pmilter, startPmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import { CONNECT, HELO, MAIL, packet, QUIT, RawClient, UNKNOWN, words } from "./wire.ts";

setDefaultTimeout(120_000);

/** Answers an unknown command with its name. */
const named = (name: string) =>
  `import { reject } from "pmilter";\nexport default { name: "${name}", unknown: () => reject("550 5.7.1 ${name}"), header() {}, body() {} };\n`;
/** Ends its worker at a sender. */
const FATAL = `export default { envfrom: (session, sender) => { if (sender.includes("exit")) process.exit(3); } };\n`;
const EXIT = Buffer.concat([Buffer.from([0, 0, 0, 20]), Buffer.from("M<exit@example.com>\0")]);

/** An offer of all flags that keep events from being sent, and of none that keep them from being answered. */
const OFFER = packet("O", words(6, 0x1ff, 0x37f));

/** What a session's filters answer to an unknown command; "" for none. */
async function answer(client: RawClient): Promise<string> {
  await client.send(UNKNOWN);
  const { code, payload } = await client.reply();
  return code === "c" ? "" : payload.toString("latin1").replace(/^550 5\.7\.1 (.*)\0$/, "$1");
}

async function negotiated(address: string): Promise<{ client: RawClient; options: string }> {
  const client = await RawClient.connect(address);
  await client.send(OFFER);
  const options = (await client.reply()).payload.toString("hex");
  expect(await client.ask(CONNECT, HELO)).toMatch(/^c+$/);
  return { client, options };
}

const statusOf = async (server: Pmilter) =>
  (await askServer(controlOf(server.configFile), { command: "status" })) as Status;

describe("listeners", () => {
  test("each connection has the filters of the socket that it came to, also one that was passed on", async () => {
    const listen = ["inet:127.0.0.1:0", "unix:second.sock"];
    const config = (own: string) =>
      `[[filter]]\npath = "first.ts"\n[filter.when]\nlisteners = "inet:127.0.0.1:0"\n[[filter]]\npath = "${own}.ts"\n[filter.when]\nlisteners = ["./second.sock"]\n`;
    await using server = await startPmilter({
      config: config("second"),
      files: { "first.ts": named("first"), "second.ts": `${named("second")}` },
      server: { workers: 3, listen },
    });
    const clients: RawClient[] = [];
    try {
      const [tcp, unix] = server.addresses as [string, string];
      const options = new Map<string, Set<string>>();
      for (let index = 0; index < 40; index++) {
        for (const [address, name] of [
          [tcp, "first"],
          [unix, "second"],
        ] as const) {
          const { client, options: got } = await negotiated(address);
          clients.push(client);
          expect(await answer(client)).toBe(name);
          options.set(name, (options.get(name) ?? new Set()).add(got));
        }
      }
      expect([...options.values()].map((set) => set.size)).toEqual([1, 1]);
      const { workers } = await statusOf(server);
      // Connections are spread, so some were passed on to their worker.
      for (const { connections } of workers) expect(connections).toBeGreaterThan(10);
    } finally {
      for (const client of clients) client[Symbol.dispose]();
    }
  });

  test("where no filter is of the socket, the negotiation is that of a server without filters", async () => {
    const negotiate = async (config: string) => {
      await using server = await startPmilter({
        config,
        files: { "first.ts": named("first") },
        server: { workers: 1, listen: ["inet:127.0.0.1:0", "unix:second.sock"] },
      });
      const replies: string[] = [];
      for (const address of server.addresses) {
        const { client, options } = await negotiated(address);
        replies.push(options);
        client[Symbol.dispose]();
      }
      return replies;
    };
    const [without] = await negotiate("");
    const [first, second] = await negotiate(
      '[[filter]]\npath = "first.ts"\n[filter.when]\nlisteners = ["inet:127.0.0.1:0"]\n',
    );
    expect(second).toBe(without!);
    expect(first).not.toBe(without!);
  });
});

test("the fallback of a filter that a session was negotiated without does not count for it when its worker is lost", async () => {
  await using server = await startPmilter({
    config:
      '[[filter]]\npath = "first.ts"\non_error = "reject"\n[filter.when]\nlisteners = "unix:second.sock"\n[[filter]]\npath = "fatal.ts"\non_error = "continue"\n',
    files: { "first.ts": named("first"), "fatal.ts": FATAL },
    server: { workers: 1, listen: ["inet:127.0.0.1:0", "unix:second.sock"] },
  });
  for (const [address, code] of [
    [server.addresses[0]!, "c"],
    [server.addresses[1]!, "r"],
  ] as const) {
    const { client } = await negotiated(address);
    await client.send(EXIT);
    expect((await client.reply()).code).toBe(code);
    client[Symbol.dispose]();
  }
});

describe("share", () => {
  const CONFIG =
    '[[filter]]\npath = "half.ts"\nname = "half"\n[filter.when]\nshare = "50%"\n[[filter]]\npath = "fatal.ts"\n';
  const FILES = { "half.ts": named("half"), "fatal.ts": FATAL };
  const COUNT = 30;

  async function sessions(server: Pmilter): Promise<{ clients: RawClient[]; drawn: string[] }> {
    const clients: RawClient[] = [];
    const drawn: string[] = [];
    for (let index = 0; index < COUNT; index++) {
      const { client } = await negotiated(server.addresses[0]!);
      clients.push(client);
      drawn.push(await answer(client));
    }
    // Thirty tosses of a coin: one in 500 million runs has all on one side.
    expect(new Set(drawn).size).toBe(2);
    return { clients, drawn };
  }

  async function answers(clients: readonly RawClient[]): Promise<string[]> {
    const found: string[] = [];
    for (const client of clients) found.push(await answer(client));
    return found;
  }

  test("a session keeps its draw through a lost worker", async () => {
    await using server = await startPmilter({ config: CONFIG, files: FILES, server: { workers: 1 } });
    const { clients, drawn } = await sessions(server);
    const { client } = await negotiated(server.addresses[0]!);
    await client.send(EXIT);
    expect((await client.reply()).code).toBe("t");
    expect(await answers(clients)).toEqual(drawn);
    expect((await statusOf(server)).counters).toMatchObject({
      workersDied: 1,
      sessionsLost: 0,
      sessionsMoved: COUNT + 1,
    });
    for (const each of [...clients, client]) each[Symbol.dispose]();
  });

  test("and through a move to new code, for which it needs no more than it was negotiated with", async () => {
    await using server = await startPmilter({
      config: CONFIG,
      files: FILES,
      server: { workers: 1, drain_timeout: 0, watch: false },
    });
    const { clients, drawn } = await sessions(server);
    await Bun.write(server.configFile.replace(/[^/]*$/, "half.ts"), named("new half"));
    server.process.kill("SIGHUP");
    await server.log.next(/generation 2 serves/);
    await waitFor(async () => (await statusOf(server)).counters.sessionsMoved === COUNT, {
      what: "all sessions to move",
    });
    expect(await answers(clients)).toEqual(drawn.map((name) => (name === "" ? "" : "new half")));
    for (const each of clients) {
      expect(await each.ask(MAIL)).toBe("c");
      await each.send(QUIT);
      each[Symbol.dispose]();
    }
  });
});
