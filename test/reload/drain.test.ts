/**
 * Sessions of an old generation: they stay until `drain_timeout`, and then move between two messages to the new one if
 * what was negotiated suffices. What the mail server sees of it is nothing.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import {
  ABORT,
  BODY,
  DATA,
  EOH,
  EOM,
  HEADER,
  HELO,
  MAIL,
  OPTNEG,
  packet,
  QUIT,
  RawClient,
  RCPT,
} from "../server/wire.ts";
import type { Pmilter } from "../support/pmilter.ts";
import { waitFor } from "../support/temp.ts";
import {
  askReload,
  askStatus,
  logged,
  newVersion,
  save,
  startVersioned,
  untilMoved,
  versioned,
  versionOf,
} from "./support.ts";

setDefaultTimeout(120_000);

const connectFrom = (address: string) => packet("C", Buffer.from(`mx.example.net\x004\x9c\x40${address}\0`, "latin1"));
const CONNECT = connectFrom("192.0.2.7");

const QUICK_DRAIN = { drain_timeout: 0.3, watch: false, log_level: "info" };

/** Saves, and has it loaded. */
async function load(server: Pmilter, text: string): Promise<void> {
  await save(server, "filter.ts", text);
  expect(await askReload(server)).toMatchObject({ ok: true });
}

/** A session as MilterClient's servers have it, but with every event answered. */
async function begun(server: Pmilter): Promise<RawClient> {
  const client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
  return client;
}

/** The version that a message is stamped with, from RCPT to its end. */
async function endMessage(client: RawClient): Promise<string> {
  expect(await client.ask(RCPT, DATA, HEADER, EOH, BODY)).toBe("ccccc");
  await client.send(EOM);
  const stamp = await client.reply();
  expect(stamp.code).toBe("h");
  expect(await client.codes(1)).toBe("c");
  await client.send(ABORT);
  return stamp.payload.toString().slice("X-Version\0 ".length, -1);
}

describe("drain: a session that outlives drain_timeout", () => {
  test("between messages it moves; before it stays", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN });
    using client = await begun(server);
    await load(server, versioned("v2"));
    expect(await versionOf(client)).toBe("v1");
    expect((await askStatus(server)).ending).toMatchObject([{ number: 1, workers: [1] }]);
    await logged(server, /generation 1 has ended/);
    expect(await versionOf(client)).toBe("v2");
    expect(await client.ask(MAIL)).toBe("c");
    expect(await endMessage(client)).toBe("v2");
    await client.send(QUIT);
    await client.ended();
    expect(client.isReset).toBe(false);
  });

  test("drain_timeout = 0: at once", async () => {
    await using server = await startVersioned({ server: { ...QUICK_DRAIN, drain_timeout: 0 } });
    using client = await begun(server);
    for (let version = 2; version < 12; version++) {
      await load(server, versioned(`v${version}`));
      await untilMoved(client, `v${version}`);
    }
    expect(client.isEnded).toBe(false);
  });

  test("in a message it moves only after it, and the message is of one version", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN });
    using idle = await begun(server);
    using busy = await begun(server);
    expect(await busy.ask(MAIL)).toBe("c");
    await load(server, versioned("v2"));
    await untilMoved(idle, "v2");
    // The time is over, and this one is still where it was.
    expect(await versionOf(busy)).toBe("v1");
    expect((await askStatus(server)).ending).toMatchObject([{ number: 1, workers: [1] }]);
    expect(await endMessage(busy)).toBe("v1");
    await logged(server, /generation 1 has ended/);
    expect(await busy.ask(MAIL)).toBe("c");
    expect(await endMessage(busy)).toBe("v2");
  });

  test("an awaited handler is waited for", async () => {
    const gated = `import { existsSync } from "node:fs";
import { join } from "node:path";
import { reject } from "pmilter";
export default {
  async unknown() {
    console.log("waiting");
    while (!existsSync(join(import.meta.dir, "go"))) await Bun.sleep(5);
    return reject("550 5.7.1 v1");
  },
  eom() {},
};
`;
    await using server = await startVersioned({
      server: { ...QUICK_DRAIN, drain_timeout: 0 },
      files: { "filter.ts": gated },
    });
    using waiting = await begun(server);
    const answer = versionOf(waiting);
    await server.prints.next(/waiting/);
    using idle = await begun(server);
    await load(server, versioned("v2"));
    await waitFor(async () => (await askStatus(server)).ending[0]?.workers[0] === 1, { what: "the other's move" });
    await save(server, "go", "");
    expect(await answer).toBe("v1");
    expect(idle.isEnded).toBe(false);
    await untilMoved(waiting, "v2");
  });

  test("packets that arrive while it moves are answered, each once", async () => {
    await using server = await startVersioned({ server: { ...QUICK_DRAIN, drain_timeout: 0 } });
    const clients = await Promise.all(Array.from({ length: 20 }, () => begun(server)));
    const loading = { isOver: false };
    const counts = clients.map(async (client) => {
      let asked = 3;
      while (!loading.isOver) {
        await versionOf(client);
        asked += 1;
      }
      return asked;
    });
    for (let version = 2; version <= 15; version++) await load(server, versioned(`v${version}`));
    loading.isOver = true;
    const asked = await Promise.all(counts);
    await Promise.all(clients.map((client) => untilMoved(client, "v15")));
    for (const [index, client] of clients.entries()) {
      expect(client.isEnded).toBe(false);
      // The handshake and each question were answered once; untilMoved has asked at least once more.
      expect(client.replies.length).toBeGreaterThan(asked[index]!);
      expect(client.replies.slice(3).every(({ code }) => code === "y")).toBe(true);
      client[Symbol.dispose]();
    }
  });

  test("one that has only negotiated, and one whose connection was refused, stay", async () => {
    const refusing = versioned("v1").replace(
      "unknown:",
      'connect: (session) => session.client.address === "192.0.2.7" ? reject("554 5.7.1 no") : undefined, unknown:',
    );
    await using server = await startVersioned({
      server: { ...QUICK_DRAIN, drain_timeout: 0 },
      files: { "filter.ts": refusing },
    });
    using fresh = await RawClient.connect(server.addresses[0]!);
    expect(await fresh.ask(OPTNEG)).toBe("O");
    using refused = await RawClient.connect(server.addresses[0]!);
    expect(await refused.ask(OPTNEG, CONNECT)).toBe("Oy");
    using idle = await RawClient.connect(server.addresses[0]!);
    expect(await idle.ask(OPTNEG, connectFrom("192.0.2.8"), HELO)).toBe("Occ");
    await load(server, versioned("v2"));
    await untilMoved(idle, "v2");
    expect(await refused.ask(MAIL)).toBe("y");
    expect(await fresh.ask(CONNECT)).toBe("y");
    expect([fresh.isEnded, refused.isEnded]).toEqual([false, false]);
  });
});

/** Says what its connect and helo handlers saw, and counts in its state. */
function telling(version: string): string {
  return `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  connect({ client, macros, myHostname, state }) {
    console.log("${version} connect", client.hostname, client.address, client.port, myHostname, macros.get("{daemon_name}"), JSON.stringify(state));
    state.count = 100;
  },
  helo({ tls, state }, name) { console.log("${version} helo", name, tls.version, JSON.stringify(state)); },
  unknown({ state, helo, client }) {
    state.count = Number(state.count) + 1;
    return reject("550 5.7.1 ${version} " + [state.count, helo, client.address].join(" "));
  },
  close({ client }) { console.log("${version} close", client.address); },
});
`;
}

const MACROS = packet("D", "Cj\0mx.example.com\0{daemon_name}\0smtpd\0");
const HELO_MACROS = packet("D", "H{tls_version}\0TLSv1.3\0");

describe("what a moved session finds", () => {
  test("connect and helo handlers run again with the same values, state is empty, no reply comes twice", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN, files: { "filter.ts": telling("v1") } });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(OPTNEG, MACROS, CONNECT, HELO_MACROS, HELO);
    expect(await client.codes(3)).toBe("Occ");
    expect(await versionOf(client)).toBe("v1 101 mx.example.net 192.0.2.7");
    expect(await versionOf(client)).toBe("v1 102 mx.example.net 192.0.2.7");
    await load(server, telling("v2"));
    await logged(server, /generation 1 has ended/);
    expect(await versionOf(client)).toBe("v2 101 mx.example.net 192.0.2.7");
    expect(client.replies.map(({ code }) => code).join("")).toBe("Occyyy");
    // Moved once more: what began the session is still known.
    await load(server, telling("v3"));
    await logged(server, /generation 2 has ended/);
    expect(await versionOf(client)).toBe("v3 101 mx.example.net 192.0.2.7");
    await client.send(QUIT);
    await client.ended();
    const seen = (version: string) => [
      `${version} connect mx.example.net 192.0.2.7 40000 mx.example.com smtpd {}`,
      `${version} helo mx.example.net TLSv1.3 {"count":100}`,
    ];
    await server.prints.next(/close/);
    expect(server.prints.all).toEqual([...seen("v1"), ...seen("v2"), ...seen("v3"), "v3 close 192.0.2.7"]);
  });

  test("async connect and helo handlers are through before its next command", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN });
    using client = await begun(server);
    const slow = versioned("v2").replace(
      "unknown:",
      'async connect({ state }) { await Bun.sleep(50); state.seen = "connect"; }, async helo({ state }) { await Bun.sleep(50); state.seen += " helo"; }, envfrom({ state }) { console.log(state.seen); }, unknown:',
    );
    await load(server, slow);
    await logged(server, /generation 1 has ended/);
    expect(await client.ask(MAIL)).toBe("c");
    expect(await server.prints.next(/connect/)).toBe("connect helo");
    expect(client.replies).toHaveLength(4);
  });

  test("a new connect handler that refuses the client: its next command is told", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN });
    using client = await begun(server);
    await load(
      server,
      versioned("v2").replace("unknown:", 'connect: () => reject("554 5.7.1 not any more"), unknown:'),
    );
    await logged(server, /generation 1 has ended/);
    await client.send(MAIL);
    const { code, payload } = await client.reply();
    expect([code, payload.toString()]).toEqual(["y", "554 5.7.1 not any more\0"]);
    expect(client.replies).toHaveLength(4);
  });

  test("a new connect handler that fails: the fallback, at its next command", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN });
    using client = await begun(server);
    await load(server, versioned("v2").replace("unknown:", 'connect() { throw new Error("oops"); }, unknown:'));
    await logged(server, /generation 1 has ended/);
    expect(await client.ask(MAIL)).toBe("t");
    expect(client.replies).toHaveLength(4);
  });
});

const MAIL_TO_SEND = { from: "a@example.com", to: ["b@example.com"], eml: "Subject: x\r\n\r\nHello\r\n" };

function stampOf({ modifications }: Outcome): string {
  return modifications.flatMap((change) => (change.kind === "addHeader" ? change.value : [])).join(" ");
}

/** Stamps messages; with \`body\`, also with the bytes that it saw of the body. */
function stamping(version: string, body: boolean): string {
  return `import { defineFilter } from "pmilter";
export default defineFilter({
  ${body ? "body(session, chunk) { session.state.bytes = (session.state.bytes ?? 0) + chunk.length; }," : ""}
  eom(session) { session.message.addHeader("X-Version", "${version}"${body ? ' + " " + session.state.bytes' : ""}); },
});
`;
}

async function postfix(server: Pmilter): Promise<MilterClient> {
  return MilterClient.connect(server.addresses[0]!, { as: "postfix" });
}

describe("what was negotiated", () => {
  test("does not suffice: the session stays with the old code, and ends there", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN, files: { "filter.ts": stamping("v1", false) } });
    await using stays = await postfix(server);
    expect(stampOf(await stays.send(MAIL_TO_SEND))).toBe("v1");
    // This one was offered nothing to switch off, so it can go anywhere.
    using moves = await begun(server);
    await load(server, stamping("v2", true));
    await waitFor(async () => (await askStatus(server)).ending[0]?.workers[0] === 1, { what: "the other's move" });
    expect(moves.isEnded).toBe(false);
    expect(stampOf(await stays.send(MAIL_TO_SEND))).toBe("v1");
    expect((await askStatus(server)).ending).toMatchObject([{ number: 1, workers: [1] }]);
    await using fresh = await postfix(server);
    expect(stampOf(await fresh.send(MAIL_TO_SEND))).toBe("v2 7");
    await stays.quit();
    await logged(server, /generation 1 has ended/);
  });

  test("suffices for less: it moves", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN, files: { "filter.ts": stamping("v1", true) } });
    await using client = await postfix(server);
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v1 7");
    await load(server, stamping("v2", false));
    await logged(server, /generation 1 has ended/);
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v2");
    // And from there back to a code that wants the body, which this session still sends.
    await load(server, stamping("v3", true));
    await logged(server, /generation 2 has ended/);
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v3 7");
  });

  test("did not suffice for one generation, but does for a later one: it moves then", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN, files: { "filter.ts": stamping("v1", false) } });
    await using client = await postfix(server);
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v1");
    using other = await begun(server);
    await load(server, stamping("v2", true));
    await waitFor(async () => (await askStatus(server)).ending[0]?.workers[0] === 1, { what: "the other's move" });
    await load(server, stamping("v3", false));
    await logged(server, /generation 1 has ended/);
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v3");
    expect(other.isEnded).toBe(false);
  });

  test("sufficed for the generation at drain_timeout, but not for the one at the end of the message: it stays", async () => {
    await using server = await startVersioned({ server: QUICK_DRAIN, files: { "filter.ts": stamping("v1", false) } });
    await using client = await postfix(server);
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v1");
    await client.envfrom("<a@example.com>");
    using other = await begun(server);
    await load(server, stamping("v2", false));
    await waitFor(async () => (await askStatus(server)).ending[0]?.workers[0] === 1, { what: "the other's move" });
    await load(server, stamping("v3", true));
    await client.envrcpt("<b@example.com>");
    await client.eom();
    // v3 wants the body, which this session's mail server was told not to send: there it would see none.
    expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v1");
    expect(other.isEnded).toBe(false);
  });
});

test("a move that begins for one generation, and ends when there is a newer one: not where it does not suffice", async () => {
  const blocking = `import { existsSync } from "node:fs";
import { join } from "node:path";
import { defineFilter } from "pmilter";
export default defineFilter({
  unknown() {
    console.log("blocking");
    while (!existsSync(join(import.meta.dir, "go"))) Bun.sleepSync(5);
  },
  eom(session) { session.message.addHeader("X-Version", "v1"); },
});
`;
  await using server = await startVersioned({
    server: { ...QUICK_DRAIN, drain_timeout: 0, block_timeout: 30 },
    files: { "filter.ts": blocking },
  });
  await using client = await postfix(server);
  expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v1");
  using other = await begun(server);
  await other.send(packet("U", "WAIT\0"));
  await server.prints.next(/blocking/);
  // Their worker hears of both only now.
  await load(server, stamping("v2", false));
  await load(server, stamping("v3", true));
  await save(server, "go", "");
  expect(await other.codes(1)).toBe("c");
  await waitFor(async () => (await askStatus(server)).ending.length < 2, { what: "the end of the second generation" });
  expect(stampOf(await client.send(MAIL_TO_SEND))).toBe("v1");
});

describe("many generations", () => {
  test("of more than four old ones the oldest do not wait for drain_timeout", async () => {
    await using server = await startVersioned({ server: { ...QUICK_DRAIN, drain_timeout: 300 } });
    const clients: RawClient[] = [];
    for (let version = 1; version <= 6; version++) {
      clients.push(await begun(server));
      if (version < 6) await load(server, versioned(`v${version + 1}`));
    }
    await untilMoved(clients[0]!, "v6");
    expect(await Promise.all(clients.slice(1).map(versionOf))).toEqual(["v2", "v3", "v4", "v5", "v6"]);
    await waitFor(async () => (await askStatus(server)).ending.length === 4, { what: "the end of the first" });
    const status = await askStatus(server);
    expect(status.generation).toMatchObject({ number: 6, workers: [2] });
    expect(status.ending).toMatchObject([2, 3, 4, 5].map((number) => ({ number, workers: [1] })));
    for (const client of clients) client[Symbol.dispose]();
  });

  test("if all old ones are in messages, a reload is refused in the end; sessions and new ones go on", async () => {
    await using server = await startVersioned({ server: { ...QUICK_DRAIN, drain_timeout: 0 } });
    const clients: RawClient[] = [];
    let refused = 0;
    for (let version = 1; version <= 40 && refused === 0; version++) {
      const client = await begun(server);
      expect(await client.ask(MAIL)).toBe("c");
      clients.push(client);
      await save(server, "filter.ts", versioned(`v${version + 1}`));
      const answer = await askReload(server);
      if (answer.ok) continue;
      refused = version;
      expect(answer.message).toMatch(/31 older generations still have sessions/);
    }
    expect(refused).toBe(32);
    expect(await newVersion(server)).toBe("v32");
    expect(await Promise.all(clients.map(versionOf))).toEqual(clients.map((_, index) => `v${index + 1}`));
    // One message ends, and with it its generation.
    expect(await endMessage(clients[0]!)).toBe("v1");
    await logged(server, /generation 1 has ended/);
    expect(await askReload(server)).toMatchObject({ ok: true });
    expect(await newVersion(server)).toBe("v33");
    for (const [index, client] of clients.slice(1).entries()) expect(await endMessage(client)).toBe(`v${index + 2}`);
    await Promise.all(clients.map((client) => untilMoved(client, "v33")));
    await waitFor(async () => (await askStatus(server)).ending.length === 0, { what: "the end of all old ones" });
    for (const client of clients) client[Symbol.dispose]();
  });

  test("the server stops with sessions in several generations", async () => {
    await using server = await startVersioned({ server: { ...QUICK_DRAIN, drain_timeout: 300, stop_timeout: 5 } });
    using first = await begun(server);
    await load(server, versioned("v2"));
    using second = await begun(server);
    expect(await first.ask(MAIL)).toBe("c");
    server.process.kill("SIGTERM");
    await logged(server, /stopping, 2 connections/);
    expect(await endMessage(first)).toBe("v1");
    await first.send(QUIT);
    await second.send(QUIT);
    expect(await server.process.exited).toBe(0);
  });
});
