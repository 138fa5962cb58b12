/**
 * All transcripts on every transport: in memory, over sockets of the server's process, through the binary, and behind
 * real mail servers. What a transport cannot play is skipped with the reason that the transcript gives.
 */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { parseConfig } from "../../src/config/load.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { connectInMemory, TIMERS } from "../../src/testing/in-memory.ts";
import { loadChain } from "../../src/load/loader.ts";
import manifest from "../../package.json" with { type: "json" };
import { describeWith } from "../support/available.ts";
import { Lines, type PmilterOptions, startPmilter, writeProject } from "../support/pmilter.ts";
import { postfixTool } from "../support/postfix.ts";
import { sendmailTool } from "../support/sendmail.ts";
import { type TempDir, tempDir } from "../support/temp.ts";
import { playTranscript } from "./play.ts";
import { ClientPlayer } from "./play-client.ts";
import { SmtpPlayer } from "./play-smtp.ts";
import { startPostfix, startSendmail, type StartedServer } from "./servers.ts";
import { type HabitName, parseTranscript, type Transcript, type TransportName } from "./transcript.ts";

// A busy machine starts servers slowly.
setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");
const CASES = join(import.meta.dir, "cases");
const FILTERS = join(import.meta.dir, "filters");

const transcripts = readdirSync(CASES)
  .filter((file) => file.endsWith(".txt"))
  .sort()
  .map((file) => parseTranscript(readFileSync(join(CASES, file), "utf8"), file));

const files = Object.fromEntries(
  readdirSync(FILTERS).map((file) => [file, readFileSync(join(FILTERS, file), "utf8")] as const),
);

/** A test for each transcript, by those of the transports that can play it. */
function each<const T extends TransportName>(
  transports: readonly T[],
  play: (transcript: Transcript, transports: readonly T[]) => Promise<void>,
): void {
  for (const transcript of transcripts) {
    const name = `${transcript.file}: ${transcript.title}`;
    const reasons = transports.flatMap((transport) => {
      const reason = transcript.not.get(transport);
      return reason === undefined ? [] : `${transport}: ${reason}`;
    });
    for (const reason of reasons) console.warn(`skipped on ${reason}: ${transcript.file}`);
    const able = transports.filter((transport) => !transcript.not.has(transport));
    if (able.length > 0) test(name, () => play(transcript, able));
    else test.skip(`${name} (${reasons.join("; ")})`, () => {});
  }
}

/** What a server needs for the configuration of a transcript. */
function project({ configuration }: Transcript, listen: PmilterOptions["listen"]): PmilterOptions {
  const { server } = Bun.TOML.parse(configuration) as { readonly server?: Readonly<Record<string, unknown>> };
  return {
    // The server's own keys go with those of the test.
    config: configuration.replace(/^\[server\]\n(?:(?!\[).*\n)*/m, ""),
    server: { workers: 1, ...server },
    ...(listen !== undefined && { listen }),
    files,
  };
}

async function playBySocket(transcript: Transcript, address: string, habit: HabitName): Promise<void> {
  await playTranscript(transcript, new ClientPlayer(habit, () => MilterClient.connect(address, { as: habit })));
}

test("there are transcripts, each with a title of its own", () => {
  expect(transcripts.length).toBeGreaterThan(25);
  expect(new Set(transcripts.map(({ title }) => title)).size).toBe(transcripts.length);
});

describe.each(["postfix", "sendmail"] as const)("in memory, with the habits of %s", (habit) => {
  each(["memory"], async (transcript) => {
    const chain = await loadChain(parseConfig(transcript.configuration, join(FILTERS, "pmilter.toml")));
    const open = () =>
      Promise.resolve(MilterClient.over(connectInMemory({ chain, clock: TIMERS, report() {} }), { as: habit }));
    await playTranscript(transcript, new ClientPlayer(habit, open));
  });
});

describe("over a unix socket, with the habits of postfix, and over TCP, with those of sendmail", () => {
  const HABITS = { unix: "postfix", tcp: "sendmail" } as const;
  each(["unix", "tcp"], async (transcript, transports) => {
    await using server = await startPmilter(project(transcript, ["unix:pmilter.sock", "inet:127.0.0.1:0"]));
    const [unix = "", tcp = ""] = server.addresses;
    for (const transport of transports) {
      await playBySocket(transcript, transport === "tcp" ? tcp : unix, HABITS[transport]);
    }
  });
});

describe("through the binary", () => {
  let dir: TempDir;
  let binary: string;
  beforeAll(async () => {
    dir = await tempDir("binary");
    binary = join(dir.path, "pmilter");
    const [, ...build] = manifest.scripts.build.replace("dist/pmilter", binary).split(" ");
    const child = Bun.spawn([process.execPath, ...build], { cwd: ROOT, stdout: "pipe", stderr: "pipe" });
    const output = await child.stderr.text();
    if ((await child.exited) !== 0) throw new Error(output);
  });
  afterAll(() => dir?.[Symbol.asyncDispose]());

  each(["binary"], async (transcript) => {
    await using home = await tempDir("transcript");
    const configFile = await writeProject(home.path, project(transcript, undefined));
    const child = Bun.spawn([binary, "-c", configFile], {
      cwd: "/",
      env: { ...process.env, XDG_RUNTIME_DIR: "" },
      stdio: ["ignore", "ignore", "pipe"],
    });
    try {
      const log = new Lines();
      void log.read(child.stderr);
      await log.next(/\bready: listening on /);
      await playBySocket(transcript, `unix:${join(home.path, "pmilter.sock")}`, "postfix");
    } finally {
      child.kill("SIGTERM");
      await child.exited;
    }
  });
});

/** A mail server whose filter's socket stays in one place while the server behind it is another for each transcript. */
function behind(transport: "postfix" | "sendmail", start: (address: string) => Promise<StartedServer>): void {
  let dir: TempDir;
  let address: string;
  let server: StartedServer;
  beforeAll(async () => {
    dir = await tempDir("transcripts");
    address = `unix:${join(dir.path, "filter.sock")}`;
    server = await start(address);
  });
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]();
    await dir?.[Symbol.asyncDispose]();
  });

  each([transport], async (transcript) => {
    await using _pmilter = await startPmilter(project(transcript, address));
    await playTranscript(transcript, new SmtpPlayer(server));
  });

  test("what became of nothing was not delivered", () => server.checkUndelivered());
}

describeWith(postfixTool, "behind Postfix", () => behind("postfix", startPostfix));
describeWith(sendmailTool, "behind Sendmail", () => behind("sendmail", startSendmail));
