/** Peers that try to make the server's memory grow: each may hold what the limits say, and no more. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { IS_LINUX } from "../support/available.ts";
import { join } from "node:path";
import { reject } from "../../src/index.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { type AnyFilter, Line } from "../handler/harness.ts";
import { cmd } from "../protocol/wire.ts";
import { CONNECT, EOM, HELO, MAIL, OPTNEG, packet, RawClient, residentBytes, UNKNOWN } from "../server/wire.ts";

setDefaultTimeout(120_000);

const MiB = 2 ** 20;

/** Bytes outside of the heap that are still reachable. */
function externalBytes(): number {
  Bun.gc(true);
  return process.memoryUsage().external;
}

describe("refused recipients", () => {
  const long = cmd.rcpt(`<${"a".repeat(900_000)}>`);

  test("leave nothing behind, however many the message is asked about", () => {
    const line = Line.to([{ envrcpt: (_, to) => (to.length > 100 ? reject() : undefined), eom: () => undefined }]);
    line.send(cmd.mail());
    const before = externalBytes();
    const replies = Array.from({ length: 64 }, () => line.send(long)).flat();
    expect(replies).toEqual(Array.from({ length: 64 }, () => "r"));
    // They name the recipient.
    line.host.reports.length = 0;
    expect(externalBytes() - before).toBeLessThan(16 * MiB);
    expect(line.send(cmd.rcpt(), cmd.eom())).toEqual(["c", "c"]);
  });

  test("a handler may keep one: it stays what it was", () => {
    const kept: { readonly raw: string; readonly params: readonly string[] }[] = [];
    const seen: string[] = [];
    const filter: AnyFilter = {
      envrcpt(session, to) {
        if (to !== "<good@mx.test>") {
          kept.push(session.message.recipients.at(-1)!);
          return reject();
        }
        seen.push(...session.message.recipients.map(({ raw }) => raw));
        return undefined;
      },
      eom: (session) => void seen.push(...session.message.recipients.map(({ raw }) => raw)),
    };
    const line = Line.to([filter]);
    line.send(cmd.mail("<me@c.test>"), cmd.rcpt("<bad1@mx.test>", "NOTIFY=NEVER"), cmd.rcpt("<bad2@mx.test>"));
    line.send(cmd.rcpt("<good@mx.test>", "ORCPT=rfc822;x"), cmd.header("Subject", " later"), cmd.eom());
    expect(kept.map(({ raw, params }) => [raw, ...params].join(" "))).toEqual([
      "<bad1@mx.test> NOTIFY=NEVER",
      "<bad2@mx.test>",
    ]);
    expect(seen).toEqual(["<good@mx.test>", "<good@mx.test>"]);
  });
});

describe.skipIf(!IS_LINUX)("one peer of a server", () => {
  let server: Pmilter;
  let bystander: RawClient;

  beforeAll(async () => {
    server = await startPmilter({
      server: { workers: 1, stop_timeout: 0.1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: {
        "filter.ts": `import { defineFilter } from "pmilter";
const body = new Uint8Array(100_000);
export default defineFilter({
  connect() {}, helo() {}, unknown() {},
  body() {},
  eom(session) { if (session.message.sender.raw === "<grow>") session.message.replaceBody(body); },
});`,
      },
    });
    bystander = await RawClient.connect(server.addresses[0]!);
    expect(await bystander.ask(OPTNEG, CONNECT, HELO, MAIL, EOM)).toBe("Occcc");
  });

  afterAll(async () => {
    bystander[Symbol.dispose]();
    await server[Symbol.asyncDispose]();
  });

  /** How much more memory the server has after `work`, while `work`'s connections are open. */
  async function grown(work: (client: RawClient) => Promise<void>): Promise<number> {
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT);
    const before = residentBytes(server);
    await work(client);
    expect(await bystander.ask(UNKNOWN)).toBe("c");
    return residentBytes(server) - before;
  }

  test("the replies of one read are not all made before the first is read", async () => {
    const count = 2000;
    const bytes = await grown(async (client) => {
      client.pause();
      const one = Buffer.concat([packet("M", "<grow>\0"), EOM]);
      await client.send(Buffer.concat(Array.from({ length: count }, () => one)));
      expect(await bystander.ask(UNKNOWN)).toBe("c");
      expect(client.isEnded).toBe(false);
    });
    // 200 MB are owed.
    expect(bytes).toBeLessThan(64 * MiB);
  });

  test("and all of them come", async () => {
    const count = 300;
    using client = await RawClient.connect(server.addresses[0]!);
    await client.ask(OPTNEG, CONNECT);
    const one = Buffer.concat([packet("M", "<grow>\0"), EOM]);
    await client.send(Buffer.concat(Array.from({ length: count }, () => one)), UNKNOWN);
    // MAIL, two pieces of the body, EOM.
    expect(await client.codes(4 * count + 1)).toBe(`${"cbbc".repeat(count)}c`);
  });

  test("HELO 100,000 times", async () => {
    const bytes = await grown(async (client) => {
      const read = Buffer.concat(Array.from({ length: 10_000 }, (_, at) => packet("H", `host${at}.example.net\0`)));
      for (let round = 0; round < 10; round++) {
        await client.send(read);
        expect(await client.codes(10_000)).toBe("c".repeat(10_000));
      }
    });
    expect(bytes).toBeLessThan(64 * MiB);
  });

  test("macros for every stage, 150 MB of them, without a command", async () => {
    const bytes = await grown(async (client) => {
      const all = [..."CHMRTNEULBXZ"].map((stage) => packet("D", `${stage}n\0${"v".repeat(64_000)}\0`));
      for (let round = 0; round < 200; round++) await client.send(...all);
      expect(await client.ask(UNKNOWN)).toBe("c");
    });
    expect(bytes).toBeLessThan(64 * MiB);
  });

  test("stalls: 100 connections that stop in the middle of a long packet reserve what they have sent", async () => {
    const clients: RawClient[] = [];
    const start = packet("B", Buffer.alloc(1_000_000)).subarray(0, 1000);
    const bytes = await grown(async () => {
      for (let count = 0; count < 100; count++) {
        const client = await RawClient.connect(server.addresses[0]!);
        clients.push(client);
        await client.ask(OPTNEG);
        await client.send(start);
      }
    });
    for (const client of clients) client[Symbol.dispose]();
    expect(bytes).toBeLessThan(32 * MiB);
  });
});

test("what is printed without an end of line does not grow without bound, and costs no more each time", async () => {
  const script = `import { capturePrints } from ${JSON.stringify(join(import.meta.dir, "../../src/worker/print.ts"))};
const report = process.stderr.write.bind(process.stderr);
let printed = "";
const finish = capturePrints((text) => { printed += text; });
const piece = "0123456789".repeat(1000);
for (let count = 0; count < 500; count++) process.stdout.write(piece);
const early = printed.length;
finish();
report(JSON.stringify({ early, whole: printed.replaceAll("\\n", "") === piece.repeat(500) }));`;
  const child = Bun.spawn([process.execPath, "-e", script], { stderr: "pipe", stdout: "ignore" });
  const { early, whole } = JSON.parse(await new Response(child.stderr).text()) as { early: number; whole: boolean };
  expect(whole).toBe(true);
  // 5 MB were printed: most of it has left.
  expect(early).toBeGreaterThan(3_000_000);
});
