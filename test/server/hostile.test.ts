/** Peers that break the protocol: each costs its own connection and one line of the log, and nobody else anything. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { BODY, CONNECT, EOM, HELO, MAIL, OPTNEG, packet, RawClient, RCPT, UNKNOWN, words } from "./wire.ts";

setDefaultTimeout(120_000);

const FILTER = `import { defineFilter } from "pmilter";
export default defineFilter({
  connect() {}, helo() {}, envfrom() {}, envrcpt() {}, header() {}, unknown() {}, eom() {},
  body(session, chunk) { console.log("body", chunk.length); },
  abort(session) { console.log("abort", session.client.hostname); },
  close(session) { console.log("close", session.client.hostname); },
});
`;

const PACKET_LIMIT = 200_000;

interface Fault {
  readonly name: string;
  readonly sent: readonly Uint8Array[];
  /** Replies that come before the connection ends. */
  readonly replies: string;
  readonly reason: RegExp;
}

const length = (value: number, rest = "") => Buffer.concat([words(value), Buffer.from(rest)]);

const FAULTS: readonly Fault[] = [
  { name: "length 0", sent: [OPTNEG, length(0)], replies: "O", reason: /packet of length 0/ },
  { name: "length 0 first of all", sent: [length(0)], replies: "", reason: /packet of length 0/ },
  {
    name: "length 0xFFFFFFFF",
    sent: [length(0xffff_ffff)],
    replies: "",
    reason: /packet of 4294967295 bytes, expected at most 200000/,
  },
  {
    name: "one byte over limits.packet",
    sent: [OPTNEG, length(PACKET_LIMIT + 1, "B")],
    replies: "O",
    reason: /packet of 200001 bytes, expected at most 200000 \(limits\.packet\)/,
  },
  {
    name: "HELO without NUL",
    sent: [OPTNEG, packet("H", "no end\n\x1b[2J")],
    replies: "O",
    reason: /the HELO name does not end with NUL/,
  },
  {
    name: "MAIL without NUL",
    sent: [OPTNEG, packet("M", "<a@b>")],
    replies: "O",
    reason: /MAIL does not end with NUL/,
  },
  {
    name: "an argument of RCPT without NUL",
    sent: [OPTNEG, packet("R", "<a@b>\0NOTIFY")],
    replies: "O",
    reason: /last string of RCPT/,
  },
  {
    name: "HEADER with one string",
    sent: [OPTNEG, packet("L", "Subject\0")],
    replies: "O",
    reason: /string 2 of HEADER/,
  },
  {
    name: "CONNECT without a family",
    sent: [OPTNEG, packet("C", "host\0")],
    replies: "O",
    reason: /before its address family/,
  },
  {
    name: "CONNECT of an unknown family",
    sent: [OPTNEG, packet("C", "host\0!")],
    replies: "O",
    reason: /address family 0x21/,
  },
  {
    name: "CONNECT cut in its port",
    sent: [OPTNEG, packet("C", "host\x004\0")],
    replies: "O",
    reason: /before its port/,
  },
  { name: "an unknown command", sent: [OPTNEG, packet("z")], replies: "O", reason: /unknown command 0x7A/ },
  { name: "an empty command of bytes", sent: [OPTNEG, packet("\0")], replies: "O", reason: /unknown command 0x00/ },
  { name: "a second OPTNEG", sent: [OPTNEG, CONNECT, OPTNEG], replies: "Oc", reason: /second OPTNEG/ },
  { name: "version 1", sent: [packet("O", words(1, 0x1f, 0x3f))], replies: "", reason: /version 1/ },
  { name: "a short OPTNEG", sent: [packet("O", words(6, 0x1f))], replies: "", reason: /OPTNEG/ },
  { name: "MACRO before OPTNEG", sent: [packet("D", "Cj\0mx\0")], replies: "", reason: /MACRO before OPTNEG/ },
  { name: "CONNECT before OPTNEG", sent: [CONNECT], replies: "", reason: /CONNECT before OPTNEG/ },
  {
    name: "a fault in the middle of a message",
    sent: [OPTNEG, CONNECT, HELO, MAIL, RCPT, BODY, packet("z")],
    replies: "Occccc",
    reason: /unknown command 0x7A/,
  },
  {
    name: "HTTP",
    sent: [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
    replies: "",
    reason: /packet of 1195725856 bytes/,
  },
  { name: "SMTP", sent: [Buffer.from("EHLO x\r\n")], replies: "", reason: /packet of 1162366031 bytes/ },
];

describe.each(["unix:pmilter.sock", "inet:127.0.0.1:0"])("garbage: hostile peers, %s", (listen) => {
  let server: Pmilter;
  let bystander: RawClient;

  beforeAll(async () => {
    server = await startPmilter({
      listen,
      // One worker: everything happens beside the bystander.
      server: { workers: 1, stop_timeout: 0.1 },
      config: `[[filter]]\npath = "filter.ts"\n[limits]\npacket = ${PACKET_LIMIT}\n`,
      files: { "filter.ts": FILTER },
    });
    bystander = await RawClient.connect(server.addresses[0]!);
    expect(await bystander.ask(OPTNEG, CONNECT, HELO)).toBe("Occ");
  });

  afterAll(async () => {
    bystander[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  /** Lines that the log has got since, once the server has answered everything so far. */
  async function linesSince(from: number): Promise<string[]> {
    expect(await bystander.ask(MAIL, RCPT, UNKNOWN, EOM)).toBe("cccc");
    return server.log.all.slice(from);
  }

  test.each(FAULTS)("$name", async ({ sent, replies, reason }) => {
    const from = server.log.all.length;
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(...sent);
    await client.ended(2000);
    await server.log.next(/connection closed$/, { from });
    expect(client.replies.map(({ code }) => code).join("")).toBe(replies);
    const lines = await linesSince(from);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(reason);
    expect(lines[0]).toMatch(
      /^\[[^\]]+ GMT\]\[notice\]: (?:unix:\/\S+\/pmilter\.sock|inet:127\.0\.0\.1:\d+): .*\(PMILTER_ERR_\w+\), connection closed$/,
    );
    // oxlint-disable-next-line no-control-regex
    expect(lines[0]).not.toMatch(/[\u0000-\u001f]/);
  });

  test("a packet of exactly limits.packet passes", async () => {
    using client = await RawClient.connect(server.addresses[0]!);
    expect(await client.ask(OPTNEG, CONNECT, MAIL, packet("B", Buffer.alloc(PACKET_LIMIT - 1, "x")), EOM)).toBe(
      "Occcc",
    );
    await server.prints.next(new RegExp(`^body ${PACKET_LIMIT - 1}$`));
  });

  test("a fault is noticed before the rest of the packet has come, and nothing is reserved for it", async () => {
    using client = await RawClient.connect(server.addresses[0]!);
    await client.send(OPTNEG, words(0x7fff_ffff));
    await client.ended(2000);
    expect(client.replies.map(({ code }) => code)).toEqual(["O"]);
    await server.log.next(/packet of 2147483647 bytes/);
  });

  test("vanishes: half a packet and then the end: no line, and close and abort are called", async () => {
    const from = server.log.all.length;
    using client = await RawClient.connect(server.addresses[0]!);
    const named = packet("C", "half.example.net\0U");
    expect(await client.ask(OPTNEG, named, MAIL)).toBe("Occ");
    await client.send(BODY.subarray(0, BODY.length - 1));
    client.end();
    await client.ended();
    await server.prints.next(/^close half\.example\.net$/);
    const printed = server.prints.all.filter((line) => line.endsWith("half.example.net"));
    expect(printed).toEqual(["abort half.example.net", "close half.example.net"]);
    expect(await linesSince(from)).toEqual([]);
  });

  test("garbage of every length up to 64, cut anywhere, ends only its own connection", async () => {
    let seed = 20170725;
    const random = () => (seed = (seed * 1103515245 + 12345) % 2147483648);
    const clients = await Promise.all(
      Array.from({ length: 64 }, async (_, size) => {
        const client = await RawClient.connect(server.addresses[0]!);
        const bytes = Buffer.from(Array.from({ length: size + 1 }, () => random() >> 16));
        const cut = (random() >> 8) % (size + 1);
        await client.send(...(size % 2 === 0 ? [OPTNEG] : []), bytes.subarray(0, cut));
        await client.send(bytes.subarray(cut));
        client.end();
        return client;
      }),
    );
    await Promise.all(clients.map((client) => client.ended()));
    expect(await bystander.ask(UNKNOWN)).toBe("c");
    for (const client of clients) client[Symbol.dispose]();
  });

  test("a packet byte by byte is a packet", async () => {
    using client = await RawClient.connect(server.addresses[0]!);
    for (const byte of Buffer.concat([OPTNEG, CONNECT, UNKNOWN])) {
      await client.send(Uint8Array.of(byte));
      await new Promise(setImmediate);
    }
    expect(await client.codes(3)).toBe("Occ");
  });

  test("the bystander was never disturbed", async () => {
    expect(await bystander.ask(MAIL, RCPT, BODY, EOM)).toBe("cccc");
    expect(bystander.isEnded).toBe(false);
    expect(server.log.text).not.toContain("internal error");
    expect(server.log.text).not.toMatch(/\[(?:error|crit)\]/);
  });
});
