/** The `ts` blocks of the pages, in a fresh copy of the repository: type-checked together, loaded, and run. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { join } from "node:path";
import { defineFilter, type Filter, type Handler, reject } from "../../src/index.ts";
import { runFilter } from "../../src/testing/index.ts";
import { startPmilter } from "../support/pmilter.ts";
import { type Block, blockOf, blocksOf, placeOf } from "./blocks.ts";
import { freshCopy, type Terminal } from "./terminal.ts";

setDefaultTimeout(120_000);

const BLOCKS = blocksOf("ts");
const FOLDER = "blocks";
const EML = "From: a@example.com\nTo: b@example.com\nSubject: hello\nX-Spam-Flag: YES\n\nHello\n";

/** A name of its own in the folder; a test is named as the page says. */
function nameOf(block: Block): string {
  if (block.text.includes("TestStore")) return "services.test.ts";
  if (block.text.includes("bun:test")) return block.text.includes("./stamp.ts") ? "stamp.test.ts" : "limit.test.ts";
  return `${block.file.replaceAll(/\W/g, "-")}-${block.line}.ts`;
}

let terminal: Terminal;
beforeAll(async () => {
  terminal = await freshCopy({ install: true });
  await terminal.write(`${FOLDER}/tsconfig.json`, JSON.stringify({ extends: "../tsconfig.json", include: ["."] }));
  await terminal.write(`${FOLDER}/stamp.ts`, blockOf("ts", "README.md").text);
  for (const block of BLOCKS) await terminal.write(`${FOLDER}/${nameOf(block)}`, block.text);
});
afterAll(async () => await terminal?.[Symbol.asyncDispose]());

/** What a block exports. */
async function load(block: Block): Promise<Record<string, unknown>> {
  return (await import(join(terminal.dir, FOLDER, nameOf(block)))) as Record<string, unknown>;
}

function find(file: string, pattern: RegExp): Block {
  const block = blocksOf("ts", file).find(({ text }) => pattern.test(text));
  if (block === undefined) throw new Error(`${file} has no ts block with ${pattern}`);
  return block;
}

test("all blocks together have no type error", async () => {
  expect(new Set(BLOCKS.map(nameOf)).size).toBe(BLOCKS.length);
  const { stdout, stderr } = await terminal.run(`bun check --no-script -p ${FOLDER}`);
  const errors = `${stdout}${stderr}`.split("\n").filter((line) => line.includes("error TS"));
  expect(errors.filter((line) => line.includes(FOLDER))).toEqual([]);
  expect(stderr).toMatch(/checked \d+ files|No type errors/);
});

test("a block with a type error would be found: a verdict that the phase lacks", async () => {
  const wrong = find("README.md", /envfrom/)
    .text.replace("return reject(", "return skip(")
    .replace("reject }", "skip }");
  await terminal.write(`${FOLDER}/wrong.ts`, wrong);
  const { exitCode, stdout, stderr } = await terminal.run(`bun check --no-script -p ${FOLDER}`);
  await terminal.run(`rm ${FOLDER}/wrong.ts`);
  expect(exitCode).toBe(1);
  expect(`${stdout}${stderr}`).toMatch(/wrong\.ts\(\d+,\d+\): error TS/);
});

describe("pmilter check loads", () => {
  for (const block of BLOCKS.filter(({ text }) => text.includes("export default"))) {
    test(placeOf(block), async () => {
      const [, phase = ""] = /export default (?:async )?function (\w+)/.exec(block.text) ?? [];
      const name = nameOf(block);
      const isRecipe = block.file.startsWith("docs/cookbook/");
      const config = isRecipe
        ? blockOf("toml", block.file).text.replace(/^path = .*$/m, `path = "${name}"`)
        : phase === ""
          ? `[[filter]]\npath = "${name}"`
          : `[handler.session]\n${phase}_handler = "${name}"`;
      await terminal.write(`${FOLDER}/pmilter.toml`, `${config}\n`);
      const { exitCode, stdout, stderr } = await terminal.run(`bun run pmilter check -c ${FOLDER}/pmilter.toml`);
      expect({ exitCode, stderr: stderr.replace(/^\$ .*\n/, "") }).toEqual({ exitCode: 0, stderr: "" });
      expect(stdout).toContain("Filters, in order:\n  ");
      if (phase !== "") expect(stdout).toContain(`\n  handler: ${phase}\n`);
    });
  }
});

describe("docs/handlers.md", () => {
  test("the phase file refuses its sender", async () => {
    const { default: envfrom } = await load(find("docs/handlers.md", /spam-from/));
    const filter = defineFilter({ envfrom: envfrom as Handler<"envfrom"> });
    const refused = await runFilter(filter, { from: "spam-from@example.com", eml: EML });
    expect(refused).toMatchObject({
      verdict: "reject",
      reply: { code: 550, enhanced: "5.7.1", lines: ["Not welcome here"] },
    });
    expect(await runFilter(filter, { from: "a@example.com", eml: EML })).toMatchObject({ verdict: "accept" });
  });

  test("the filter asks for HELO, except of the networks in its options", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /patience/));
    const run = async (address: string, helo: string) => {
      const options = { networks: ["192.0.2."] };
      return await runFilter(filter as Filter, { client: { address }, helo, from: "a@example.com", eml: EML, options });
    };
    expect(await run("198.51.100.1", "")).toMatchObject({
      verdict: "tempfail",
      reply: { code: 451, enhanced: "4.7.1" },
    });
    expect(await run("198.51.100.1", "mx.example.net")).toMatchObject({ verdict: "accept" });
    expect(await run("192.0.2.7", "")).toMatchObject({ verdict: "accept" });
  });

  test("the changes are what the calls say", async () => {
    const { default: eom } = await load(find("docs/handlers.md", /quarantine/));
    const outcome = await runFilter(defineFilter({ eom: eom as Handler<"eom"> }), {
      from: "a@example.com",
      to: ["b@example.com", "old@example.com"],
      eml: EML,
    });
    expect(outcome.failures).toEqual([]);
    expect(outcome.verdict).toBe("accept");
    expect(outcome.modifications.toSorted((a, b) => a.kind.localeCompare(b.kind))).toEqual([
      { kind: "addHeader", name: "X-Checked", value: "yes" },
      { kind: "addRecipient", address: "<archive@example.com>", params: [] },
      { kind: "changeFrom", address: "<bounces@example.com>", params: [] },
      { kind: "changeHeader", name: "Subject", value: "[list] hello", index: 1 },
      { kind: "deleteHeader", name: "X-Spam-Flag", index: 1 },
      { kind: "deleteRecipient", address: "<old@example.com>" },
      { kind: "insertHeader", index: 0, name: "X-Top", value: "above all others" },
      { kind: "quarantine", reason: "held for inspection" },
      { kind: "replaceBody", body: "A new body\r\n" },
    ]);
    expect(outcome.message).toBe(
      [
        "X-Top: above all others",
        "From: a@example.com",
        "To: b@example.com",
        "Subject: [list] hello",
        "X-Checked: yes",
        "",
        "A new body",
        "",
      ].join("\r\n"),
    );
  });

  test("mail to oneself is refused, however it is spelled", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /no-self/));
    const run = async (...to: string[]) =>
      await runFilter(filter as Filter, { from: '"jane"@Example.ORG', to, eml: EML });
    expect(await run("@relay.test:jane@example.org")).toMatchObject({ verdict: "reject" });
    expect(await run("Jane@example.org")).toMatchObject({ verdict: "accept" });
  });

  test("one address in From, a long header cut, a digest of the block", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /one-from/));
    const run = async (fields: string) => await runFilter(filter as Filter, { eml: `${fields}\n\nHello\n` });
    expect(await run("From: a@b.c, d@e.f")).toMatchObject({ verdict: "reject" });
    const { failures, modifications } = await run(
      `From: a@b.c\nX: 1\nLong: ${"y ".repeat(6000)}\nSubject: =?utf-8?q?=55rgent?=`,
    );
    expect(failures).toEqual([]);
    const digest = new Bun.CryptoHasher("sha256").update(
      `From: a@b.c\r\nX: 1\r\nLong: ${"y ".repeat(250)}\r\nSubject: =?utf-8?q?=55rgent?=\r\nX-Urgent: yes\r\n`,
    );
    expect(modifications).toEqual([
      { kind: "changeHeader", name: "Long", value: "y ".repeat(250), index: 1 },
      { kind: "addHeader", name: "X-Urgent", value: "yes" },
      { kind: "addHeader", name: "X-Header-Digest", value: digest.digest("hex") },
    ]);
  });

  test("a script, a link to a host, and a message with flaws", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /no-scripts/));
    const run = async (lines: readonly string[]) => await runFilter(filter as Filter, { eml: lines.join("\n") });
    const script = await run(['Content-Type: text/plain; name="a.JS"', "Content-Disposition: attachment", "", "x"]);
    expect(script).toMatchObject({ failures: [], verdict: "reject" });
    expect(await run(["Subject: x", "", "see http://phish.example/a"])).toMatchObject({ verdict: "reject" });
    const flawed = await run(["Content-Type: multipart/mixed", "", "x"]);
    expect(flawed).toMatchObject({ failures: [], verdict: "accept" });
  });

  test("what a filter keeps of a message ends with it, and start() has the options", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /few-recipients/));
    const run = async (...to: string[]) => {
      const mail = { from: "a@example.com", to, eml: EML, options: { domains: ["example.com", "example.net"] } };
      const { failures, recipients } = await runFilter(filter as Filter, mail);
      expect(failures).toEqual([]);
      return recipients.map(({ verdict }) => verdict).join(" ");
    };
    const three = ["a@1.test", "a@2.test", "a@3.test"];
    expect(await run(...three, "b@1.test", "a@example.com")).toBe("accept accept accept accept accept");
    expect(await run(...three, "a@4.test")).toBe("accept accept accept tempfail");
  });

  test("a question that nobody answers is given up, and a line says what was odd", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /reputation/));
    const statuses = [403, 500, 200];
    const asked = spyOn(globalThis, "fetch").mockImplementation((async (_url: string, init: RequestInit) => {
      expect(init.signal).toBeInstanceOf(AbortSignal);
      return new Response(null, { status: statuses.shift()! });
    }) as unknown as typeof fetch);
    const said: string[] = [];
    const print = spyOn(console, "error").mockImplementation(() => undefined);
    try {
      for (const verdict of ["reject", "accept", "accept"]) {
        const outcome = await runFilter(filter as Filter, { eml: EML });
        expect([outcome.verdict, outcome.failures]).toEqual([verdict as typeof outcome.verdict, []]);
        said.push(...outcome.notes.map(({ fields, level, text }) => `${level} ${text} ${JSON.stringify(fields)}`));
      }
    } finally {
      print.mockRestore();
      asked.mockRestore();
    }
    expect(said).toEqual(['warn no answer about the client {"status":500}']);
  });

  test("options are checked by their schema, and what it refuses is told as the page says", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /slow-lane/));
    const run = async (options: Record<string, unknown>) =>
      await runFilter(filter as Filter, { client: { address: "192.0.2.7" }, eml: EML, options });
    expect(await run({ networks: ["192.0.2."], action: "tempfail" })).toMatchObject({ verdict: "tempfail" });
    expect(await run({ networks: ["192.0.2."], wait: "1ms" })).toMatchObject({ verdict: "accept", failures: [] });
    await expect(run({ wait: "1 week" })).rejects.toThrow("filter slow-lane: options.wait: expected a duration");

    const config = blocksOf("toml", "docs/handlers.md").find(({ text }) => text.includes("slow-lane"))!.text;
    await terminal.write("handlers/slow-lane.ts", find("docs/handlers.md", /slow-lane/).text);
    await terminal.write("pmilter.toml", config);
    expect((await terminal.run("bun run pmilter check -c pmilter.toml")).exitCode).toBe(0);
    await terminal.write("pmilter.toml", config.replace("wait =", "wiat ="));
    const { exitCode, stderr } = await terminal.run("bun run pmilter check -c pmilter.toml");
    expect(exitCode).toBe(1);
    const told = blocksOf("text", "docs/handlers.md").find(({ text }) => text.includes("wiat"))!.text;
    expect(stderr.replaceAll(`${terminal.dir}/`, "")).toContain(told);
  });

  test("a filter keeps books of refused recipients", async () => {
    const { default: books } = await load(find("docs/handlers.md", /"books"/));
    const refuses = defineFilter({ envrcpt: (_session, to) => (to.includes("no@") ? reject() : undefined) });
    const to = ["no@example.com", "yes@example.com"];
    const outcome = await runFilter([books as Filter, refuses], { eml: EML, to });
    expect(outcome.failures).toEqual([]);
    expect(outcome.notes.map(({ fields, level }) => [level, fields])).toEqual([
      ["debug", { verdict: "accept", refused: 1 }],
    ]);
  });

  test("a filter leaves out what its options and conditions do not need", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /leaveOut/));
    const mail = { eml: EML, client: { address: "192.0.2.1" }, dns: { "1.2.0.192.zen.example A": ["127.0.0.2"] } };
    const verdicts: string[] = [];
    for (const [word, when] of [
      ["", {}],
      ["Hello", { recipients: ["example.com"] }],
      ["other", {}],
    ] as const) {
      const options = { zone: "zen.example", word };
      const { failures, verdict } = await runFilter(filter as Filter, {
        ...mail,
        to: ["b@example.com"],
        options,
        when,
      });
      expect(failures).toEqual([]);
      verdicts.push(verdict);
    }
    expect(verdicts).toEqual(["reject", "reject", "accept"]);
  });

  test("a filter decides by what another has left", async () => {
    const { judge, default: decide } = await load(find("docs/handlers.md", /results\.set/));
    const outcome = await runFilter([judge as Filter, decide as Filter], { eml: EML });
    expect([outcome.verdict, outcome.failures]).toEqual(["accept", []]);
    const strict = defineFilter({ envfrom: ({ message }) => message.results.set("network.score", 6) });
    expect(await runFilter([judge as Filter, strict, decide as Filter], { eml: EML })).toMatchObject({
      verdict: "reject",
    });
  });

  test("the subject is decoded and encoded again, and a misleading From is refused", async () => {
    const { default: filter } = await load(find("docs/handlers.md", /display-name/));
    const run = async (from: string) =>
      await runFilter(filter as Filter, { from: "a@example.com", eml: `From: ${from}\n${MAIL}` });
    const MAIL = "To: b@example.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nHello\n";
    const passed = await run("=?utf-8?q?J=C3=B6rg?= <j@example.org>");
    expect(passed.modifications).toEqual([
      { kind: "changeHeader", name: "Subject", value: "[external] =?UTF-8?Q?Gr=C3=BC=C3=9Fe?=", index: 1 },
    ]);
    expect(passed.verdict).toBe("accept");
    expect(await run('"boss@bank.example" <x@example.org>')).toMatchObject({ verdict: "reject" });
  });
});

describe("docs/testing.md", () => {
  test("its tests pass, beside stamp.ts", async () => {
    const { exitCode, stderr } = await terminal.run(`cd ${FOLDER} && bun test`);
    expect(stderr).toContain("\n 6 pass\n 0 fail\n");
    expect(exitCode).toBe(0);
  });

  test("the members of runFilter's outcome are those of the table", async () => {
    const { default: stamp } = await load(find("README.md", /stamp/));
    const outcome = await runFilter(stamp as Filter, { eml: EML });
    const page = await terminal.read("docs/testing.md");
    const members = [...page.matchAll(/^\| `(\w+)` +\|/gm)].map((match) => match[1]);
    expect(members).toEqual(Object.keys(outcome));
  });

  test("the client greets a running server", async () => {
    const { greet } = await load(find("docs/testing.md", /MilterClient/));
    await using pmilter = await startPmilter({ listen: "inet:127.0.0.1:0" });
    const kind = await (greet as (address: string) => Promise<string>)(pmilter.addresses[0]!);
    expect(["continue", "none"]).toContain(kind);
    expect(await pmilter.stop()).toBe(0);
  });

  test("has no block that is not run here", () => {
    expect(blocksOf("ts", "docs/testing.md")).toHaveLength(4);
    expect(blocksOf("ts", "docs/handlers.md")).toHaveLength(15);
    expect(BLOCKS.filter(({ text }) => !/export default|bun:test|export async function greet/.test(text))).toEqual([]);
  });
});
