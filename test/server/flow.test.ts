/** Much at once, and peers that are slow: nothing is lost, nothing grows without bound, nobody idle stays for ever. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { startPmilter } from "../support/pmilter.ts";
import {
  ABORT,
  BODY,
  CONNECT,
  EOH,
  EOM,
  HELO,
  MAIL,
  OPTNEG,
  OPTNEG_DEFER,
  packet,
  QUIT,
  RawClient,
  RCPT,
  type Reply,
  residentBytes,
  UNKNOWN,
} from "./wire.ts";
import { waitFor } from "../support/temp.ts";

setDefaultTimeout(120_000);

const QUICK = { workers: 1, stop_timeout: 0.1 };
const config = '[[filter]]\npath = "filter.ts"\n';
const LISTENS = ["unix:pmilter.sock", "inet:127.0.0.1:0"];

function filter(body: string): { "filter.ts": string } {
  return {
    "filter.ts": `import { defineFilter, reject } from "pmilter";\nexport default defineFilter({ ${body} });\n`,
  };
}

describe.each(LISTENS)("pipelining, %s", (listen) => {
  test.each(["envrcpt() {}", "async envrcpt() {}", "async envrcpt() { await 0; }"])(
    "pipelines: 10,000 packets in one write get 10,000 replies (%s)",
    async (handler) => {
      await using server = await startPmilter({
        listen,
        server: QUICK,
        config,
        files: filter(`${handler}, envfrom() {}`),
      });
      using client = await RawClient.connect(server.addresses[0]!);
      const count = 10_000;
      await client.send(
        Buffer.concat([OPTNEG, CONNECT, HELO, MAIL, ...Array.from({ length: count - 1 }, () => RCPT), UNKNOWN]),
      );
      expect(await client.codes(count + 4)).toBe(`O${"c".repeat(count + 3)}`);
    },
  );

  test("a connection with much to do lets others have their turn, and its worker is not taken for stuck", async () => {
    await using server = await startPmilter({
      listen,
      server: { ...QUICK, block_timeout: 0.5 },
      config,
      files: filter(
        `connect() {}, unknown(session, line) { const since = performance.now(); while (line === "LONG" && performance.now() - since < 25); }`,
      ),
    });
    using busy = await RawClient.connect(server.addresses[0]!);
    using other = await RawClient.connect(server.addresses[0]!);
    expect(await busy.ask(OPTNEG, CONNECT)).toBe("Oc");
    expect(await other.ask(OPTNEG, CONNECT)).toBe("Oc");
    const count = 80;
    const order: string[] = [];
    await busy.send(Buffer.concat(Array.from({ length: count }, () => packet("U", "LONG\0"))));
    await busy.reply();
    const all = busy.codes(count - 1).then((codes) => (order.push("busy"), codes));
    expect(await other.ask(UNKNOWN)).toBe("c");
    order.push("other");
    // While it waits for its turn more may come, and it may go away.
    await busy.send(packet("U", "SHORT\0"));
    expect(await all).toBe("c".repeat(count - 1));
    expect(await busy.codes(1)).toBe("c");
    expect(order).toEqual(["other", "busy"]);
    await busy.send(Buffer.concat(Array.from({ length: count }, () => packet("U", "LONG\0"))));
    await busy.reply();
    busy.end();
    expect(await other.ask(UNKNOWN)).toBe("c");
    expect(server.log.text).not.toMatch(/\[(error|crit)\]/);
  });

  test("replies keep the order of their packets", async () => {
    await using server = await startPmilter({
      listen,
      server: QUICK,
      config,
      files: filter(
        `envfrom() {}, async envrcpt(session, to) { const n = Number(to.slice(1, 4)); await Bun.sleep(n % 3); return reject("550 5.1.1 " + n); }`,
      ),
    });
    using client = await RawClient.connect(server.addresses[0]!);
    const numbers = Array.from({ length: 60 }, (_, index) => 100 + index);
    await client.send(OPTNEG, MAIL, ...numbers.map((n) => packet("R", `<${n}@example.com>\0`)));
    expect(await client.codes(2)).toBe("Oc");
    for (const n of numbers) expect((await client.reply()).payload.toString()).toBe(`550 5.1.1 ${n}\0`);
  });
});

describe.each(LISTENS)("a slow reader, %s", (listen) => {
  test("a replaced body of 20 MB arrives whole, and others are served meanwhile", async () => {
    const size = 20_000_000;
    await using server = await startPmilter({
      listen,
      server: QUICK,
      config,
      files: filter(`unknown() {}, eom(session) {
  const body = Buffer.alloc(${size}, Uint8Array.from({ length: 241 }, (_, at) => at + 14));
  session.message.addHeader("X-Before", "1");
  session.message.replaceBody(body);
}`),
    });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT, MAIL, RCPT);
    client.pause();
    await client.send(EOM, UNKNOWN);
    using other = await RawClient.connect(server.addresses[0]!);
    expect(await other.ask(OPTNEG, UNKNOWN, UNKNOWN)).toBe("Occ");
    // Reads a little, rests, and reads on, while the server has most of it still to send.
    for (let step = 0; step < 10; step++) {
      client.resume();
      await client.event();
      client.pause();
      await other.ask(UNKNOWN);
    }
    expect(client.received).toBeLessThan(size / 2);
    client.resume();
    const replies: Reply[] = [];
    while (replies.filter(({ code }) => code === "c").length < 2) replies.push(await client.reply());
    expect(replies[0]!.code).toBe("h");
    const pieces = replies.slice(1, -2);
    expect(new Set(pieces.map(({ code }) => code))).toEqual(new Set(["b"]));
    expect(Math.max(...pieces.map(({ payload }) => payload.length))).toBeLessThanOrEqual(65_535);
    const whole = Buffer.concat(pieces.map(({ payload }) => payload));
    expect(whole.length).toBe(size);
    // No line ends among them: those would be completed.
    const period = Uint8Array.from({ length: 241 }, (_, at) => at + 14);
    expect(whole.equals(Buffer.alloc(size, period))).toBe(true);
    expect(replies.slice(-2).map(({ code }) => code)).toEqual(["c", "c"]);
  });

  test.skipIf(!IS_LINUX)(
    "never-reads: one that never reads: the server stops reading, and its memory stays",
    async () => {
      await using server = await startPmilter({
        listen,
        server: QUICK,
        config,
        files: filter("envfrom() {}, envrcpt() {}, unknown() {}"),
      });
      using other = await RawClient.connect(server.addresses[0]!);
      await other.ask(OPTNEG, UNKNOWN);
      using client = await RawClient.connect(server.addresses[0]!);
      await client.ask(OPTNEG, CONNECT, MAIL);
      client.pause();
      const before = residentBytes(server);
      // What gets into the sockets' buffers, and no more.
      const packets = Buffer.concat(Array.from({ length: 10_000 }, () => RCPT));
      let sent = 0;
      for (let idle = 0; idle < 50 && sent < 256 * 1024 * 1024;) {
        const taken = client.write(packets.subarray(sent % RCPT.length));
        sent += taken;
        idle = taken === 0 ? idle + 1 : 0;
        if (taken === 0) await Bun.sleep(2);
      }
      expect(sent).toBeLessThan(64 * 1024 * 1024);
      expect(residentBytes(server) - before).toBeLessThan(64 * 1024 * 1024);
      expect(await other.ask(UNKNOWN, UNKNOWN)).toBe("cc");
      // It reads again, and everything whole that it sent is answered.
      client.resume();
      const whole = Math.floor(sent / RCPT.length);
      expect(await client.codes(whole)).toBe("c".repeat(whole));
    },
  );

  test("a peer that sends much while a handler is awaited is stopped, and read on afterwards", async () => {
    await using server = await startPmilter({
      listen,
      server: QUICK,
      config,
      files: filter(`async envfrom() { console.log("waiting"); await Bun.sleep(150); }, envrcpt() {}, unknown() {}`),
    });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG);
    await client.send(MAIL);
    await server.prints.next(/waiting/);
    const count = 200_000;
    await client.send(Buffer.concat(Array.from({ length: count }, () => UNKNOWN)));
    expect(await client.codes(count + 1)).toBe("c".repeat(count + 1));
  });

  test("vanishes: a peer that goes while a handler is awaited, with more unread, is let go", async () => {
    await using server = await startPmilter({
      listen,
      server: { ...QUICK, stop_timeout: 2 },
      config,
      files: filter(
        `async envfrom() { console.log("waiting"); await Bun.sleep(100); }, envrcpt() {}, close() { console.log("closed"); }`,
      ),
    });
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT);
    await client.send(MAIL);
    await server.prints.next(/waiting/);
    // More than the server takes unread, so it has paused the socket and sees no end.
    client.write(Buffer.concat(Array.from({ length: 10_000 }, () => RCPT)));
    client[Symbol.dispose]();
    await server.prints.next(/closed/);
    expect(await server.stop()).toBe(0);
    expect(server.log.text).not.toContain("are cut");
  });
});

/** Waits at the first chunk until it is told to go on, and a moment at each other; says how many came in order. */
const SLOW = `import { defineFilter } from "pmilter";
const go = Promise.withResolvers();
export default defineFilter({
  async body({ state }, chunk) {
    const look = () => chunk.length + " " + new DataView(chunk.buffer, chunk.byteOffset).getUint32(0) + " " + chunk.at(-1);
    const { count = 0 } = state;
    const before = look();
    if (count === 0) { console.log("waiting"); await go.promise; } else await Bun.sleep(1);
    // It is the next one, and nobody has written to it meanwhile.
    if (before !== look() || before !== "65535 " + count + " " + (count % 251)) throw new Error(before + ", then " + look());
    state.count = count + 1;
  },
  eom({ message, state }) { message.addHeader("X-Count", String(state.count)); },
  unknown(_, command) { if (command === "GO") go.resolve(); },
});
`;

describe.each(LISTENS)("a body without replies, %s", (listen) => {
  test.skipIf(!IS_LINUX)(
    "100 MB for a filter that is slow: no more is read than a little beyond where it is, and all comes in order",
    async () => {
      const files = { "filter.ts": SLOW };
      await using server = await startPmilter({ listen, server: { ...QUICK, handler_timeout: 60 }, config, files });
      using other = await RawClient.connect(server.addresses[0]!);
      await other.ask(OPTNEG);
      using client = await RawClient.connect(server.addresses[0]!);
      await client.ask(OPTNEG_DEFER, CONNECT, MAIL, RCPT);
      const chunks = 1600;
      let sent = 0;
      let most = 0;
      const send = async () => {
        for (; sent < chunks; sent++) {
          const chunk = Buffer.alloc(65_535, sent % 251);
          chunk.writeUInt32BE(sent);
          await client.send(packet("B", chunk));
          if (sent % 16 === 0) most = Math.max(most, residentBytes(server));
        }
        await client.send(EOM);
      };
      const before = residentBytes(server);
      const sending = send();
      await server.prints.next(/waiting/);
      // Whenever another session is answered its worker has looked for more to read, too.
      for (let last = -1, turns = 0; turns < 50; turns = last === sent ? turns + 1 : 0) {
        last = sent;
        await other.ask(UNKNOWN);
      }
      expect(sent * 65_536).toBeLessThan(8 * 2 ** 20);
      expect(residentBytes(server) - before).toBeLessThan(8 * 2 ** 20);

      await other.ask(packet("U", "GO\0"));
      await sending;
      expect((await client.reply()).payload.toString()).toBe(`X-Count\0 ${chunks}\0`);
      expect(await client.codes(1)).toBe("c");
      // What the garbage collector lets lie of chunks that are over; it is the same for 400 MB.
      expect(most - before).toBeLessThan(80 * 2 ** 20);
    },
  );
});

describe("server.timeout", () => {
  test("silent: an idle connection is cut, and an active one is not", async () => {
    await using server = await startPmilter({
      server: { ...QUICK, timeout: 2 },
      config,
      files: filter("envfrom() {}, unknown() {}"),
    });
    using silent = await RawClient.connect(server.addresses[0]!);
    using idle = await RawClient.connect(server.addresses[0]!);
    await idle.ask(OPTNEG, CONNECT, MAIL);
    using active = await RawClient.connect(server.addresses[0]!);
    await active.ask(OPTNEG);
    const asking = setInterval(() => void active.send(UNKNOWN), 100);
    const started = performance.now();
    await Promise.all([silent.ended(), idle.ended()]);
    expect(performance.now() - started).toBeGreaterThan(1500);
    // It was asked for longer than the timeout altogether.
    await active.reply();
    clearInterval(asking);
    expect(active.isEnded).toBe(false);
    const lines = () => server.log.all.filter((line) => line.includes("server.timeout"));
    // The log comes on another way than the end of the connection.
    await waitFor(() => lines().length >= 2, { what: "a line for each" });
    expect(lines()).toHaveLength(2);
    expect(lines()[0]).toMatch(/\[notice\]: unix:\S+: nothing came for 2 s \(server\.timeout\), connection closed$/);
  });

  test("a connection whose handler works is not idle", async () => {
    await using server = await startPmilter({
      server: { ...QUICK, timeout: 1.5 },
      config,
      files: filter("async envfrom() { await Bun.sleep(4000); return reject('550 5.7.1 after all'); }"),
    });
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, MAIL)).toBe("Ocy");
  });
});

test("several messages on one connection, aborted ones between them", async () => {
  await using server = await startPmilter({
    server: QUICK,
    config,
    files: filter(
      `envfrom(session) { console.log("mail", Object.keys(session.state).length, session.message.recipients.length); session.state.seen = true; }, envrcpt() {}, eom() {}, abort() { console.log("abort"); }, close() { console.log("close"); }`,
    ),
  });
  using client = await RawClient.connect(server.addresses[0]!);
  expect(await client.ask(OPTNEG, CONNECT, HELO, MAIL, RCPT, EOH, BODY, EOM)).toBe("Occccccc");
  await client.ask(MAIL, RCPT);
  await client.send(ABORT);
  expect(await client.ask(MAIL, RCPT, EOM)).toBe("ccc");
  await client.send(QUIT);
  await client.ended();
  await server.stop();
  expect(server.prints.all).toEqual(["mail 0 0", "mail 1 0", "abort", "mail 1 0", "close"]);
});
