/**
 * A server process with handlers of all kinds: hostile connections beside one that must be served right at every
 * iteration; in the end its descriptors are what they were, its memory has not grown, and it can be asked.
 */
import { readdirSync, readFileSync } from "node:fs";
import { askServer } from "../../../src/server/control/control.ts";
import type { Status } from "../../../src/server/control/status.ts";
import { type Pmilter, startPmilter } from "../../support/pmilter.ts";
import type { Random } from "../../protocol/random.ts";
import { anyStream } from "../../protocol/streams.ts";
import { RawClient } from "../../server/wire.ts";
import { BODY, DATA, EOH, EOM, HEADER, HELO, CONNECT, MAIL, OPTNEG, QUIT, RCPT } from "../../server/wire.ts";
import { must, type Target } from "../target.ts";

const FILTER = `import { defineFilter, discard, reject, tempfail } from "pmilter";
const some = (text) => text.includes("bad") ? reject("550 5.7.1 no") : text.includes("x@") ? tempfail() : undefined;
export default defineFilter({
  collectBody: true,
  connect() {}, helo: (_, name) => some(name),
  envfrom: async (_, sender) => some(sender),
  envrcpt: (_, recipient) => some(recipient),
  data() {},
  header(_, name, value) { if (name === "Bad") throw new Error(value); return value === "x" ? discard() : undefined; },
  body(_, chunk) { return chunk[0] === 0 ? reject() : undefined; },
  eom({ message }) { message.addHeader("X-Fuzz", String(message.body().length)); message.deleteHeader("X-A"); },
  unknown: async (_, line) => { if (line.length > 5) throw line; },
  abort() {}, close() {},
});
`;

/** Hostile connections of one iteration. */
const MOST = 4;
/** Beyond this the memory of the server has grown, and not only warmed up. */
const GROWTH_BYTES = 150 * 2 ** 20;

export function serverTarget(): Target {
  let starting: Promise<Pmilter> | null = null;
  let before: { descriptors: number; resident: number } | null = null;
  const served = async (server: Pmilter): Promise<void> => {
    using client = await RawClient.connect(server.addresses[0]!);
    let codes = "";
    for (const command of [OPTNEG, CONNECT, HELO, MAIL, RCPT, DATA, HEADER, EOH, BODY])
      codes += await client.ask(command);
    must(codes === "Occcccccc", () => `the well-behaved session got ${codes}`);
    await client.send(EOM);
    const [added, final] = [await client.reply(), await client.reply()];
    const text = `${added.code}${added.payload.toString("latin1")}`;
    must(
      text === "hX-Fuzz\0 7\0" && final.code === "c",
      () => `the well-behaved session's end got ${JSON.stringify(text)} ${final.code}`,
    );
    await client.send(QUIT);
    await client.ended();
  };
  const held = (server: Pmilter) => ({
    descriptors: readdirSync(`/proc/${server.process.pid}/fd`).length,
    resident: Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${server.process.pid}/status`, "utf8"))![1]) * 1024,
  });
  const start = async (): Promise<Pmilter> => {
    const server = await startPmilter({
      server: { workers: 2, handler_timeout: 1, control: "pmilter.ctl" },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": FILTER },
    });
    await served(server);
    return server;
  };
  return {
    name: "server",
    unit: "packet",
    shrinkMs: 20_000,
    generate: anyStream,
    async check(input, random) {
      starting ??= start();
      const server = await starting;
      const streams = [input, ...Array.from({ length: random.below(MOST) }, () => anyStream(random))];
      const clients = await Promise.all(streams.map(() => RawClient.connect(server.addresses[0]!)));
      const sending = clients.map((client, index) => sendPieces(client, streams[index]!, random));
      await served(server);
      await Promise.all(sending);
      for (const client of clients) {
        if (random.chance(0.5)) client.end();
        client[Symbol.dispose]();
      }
      must(server.process.exitCode === null && server.process.signalCode === null, "the server has ended");
      must(
        server.log.all.every((line) => !/\]\[(crit|alert|emerg)\]/.test(line)),
        () => server.log.text,
      );
      before ??= held(server);
    },
    async finish() {
      if (starting === null) return [];
      const server = await starting;
      const deadline = performance.now() + 10_000;
      const status = async () => (await askServer(`${server.dir}/pmilter.ctl`, { command: "status" })) as Status;
      while ((await status()).connections > 0 && performance.now() < deadline) await Bun.sleep(50);
      const { connections, counters, problems } = await status();
      must(connections === 0, `${connections} connections are left`);
      // The filter throws for some of the mail that is made, and the server says so when that is much of it.
      const others = problems.filter((each) => !each.startsWith("messages of the last minute that got a fallback:"));
      must(others.length === 0, () => `the server says: ${others.join("; ")}`);
      must(counters.internalErrors === 0, `${counters.internalErrors} internal errors`);
      const after = held(server);
      // The server keeps some back once it has started.
      must(
        after.descriptors <= before!.descriptors + 40,
        `${after.descriptors} descriptors, ${before!.descriptors} before`,
      );
      const grown = Math.round((after.resident - before!.resident) / 2 ** 20);
      must(after.resident - before!.resident < GROWTH_BYTES, `the server has grown by ${grown} MiB`);
      const { protocolErrors, messages } = counters;
      return [
        `server: ${counters.connections} connections, ${messages} messages, ${protocolErrors} protocol errors; ${after.descriptors} descriptors, memory ${Math.round(before!.resident / 2 ** 20)} to ${Math.round(after.resident / 2 ** 20)} MiB`,
      ];
    },
    async [Symbol.asyncDispose]() {
      if (starting === null) return;
      await (await starting)[Symbol.asyncDispose]();
    },
  };
}

async function sendPieces(client: RawClient, stream: Uint8Array, random: Random): Promise<void> {
  const pieces = random.cut(stream);
  for (const piece of pieces.length > 20 ? [stream] : pieces) {
    await client.send(piece);
    if (random.chance(0.2)) await Bun.sleep(0);
  }
}
