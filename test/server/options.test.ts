/** Options with a schema, in the server: applied at each load, with the line of the configuration for what is wrong. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFile, writeFile } from "node:fs/promises";
import { MilterClient } from "../../src/testing/index.ts";
import { type Pmilter, runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

/** Adds its options, as its handlers have them, to each message. */
const SHOW = `import { defineFilter } from "pmilter";
import { duration, file, optional, string, table } from "pmilter/options";
export default defineFilter({
  options: table({ tag: string(), wait: optional(duration(), "5s"), list: optional(file()) }),
  start(options) { this.started = options; },
  eom({ message, options }) {
    let frozen = "not frozen";
    try { options.tag = "changed"; } catch { frozen = "frozen"; }
    message.addHeader("X-Options", [options.tag, options.wait, options.list ?? "none", frozen].join(" "));
  },
});
`;

async function shown(server: Pmilter): Promise<string[]> {
  await using client = await MilterClient.connect(server.addresses[0]!, { as: "postfix" });
  const { modifications } = await client.send({
    from: "a@example.com",
    to: ["b@example.com"],
    eml: "Subject: x\n\n.\n",
  });
  return modifications.map((change) => (change.kind === "addHeader" ? change.value : change.kind));
}

const TWICE = `[[filter]]
path = "show.ts"
[filter.options]
tag = "one"

[[filter]]
path = "show.ts"
name = "second"
[filter.options]
tag = "two"
wait = "2m"
list = "list.txt"
`;

test("two filters of one file have their own, which cannot be changed", async () => {
  await using server = await startPmilter({ config: TWICE, files: { "show.ts": SHOW, "list.txt": "x" } });
  expect(await shown(server)).toEqual(["one 5000 none frozen", `two 120000 ${server.dir}/list.txt frozen`]);
});

test("a reload with bad options keeps what serves, and says each line; put right, it serves", async () => {
  await using server = await startPmilter({ config: TWICE, files: { "show.ts": SHOW, "list.txt": "x" } });
  const good = await readFile(server.configFile, "utf8");
  const bad = good.replace('wait = "2m"', 'wiat = "2m"').replace('list = "list.txt"', 'list = "lost.txt"');
  await writeFile(server.configFile, bad);
  const { exitCode, stdout, stderr } = await runPmilter(["reload", "-c", server.configFile]);
  expect(exitCode).toBe(1);
  const line = bad.split("\n").findIndex((text) => text.startsWith("wiat")) + 1;
  const first = `${server.configFile}:${line}:1: filter 2: options.wiat: unknown option; did you mean "wait"?`;
  const second = `${server.configFile}:${line + 1}:1: filter 2: options.list: `;
  expect(stdout + stderr).toContain(first);
  expect(stdout + stderr).toContain(second);
  expect(await server.log.next(/reload: generation 1 keeps serving/)).toContain(first);
  expect(await shown(server)).toEqual(["one 5000 none frozen", `two 120000 ${server.dir}/list.txt frozen`]);
  expect((await runPmilter(["status", "-c", server.configFile])).stdout).toContain(first);

  await writeFile(server.configFile, good.replace('"2m"', '"3m"'));
  expect((await runPmilter(["reload", "-c", server.configFile])).exitCode).toBe(0);
  expect(await shown(server)).toEqual(["one 5000 none frozen", `two 180000 ${server.dir}/list.txt frozen`]);
});

test("what several filters refuse is told together", async () => {
  await using dir = await tempDir("options");
  const config = TWICE.replace('tag = "one"', "tag = 1").replace('tag = "two"', "tag = 2");
  const configFile = await writeProject(dir.path, { config, files: { "show.ts": SHOW, "list.txt": "x" } });
  const { exitCode, stderr } = await runPmilter(["check", "-c", configFile]);
  expect(exitCode).toBe(1);
  const problems = stderr.split("\n").filter((line) => line.startsWith(`pmilter: ${configFile}:`));
  expect(problems).toEqual([
    expect.stringContaining("filter 1: options.tag: expected text, got 1"),
    expect.stringContaining("filter 2: options.tag: expected text, got 2"),
  ]);
});

test("a start and a check with bad options say the same, and a check without start() as well", async () => {
  await using dir = await tempDir("options");
  const config = '[[filter]]\npath = "show.ts"\noptions = { tag = 5, wait = "soon" }\n';
  const configFile = await writeProject(dir.path, { config, files: { "show.ts": SHOW } });
  const line = (await readFile(configFile, "utf8")).split("\n").findIndex((text) => text.startsWith("options")) + 1;
  const expected = [
    `pmilter: ${configFile}:${line}:13: filter 1: options.tag: expected text, got 5`,
    `  ${line} | options = { tag = 5, wait = "soon" }`,
    `  ${" ".repeat(String(line).length)} |             ^`,
    `pmilter: ${configFile}:${line}:22: filter 1: options.wait: expected a duration from "1ms" to "36500d", such as 3, "500ms", "10m", "2h" or "7d", got "soon"`,
    `  ${line} | options = { tag = 5, wait = "soon" }`,
    `  ${" ".repeat(String(line).length)} |                      ^`,
    "",
  ].join("\n");
  for (const args of [["check"], ["check", "--no-start"], ["check", "--no-types"]]) {
    expect(await runPmilter([...args, "-c", configFile])).toEqual({ exitCode: 1, stdout: "", stderr: expected });
  }
  const start = await runPmilter(["-c", configFile], { env: { XDG_RUNTIME_DIR: "", RUNTIME_DIRECTORY: "" } });
  expect(start.exitCode).toBe(1);
  for (const text of expected.split("\n")) expect(start.stderr).toContain(text);
});

test("a schema of one's own may await, and each worker applies it", async () => {
  const own = `import { defineFilter } from "pmilter";
const options = { "~standard": { version: 1, vendor: "own", async validate(value) {
  await Bun.sleep(0);
  return typeof value.tag === "string" ? { value: { tag: value.tag.toUpperCase() } } : { issues: [{ message: "no tag", path: ["tag"] }] };
} } };
export default defineFilter({ options, eom({ message, options }) { message.addHeader("X-Tag", options.tag); } });
`;
  const config = '[[filter]]\npath = "own.ts"\n[filter.options]\ntag = "loud"\n';
  await using server = await startPmilter({ config, server: { workers: 2 }, files: { "own.ts": own } });
  for (let each = 0; each < 4; each++) expect(await shown(server)).toEqual(["LOUD"]);
});

test("options in an included file are refused with its name and line", async () => {
  await using dir = await tempDir("options");
  const configFile = await writeProject(dir.path, {
    files: {
      "show.ts": SHOW,
      "rules/a.toml": '# a comment\n[[filter]]\npath = "show.ts"\noptions = { tga = "x", tag = "y" }\n',
    },
  });
  await writeFile(configFile, `include = "rules/*.toml"\n${await readFile(configFile, "utf8")}`);
  const { exitCode, stderr } = await runPmilter(["check", "-c", configFile]);
  expect(exitCode).toBe(1);
  expect(stderr).toContain(`rules/a.toml:4:13: filter 1: options.tga: unknown option; did you mean "tag"?`);
});

test("a module may require pmilter/options, and a CommonJS one too", async () => {
  const cjs = 'const { string, table } = require("pmilter/options");\nmodule.exports = table({ tag: string() });\n';
  const own = `import { defineFilter } from "pmilter";
import options from "./schema.cjs";
const { optional } = require("pmilter/options");
export default defineFilter({
  options,
  eom({ message, options }) { message.addHeader("X-Tag", [options.tag, typeof optional].join(" ")); },
});
`;
  const config = '[[filter]]\npath = "own.ts"\n[filter.options]\ntag = "x"\n';
  await using server = await startPmilter({ config, files: { "own.ts": own, "schema.cjs": cjs } });
  expect(await shown(server)).toEqual(["x function"]);
});
