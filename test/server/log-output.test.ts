/** What the running server logs: the original's shape, JSON, and the trace of packets. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp, symlink } from "node:fs/promises";
import { join } from "node:path";
import { VERSION } from "../../src/version.ts";
import { ROOT, startPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { CONNECT, EOM, HELO, MAIL, OPTNEG, packet, QUIT, RawClient, RCPT } from "./wire.ts";

setDefaultTimeout(120_000);

const config = '[[filter]]\npath = "filter.ts"\n';
const files = {
  "filter.ts": `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  name: "guard",
  connect() {}, helo() {}, envfrom() {},
  envrcpt(session, to) { if (to.startsWith("<bad")) return reject("550 5.1.1 No\\nsuch user"); },
  eom(session) { if (session.message.sender.address === "thrower@example.com") throw new Error("broken\\nhere"); },
});
`,
};

/** One good message, one refused recipient, one failure; a client name that tries to write a line of its own. */
async function traffic(address: string): Promise<void> {
  using client = await RawClient.connect(address);
  const evil = packet("C", 'evil\n[Tue, 25 Jul 2017 13:02:34 GMT][crit]: "forged\x1b[2J\x004\x9c\x40192.0.2.7\0');
  const replies = await client.ask(
    OPTNEG,
    evil,
    HELO,
    MAIL,
    RCPT,
    packet("R", "<bad@example.com>\0"),
    EOM,
    packet("M", "<thrower@example.com>\0"),
    RCPT,
    EOM,
  );
  expect(replies).toBe("Occccyccct");
  await client.send(QUIT);
  await client.ended();
}

const DATE = String.raw`\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT`;

test("the first line has the shape of the original's", async () => {
  await using server = await startPmilter({ server: { workers: 1 } });
  // [Tue, 25 Jul 2017 13:02:34 GMT][notice]: pmilter/0.0.1 starting (using mruby 1.3.0)
  const [first] = server.log.all;
  expect(first).toMatch(
    new RegExp(`^\\[${DATE}\\]\\[notice\\]: pmilter/${VERSION} starting \\(using Bun ${Bun.version}\\)$`),
  );
  expect(Math.abs(Date.parse(/^\[(.*?)\]/.exec(first!)![1]!) - Date.now())).toBeLessThan(60_000);
});

test("text: each line has that shape, whatever a client sends", async () => {
  await using server = await startPmilter({ server: { workers: 1, log_level: "info" }, config, files });
  await traffic(server.addresses[0]!);
  await server.stop();
  for (const line of server.log.all) {
    expect(line).toMatch(new RegExp(`^\\[${DATE}\\]\\[(?:notice|warn|error|info)\\]: \\S`));
    // oxlint-disable-next-line no-control-regex
    expect(line).not.toMatch(/[\u0000-\u001f\u007f]/);
  }
  const shown = server.log.all.filter((line) => line.includes("evil"));
  expect(shown.map((line) => /\]\[(\w+)\]: ([^:]+):/.exec(line)!.slice(1))).toEqual([
    ["notice", "reject recipient"],
    ["info", "accept"],
    ["error", "handler failed"],
    ["notice", "tempfail"],
  ]);
  expect(shown[0]).toContain("]: reject recipient: recipient=<bad@example.com> ");
  expect(shown[0]).toMatch(
    / from=<from@example\.com> to=<to@example\.com> ms=\d+ version=[0-9a-f]{12} filter=guard phase=envrcpt at=filter\.ts:5 /,
  );
  expect(shown[0]).toContain("550");
  expect(shown[2]).toMatch(/at=filter\.ts:6 error="Error: broken\\nhere" fallback=tempfail$/);
  expect(shown[3]).toContain("fallback=true");
});

test("json: each line is an object with time, level and message, and the same facts as values", async () => {
  await using server = await startPmilter({
    server: { workers: 1, log_level: "info", log_format: "json" },
    config,
    files,
  });
  await traffic(server.addresses[0]!);
  await server.stop();
  const lines = server.log.all.map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const { time, level, message } of lines) {
    expect(new Date(String(time)).toISOString()).toBe(String(time));
    expect(["notice", "warn", "error", "info"]).toContain(String(level));
    expect(message).toBeString();
  }
  expect(lines[0]).toMatchObject({ level: "notice", message: expect.stringMatching(/^pmilter\/\S+ starting/) });
  const refused = lines.find(({ verdict, scope }) => verdict === "reject" && scope === "recipient");
  expect(refused).toMatchObject({
    level: "notice",
    from: "<from@example.com>",
    recipient: "<bad@example.com>",
    to: ["<to@example.com>"],
    filter: "guard",
    phase: "envrcpt",
    at: "filter.ts:5",
  });
  expect(lines.find(({ cause }) => cause === "error")).toMatchObject({
    level: "error",
    error: "Error: broken\nhere",
    fallback: "tempfail",
  });
});

describe("server.log_level", () => {
  test("below it nothing is written", async () => {
    await using server = await startPmilter({ server: { workers: 1 }, config, files });
    await traffic(server.addresses[0]!);
    await server.stop();
    expect(server.log.text).not.toContain("[info]");
    expect(server.log.text).not.toContain("accept:");
    expect(server.log.text).toContain("reject recipient:");
  });
});

describe("server.debug", () => {
  test("from 1 on every packet is traced, both ways, at level debug", async () => {
    await using server = await startPmilter({ server: { workers: 1, debug: 1, log_level: "debug" }, config, files });
    using client = await RawClient.connect(server.addresses[0]!);
    for (const sent of [OPTNEG, CONNECT, packet("H", "a\x01b\0")]) await client.ask(sent);
    await client.send(packet("D", "Mi\x004ZB1\0"), MAIL);
    await client.reply();
    await client.send(QUIT);
    await client.ended();
    await server.stop();
    const trace = server.log.all.filter((line) => line.includes("[debug]"));
    expect(trace.map((line) => / ([<>]) (\w+) (\d+) bytes /.exec(line)!.slice(1).join(" "))).toEqual([
      "> OPTNEG 12",
      expect.stringMatching(/^< OPTNEG \d+$/),
      "> CONNECT 29",
      "< CONTINUE 0",
      "> HELO 4",
      "< CONTINUE 0",
      "> MACRO 8",
      "> MAIL 19",
      "< CONTINUE 0",
      "> QUIT 0",
    ]);
    expect(trace.every((line) => line.includes(`]: unix:${server.dir}/pmilter.sock `))).toBe(true);
    expect(trace[4]).toContain(String.raw`"a\x01b\x00"`);
  });

  test.each([
    { debug: 1, log_level: "info" },
    { debug: 0, log_level: "debug" },
  ])("nothing is traced with %p", async (keys) => {
    await using server = await startPmilter({ server: { workers: 1, ...keys }, config, files });
    await traffic(server.addresses[0]!);
    await server.stop();
    expect(server.log.text).not.toContain(" bytes ");
  });
});

test("the lines of handlers are found, wherever they and pmilter itself lie", async () => {
  await using dir = await tempDir("odd #1 (a) %41 x:7 é");
  const folder = join(dir.path, "pm:3 (b)");
  for (const name of ["src", "package.json", "tsconfig.json", "bunfig.toml"]) {
    await cp(join(ROOT, name), join(folder, name), { recursive: true });
  }
  await symlink(join(ROOT, "node_modules"), join(folder, "node_modules"));
  const odd = "odd:9 (c) %42 #é.ts";
  await using server = await startPmilter({
    server: { workers: 1 },
    config: `[[filter]]\npath = "${odd}"\n`,
    files: { [odd]: files["filter.ts"] },
    main: join(folder, "src", "main.ts"),
  });
  await traffic(server.addresses[0]!);
  expect(await server.log.next(/\]: reject/)).toContain(`at=${JSON.stringify(`${odd}:5`)}`);
  expect(await server.log.next(/\]: handler failed/)).toContain(`at=${JSON.stringify(`${odd}:6`)}`);
});
