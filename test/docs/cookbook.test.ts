/** The pages of the cookbook: each handler, in its configuration, gets messages, and the results are what the page says. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { TryOutcome } from "../../src/cli/try-report.ts";
import { MilterClient } from "../../src/testing/index.ts";
import { startNameServer } from "../services/dns/server.ts";
import { runPmilter, startPmilter } from "../support/pmilter.ts";
import { tempDir, waitFor } from "../support/temp.ts";
import { blockOf, ROOT } from "./blocks.ts";

setDefaultTimeout(120_000);

/** Lines of a handler's code that a page may have. */
const MAX_LINES = 10;

const pages = readdirSync(join(ROOT, "docs/cookbook")).filter((name) => name !== "README.md");
const tested = new Set<string>();

/** Passes a message through the rule of a page. @param change of the page's configuration */
async function tried(
  page: string,
  {
    args = "",
    change = (text) => text,
    eml = "From: a@example.net\nTo: b@example.com\n\nHello\n",
  }: {
    readonly args?: string;
    readonly change?: (config: string) => string;
    readonly eml?: string;
  },
): Promise<TryOutcome> {
  const [outcome] = await triedAll(page, [eml], { args, change });
  return outcome!;
}

/** Passes messages through it, one after the other. */
async function triedAll(
  page: string,
  emls: readonly string[],
  {
    args = "",
    change = (text) => text,
    files = {},
  }: {
    readonly args?: string;
    readonly change?: (config: string) => string;
    readonly files?: Readonly<Record<string, string>>;
  } = {},
): Promise<TryOutcome[]> {
  tested.add(page);
  const file = `docs/cookbook/${page}`;
  const config = blockOf("toml", file).text;
  const [, path = ""] = /^path = "(.*)"$/m.exec(config) ?? [];
  await using dir = await tempDir("cookbook");
  await Bun.write(join(dir.path, path), blockOf("ts", file).text);
  await Bun.write(join(dir.path, "pmilter.toml"), change(config));
  for (const [name, text] of Object.entries(files)) await Bun.write(join(dir.path, name), text);
  for (const [index, eml] of emls.entries()) await Bun.write(join(dir.path, `mails/${index}.eml`), eml);
  const words = args === "" ? [] : args.split(" ");
  const { exitCode, stderr, stdout } = await runPmilter(["try", "mails", "--json", ...words], { cwd: dir.path });
  expect({ exitCode, stderr }).toMatchObject({
    exitCode: 0,
    stderr: expect.stringMatching(/^\d+ messages?: [^\n]*\n$/),
  });
  const lines = stdout.trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as TryOutcome);
}

const LOGIN = "--macro auth_authen=jane --macro auth_type=plain";

describe("addresses.md", () => {
  const from = (value: string, args = "--from x@example.net") => {
    return tried("addresses.md", { args, eml: `From: ${value}\nTo: b@example.com\n\nHello\n` });
  };

  test.each([
    "boss@example.com",
    "a@example.net, Boss <boss@EXAMPLE.com>",
    '"boss@example.com" <x@example.net>',
    "=?utf-8?q?boss=40example=2Ecom?= <x@example.net>",
  ])("%s is refused", async (value) => {
    expect(await from(value)).toMatchObject({
      verdict: "reject",
      reply: { code: 550, lines: ["Log in to write as example.com"] },
    });
  });

  test("others are not, nor is a user who has logged in", async () => {
    expect(await from("Jane <jane@example.net>")).toMatchObject({ verdict: "accept" });
    expect(await from("boss@example.com", LOGIN)).toMatchObject({ verdict: "accept" });
  });
});

describe("shown-address.md", () => {
  const from = async (value: string) => {
    const eml = `From: ${value}\nTo: b@example.com\n\nHello\n`;
    const { verdicts } = await tried("shown-address.md", { args: "--from x@example.net", eml });
    return verdicts.map(({ observed, verdict }) => (observed ? `observed ${verdict}` : verdict));
  };

  test.each([
    '"boss@example.com" <x@example.net>',
    '"Boss (boss@example.com)" <x@example.net>',
    '"The boss, boss@example.com" <x@example.net>',
    "=?utf-8?q?boss=EF=BC=A0example=2Ecom?= <x@example.net>",
    'A <a@example.net>, "boss@example.com" <x@example.net>',
  ])("%s is found", async (value) => {
    expect(await from(value)).toEqual(["observed reject"]);
  });

  test.each(["x@example.net", "X <x@example.net>", '"X@Example.net" <x@example.net>', '"X @ home" <x@example.net>'])(
    "%s is not",
    async (value) => {
      expect(await from(value)).toEqual([]);
    },
  );
});

test("authenticated.md", async () => {
  const eml = "From: jane@example.com\nX-Sent-By: boss\nTo: b@example.net\n\nHello\n";
  const { message } = await tried("authenticated.md", { eml, args: LOGIN });
  expect(message).toBe("From: jane@example.com\r\nTo: b@example.net\r\nX-Sent-By: jane\r\n\r\nHello\r\n");
  expect((await tried("authenticated.md", { eml })).modifications).toEqual([]);
});

test("recipients.md", async () => {
  const verdicts = async (sender: string) => {
    const args = `--from ${sender} --to staff@example.com --to b@example.com --to x@a.team.example.com`;
    return (await tried("recipients.md", { args })).recipients.map(({ verdict }) => verdict);
  };
  expect(await verdicts("a@example.net")).toEqual(["reject", "accept", "reject"]);
  expect(await verdicts('"a"@EXAMPLE.com')).toEqual(["accept", "accept", "accept"]);
});

test("scanner.md", async () => {
  let seen = "";
  let answer = { text: "", status: 200 };
  await using scanner = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    async fetch(request) {
      seen = await request.text();
      return new Response(answer.text, { status: answer.status });
    },
  });
  const change = (config: string) => config.replace("127.0.0.1:8080", `127.0.0.1:${scanner.port}`);
  const args = "--client 192.0.2.7 --hostname mx.example.net";
  expect(await tried("scanner.md", { change, args })).toMatchObject({ verdict: "accept", failures: [] });
  expect(seen).toMatch(/^Received: from .*\[192\.0\.2\.7\]/);
  expect(seen).toEndWith("\r\nFrom: a@example.net\r\nTo: b@example.com\r\n\r\nHello\r\n");
  answer = { text: "a worm", status: 200 };
  expect(await tried("scanner.md", { change })).toMatchObject({
    verdict: "reject",
    reply: { lines: ["The message has a worm"] },
  });
  answer = { text: "", status: 503 };
  expect(await tried("scanner.md", { change })).toMatchObject({
    verdict: "tempfail",
    failures: [{ message: "handler failed: Error: the scanner says 503", place: "handlers/scanner.ts:10" }],
  });
});

test("message-state.md", async () => {
  const passed = (hops: number) =>
    tried("message-state.md", { eml: `${"Received: x\n".repeat(hops)}From: a@example.net\n\nx\n` });
  expect(await passed(25)).toMatchObject({ verdict: "accept", notes: [] });
  expect(await passed(26)).toMatchObject({
    verdict: "reject",
    reply: { code: 554, enhanced: "5.4.6" },
    notes: [{ level: "warn", text: "a message in a loop", fields: { hops: 26, from: "a@example.net" } }],
  });
});

test("options.md", async () => {
  const eml = (bytes: number) => `From: a@example.net\nX: ${"x".repeat(bytes)}\n\nHello\n`;
  // The From line, and what stands around the text of the other.
  const rest = "From: a@example.net\r\nX: \r\n".length;
  expect(await tried("options.md", { eml: eml(32 * 1024 - rest) })).toMatchObject({ verdict: "accept" });
  expect(await tried("options.md", { eml: eml(32 * 1024 - rest + 1) })).toMatchObject({
    verdict: "reject",
    reply: { code: 552, lines: ["32769 bytes of headers; ask postmaster@example.com"] },
  });
});

test("outcome.md", async () => {
  const eml = (subject: string) => `From: a@example.net\nSubject: ${subject}\n\nHello\n`;
  const judge = `import { defineFilter, reject } from "pmilter";
export default defineFilter({
  eom: ({ message }) => (message.headers.get("Subject") === "bad" ? reject("550 5.7.1 Not welcome") : undefined),
});
`;
  const emls = ["bad", "good", "bad", "bad", "good"].map(eml);
  const change = (config: string) => `${config}[[filter]]\npath = "judge.ts"\n`;
  const outcomes = await triedAll("outcome.md", emls, { change, files: { "judge.ts": judge } });
  expect(outcomes.map(({ verdict }) => verdict)).toEqual(["reject", "accept", "reject", "reject", "tempfail"]);
  expect(outcomes.at(-1)!.reply?.lines).toEqual(["Too many refused messages"]);
});

test("limit.md", async () => {
  const emls = Array.from({ length: 102 }, () => "From: a@example.com\n\nHello\n");
  const outcomes = await triedAll("limit.md", emls, { args: LOGIN });
  const verdicts: string[] = outcomes.map(({ verdict }) => verdict);
  expect(verdicts).toEqual([...Array<string>(100).fill("accept"), "tempfail", "tempfail"]);
  expect(outcomes.at(-1)!.reply?.lines).toEqual(["Too many messages, try again in 60 minutes"]);
  // Others have no limit.
  const free = await triedAll("limit.md", emls);
  expect(free.filter(({ verdict }) => verdict !== "accept")).toEqual([]);
});

test("correspondents.md, in a server: what its store has lasts longer than a session", async () => {
  const page = "correspondents.md";
  tested.add(page);
  const file = `docs/cookbook/${page}`;
  await using server = await startPmilter({
    config: blockOf("toml", file).text,
    files: { "handlers/correspondents.ts": blockOf("ts", file).text },
  });
  const send = async (from: string, to: string, macros = {}) => {
    await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix", macros });
    const { message } = await client.send({ from, to: [to], eml: "X-Known-Sender: yes\n\nHello\n" });
    return message.includes("X-Known-Sender: yes");
  };
  const jane = { auth_authen: "jane", auth_type: "plain" };
  expect(await send("bob@example.net", "jane@example.com")).toBe(false);
  expect(await send("jane@example.com", '"Bob"@EXAMPLE.net', jane)).toBe(false);
  // What it remembers is written beside the next message.
  await waitFor(() => send("BOB@example.net", "jane@example.com"), { what: "the sender to be known" });
  expect(await send("eve@example.net", "jane@example.com")).toBe(false);
});

test("dns-list.md", async () => {
  await using lists = await startNameServer((name, type) => {
    if (name.startsWith("9.")) return { rcode: 2 };
    if (name !== "7.2.0.192.zen.example") return { rcode: 3 };
    return { answers: [{ name, type, ttl: 60, data: type === "TXT" ? ["see\r\nhttp://zen.example/"] : "127.0.0.3" }] };
  });
  const change = (config: string) => `[dns]\nservers = ["${lists.address}:${lists.port}"]\n${config}`;
  const from = (address: string, more = "") => tried("dns-list.md", { change, args: `--client ${address}${more}` });
  expect(await from("192.0.2.7")).toMatchObject({
    verdict: "reject",
    reply: { lines: ["192.0.2.7 is listed: see http://zen.example/"] },
  });
  expect(await from("192.0.2.7", ` ${LOGIN}`)).toMatchObject({ verdict: "accept", failures: [] });
  expect(await from("192.0.2.8")).toMatchObject({ verdict: "accept", notes: [] });
  expect(await from("192.0.2.9")).toMatchObject({
    verdict: "accept",
    notes: [{ level: "warn", text: "the list does not answer" }],
  });
});

test("each page is run here", () => {
  expect(pages.filter((page) => !tested.has(page))).toEqual([]);
});

test.each(pages)("%s has at most ten lines of handler code", (page) => {
  const lines = blockOf("ts", `docs/cookbook/${page}`)
    .text.split("\n")
    .filter((line) => line.startsWith("    "));
  expect(lines.length).toBeGreaterThan(0);
  expect(lines.length).toBeLessThanOrEqual(MAX_LINES);
});
