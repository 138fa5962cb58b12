/**
 * Many large bodies at once: connections that each send one, all collected by a filter, while the memory of the server is
 * watched. It prints the figures, and ends with 1 if one is not as promised.
 *
 *     bun run soak/bodies.ts --connections 200 --megabytes 50
 */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { startPmilter } from "../test/support/pmilter.ts";
import {
  CONNECT,
  DATA,
  EOH,
  EOM,
  HEADER,
  HELO,
  MAIL,
  OPTNEG_DEFER,
  packet,
  QUIT,
  RawClient,
  RCPT,
} from "../test/server/wire.ts";
import { statusOf } from "../test/recovery/support.ts";

export interface BodiesOptions {
  readonly connections: number;
  readonly megabytes: number;
  readonly workers: number;
  /** `server.spool`; undefined for the default. */
  readonly spool?: string | undefined;
}

export interface BodiesResult {
  readonly seconds: number;
  /** The most that was seen, of the server's process. */
  readonly anonymousBytes: number;
  /** Before the bodies. */
  readonly idleBytes: number;
  readonly openFiles: number;
  /** Codes of the messages' final replies, with their number. */
  readonly replies: Readonly<Record<string, number>>;
  /** Bytes that the filter read, of all messages together. */
  readonly bodyBytes: number;
  readonly fallbacks: number;
  readonly workersLost: number;
  /** Lines of the log from `warn` up, as far as they are about a body or a worker. */
  readonly complaints: readonly string[];
}

/** It reads each page of the body, as a filter that judges would, and says what it saw. */
const FILTER = `import { defineFilter } from "pmilter";
export default defineFilter({
  collectBody: { max: "1GB" },
  eom({ message }) {
    const body = message.body();
    let sum = 0;
    for (let at = 0; at < body.length; at += 4096) sum += body[at];
    message.addHeader("X-Seen", body.length + " " + sum);
  },
});
`;

/** The largest payload that both mail servers send. */
const CHUNK = packet("B", Buffer.alloc(65_535, "x"));
const CHUNK_BYTES = 65_535;
const PAGE = 4096;
const LETTER = "x".charCodeAt(0);
const SAMPLE_MS = 50;

/** Bytes of a process that no file stands behind. */
function anonymousBytes(pid: number): number {
  const line = /^Anonymous:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"));
  return Number(line?.[1] ?? 0) * 1024;
}

export async function sendBodies({ connections, megabytes, workers, spool }: BodiesOptions): Promise<BodiesResult> {
  await using server = await startPmilter({
    server: { workers, block_timeout: 2, log_level: "info", ...(spool === undefined ? {} : { spool }) },
    config: `[limits]\nbody = "1GB"\n[[filter]]\npath = "reads.ts"\n`,
    files: { "reads.ts": FILTER },
  });
  const { pid } = server.process;
  const idle = anonymousBytes(pid);
  let peak = 0;
  let openFiles = 0;
  const sampler = setInterval(() => {
    peak = Math.max(peak, anonymousBytes(pid));
    openFiles = Math.max(
      openFiles,
      [...new Bun.Glob("*").scanSync({ cwd: `/proc/${pid}/fd`, onlyFiles: false })].length,
    );
  }, SAMPLE_MS);
  const began = performance.now();
  const replies: Record<string, number> = {};
  const chunks = Math.ceil((megabytes * 1024 * 1024) / CHUNK_BYTES);
  const pages = Math.ceil((chunks * CHUNK_BYTES) / PAGE);
  const expected = `${chunks * CHUNK_BYTES} ${pages * LETTER}`;
  let bodyBytes = 0;
  const one = async (client: RawClient): Promise<void> => {
    for (let chunk = 0; chunk < chunks; chunk++) await client.send(CHUNK);
    await client.send(EOM);
    for (;;) {
      const { code, payload } = await client.reply(600_000);
      if (code === "h" && payload.toString("latin1").includes(expected)) bodyBytes += chunks * CHUNK_BYTES;
      // Progress, and the header.
      if (code === "p" || code === "h") continue;
      replies[code] = (replies[code] ?? 0) + 1;
      break;
    }
    await client.send(QUIT);
  };
  const clients: RawClient[] = [];
  try {
    // One after the other: more at once than may wait to be accepted would be refused.
    for (let index = 0; index < connections; index++) {
      const client = await RawClient.connect(server.addresses[0]!);
      clients.push(client);
      await client.ask(OPTNEG_DEFER);
      await client.ask(CONNECT);
      await client.ask(HELO, MAIL, RCPT, DATA, HEADER, EOH);
    }
    await Promise.all(clients.map(one));
  } finally {
    clearInterval(sampler);
    for (const client of clients) client[Symbol.dispose]();
  }
  const seconds = (performance.now() - began) / 1000;
  const { counters } = await statusOf(server);
  return {
    seconds,
    anonymousBytes: peak,
    idleBytes: idle,
    openFiles,
    replies,
    bodyBytes,
    fallbacks: counters.fallbacks,
    workersLost: counters.blocked + counters.workersDied + counters.workersRecycled,
    complaints: server.log.all.filter(
      (line) => /\[(?:warn|error|crit|emerg)\]/.test(line) && !line.includes("as root"),
    ),
  };
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      connections: { type: "string", default: "200" },
      megabytes: { type: "string", default: "50" },
      workers: { type: "string", default: "2" },
      spool: { type: "string" },
    },
  });
  const [connections, megabytes, workers] = [values.connections, values.megabytes, values.workers].map(Number) as [
    number,
    number,
    number,
  ];
  const result = await sendBodies({ connections, megabytes, workers, spool: values.spool });
  console.log(
    JSON.stringify(
      {
        ...result,
        anonymousMiB: Math.round(result.anonymousBytes / 2 ** 20),
        complaints: result.complaints.slice(0, 10),
      },
      null,
      2,
    ),
  );
  const isRight =
    result.anonymousBytes < 500 * 1024 * 1024 &&
    result.fallbacks === 0 &&
    result.workersLost === 0 &&
    result.replies["c"] === connections;
  process.exit(isRight ? 0 : 1);
}
