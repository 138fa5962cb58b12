/** The original pmilter's own configuration and Ruby handlers, as its users have them: they run and give its answers. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MilterClient, type Outcome } from "../../src/testing/index.ts";
import { ORIGINAL } from "../config/original.ts";
import { Lines, MAIN, runPmilter } from "../support/pmilter.ts";
import { ORIGINAL_ARGUMENTS, originalLines } from "../support/original-run.ts";
import { tempDir } from "../support/temp.ts";
import { CHANGES, HANDLERS } from "./original.ts";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");
const HELLO = join(ROOT, "test", "fixtures", "hello.eml");

interface Running extends AsyncDisposable {
  readonly configFile: string;
  readonly socket: string;
  readonly log: Lines;
  readonly prints: Lines;
  stop(): Promise<number>;
}

/** Starts the server with a configuration as it stands, but for the place of its socket. */
async function start(folder: string, name: string, config: string): Promise<Running> {
  const socket = join(folder, "pmilter.sock");
  const moved = config.replace(/^( *)listen = .*$/m, `$1listen = "${socket}"`);
  expect(moved).not.toBe(config);
  const configFile = join(folder, name);
  await writeFile(configFile, moved);
  const child = Bun.spawn([process.execPath, MAIN, "-c", configFile], { stdio: ["ignore", "pipe", "pipe"] });
  const [log, prints] = [new Lines(), new Lines()];
  const reading = Promise.all([log.read(child.stderr), prints.read(child.stdout)]);
  const stop = async () => {
    child.kill("SIGTERM");
    const code = await child.exited;
    await reading;
    return code;
  };
  try {
    await log.next(/ready: listening on /);
  } catch (error) {
    child.kill("SIGKILL");
    throw error;
  }
  return { configFile, socket, log, prints, stop, [Symbol.asyncDispose]: async () => void (await stop()) };
}

async function writeHandlers(folder: string, more: Readonly<Record<string, string>> = {}): Promise<void> {
  await mkdir(join(folder, "handler"));
  for (const [name, text] of Object.entries({ ...HANDLERS, ...more })) await writeFile(join(folder, name), text);
}

test("the README's configuration and handlers print the README's run, line by line", async () => {
  await using dir = await tempDir("readme");
  await writeHandlers(dir.path);
  const server = await start(dir.path, "pmilter.conf", ORIGINAL);
  const sent = await runPmilter(["send", "-c", server.configFile, HELLO, ...ORIGINAL_ARGUMENTS]);
  expect(await server.stop()).toBe(0);
  expect({ exitCode: sent.exitCode, stderr: sent.stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(sent.stdout).toMatch(/^ {2}addHeader X-Pmilter: Enable$/m);
  expect(sent.stdout).toMatch(/^verdict: accept$/m);
  expect(server.log.text).not.toMatch(/\[(?:error|crit|alert|emerg)\]/);
  expect(server.log.text).toContain("[notice]: server.min_worker is ignored");

  const lines = server.prints.all.map((line) => line.replace(/\r$/, ""));
  const expected = ["run at postconfig phase", ...originalLines({ phaseName: "mruby_connect_handler" })];
  expected.push("master exit at exit phase");
  expect(lines).toHaveLength(expected.length);
  expected.forEach((line, index) => {
    if (typeof line === "string") expect(lines[index]).toBe(line);
    else expect(lines[index]).toMatch(line);
  });
});

test("pmilter check tells what would run", async () => {
  await using dir = await tempDir("readme-check");
  await writeHandlers(dir.path);
  await writeFile(join(dir.path, "pmilter.conf"), ORIGINAL);
  const { exitCode, stdout, stderr } = await runPmilter(["check", "-c", join(dir.path, "pmilter.conf")]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout).toContain("  handler: connect helo envfrom envrcpt header body eom\n");
});

describe("Ruby and TypeScript handlers", () => {
  let stack: AsyncDisposableStack;
  let ruby: Running;
  let typescript: Running;

  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    const [one, other] = [stack.use(await tempDir("ruby")), stack.use(await tempDir("typescript"))];
    await writeHandlers(one.path, { "handler/eom.rb": HANDLERS["handler/eom.rb"] + CHANGES });
    ruby = stack.use(await start(one.path, "pmilter.conf", ORIGINAL));
    await cp(join(ROOT, "handlers"), join(other.path, "handlers"), { recursive: true });
    typescript = stack.use(await start(other.path, "pmilter.toml", await Bun.file(join(ROOT, "pmilter.toml")).text()));
  });
  afterAll(async () => await stack?.disposeAsync());

  const EML = "From: <from@example.com>\r\nTo: <to@example.com>\r\nSubject: Hello\r\n\r\nHello world!!\r\n";

  async function send({ socket }: Running, mail: { from: string; to: string[]; eml?: string }): Promise<Outcome> {
    await using client = await MilterClient.connect(`unix:${socket}`, { as: "postfix" });
    return await client.send({ eml: EML, ...mail, macros: { "{daemon_name}": "mta", i: "4ZB1" } });
  }
  const withoutTimes = ({ phases, ...rest }: Outcome) => ({
    ...rest,
    phases: phases.map(({ phase, verdict, reply }) => ({ phase, verdict, reply })),
  });

  test("mail passes with X-Pmilter: Enable", async () => {
    const outcome = await send(ruby, { from: "from@example.com", to: ["to@example.com"] });
    expect(outcome.verdict).toBe("accept");
    expect(outcome.message).toBe(EML.replace("\r\n\r\n", "\r\nX-Pmilter: Enable\r\n\r\n"));
  });

  test("spam-from@example.com is rejected", async () => {
    const outcome = await send(ruby, { from: "spam-from@example.com", to: ["to@example.com"] });
    expect(outcome).toMatchObject({ verdict: "reject", modifications: [] });
    await ruby.log.next(/\[notice\]: reject: .* phase=envfrom at=handler\/mail_from\.rb:8$/);
  });

  test("the sender is changed and a recipient added", async () => {
    const outcome = await send(ruby, { from: "change-from@example.com", to: ["add-to@example.com"] });
    expect(outcome.verdict).toBe("accept");
    expect(outcome.modifications).toEqual([
      { kind: "changeFrom", address: "<new-from@example.com>", params: [] },
      { kind: "addRecipient", address: "<new-to@example.com>", params: [] },
      { kind: "addHeader", name: "X-Pmilter", value: "Enable" },
    ]);
  });

  const long = `${EML}${"line of text\r\n".repeat(20_000)}`;
  test.each([
    ["one recipient", { from: "from@example.com", to: ["to@example.com"] }],
    ["the null sender, two recipients", { from: "", to: ["a@example.com", "b@example.com"] }],
    ["a sender that is refused", { from: "spam-from@example.com", to: ["to@example.com"] }],
    ["a changed envelope", { from: "change-from@example.com", to: ["add-to@example.com"] }],
    [
      "a changed envelope of two recipients",
      { from: "change-from@example.com", to: ["to@example.com", "add-to@example.com"] },
    ],
    ["a body of many chunks", { from: "from@example.com", to: ["add-to@example.com"], eml: long }],
    [
      "text that is not ASCII",
      { from: "from@example.com", to: ["to@example.com"], eml: "Subject: =?utf-8?q?=C3=BC?= \u00fc\r\n\r\n" },
    ],
  ])("give equal answers to the same mail: %s", async (_, mail) => {
    const [one, other] = await Promise.all([send(ruby, mail), send(typescript, mail)]);
    expect(withoutTimes(one)).toEqual(withoutTimes(other));
  });
});
