/** The `text` blocks of the pages: lines that the real program writes, but for the time. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { MilterClient } from "../../src/testing/index.ts";
import { runPmilter, startPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { type Block, blockOf, blocksOf, placeOf } from "./blocks.ts";

setDefaultTimeout(120_000);

const STAMP = blockOf("ts", "README.md").text;
const PATTERNS = {
  log: /^(?:\[.*\]\[(?:notice|warn|error)\]|\d{4}-\S+ (?:notice|error)): /,
  configuration: /^pmilter\.toml:\d+:\d+: /,
  /** In typescript.test.ts. */
  options: /^pmilter: pmilter\.toml:\d+:\d+: filter \d+: options\./,
  /** In handler-lines.test.ts. */
  handler: /^550 5\.7\.1 Attachment /,
  trial: /^mails\/\S+: /,
};

function kindOf({ text }: Block): keyof typeof PATTERNS | undefined {
  return (Object.keys(PATTERNS) as (keyof typeof PATTERNS)[]).find((kind) => PATTERNS[kind].test(text));
}

/** With words for what differs from run to run, or with the code. */
const withoutTime = (line: string): string =>
  line
    .replace(/^\[\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\]/, "[TIME]")
    .replace(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d(?= )/, "[TIME]")
    .replace(/ ms=\d+ /, " ms=MS ")
    .replace(/ version=[0-9a-f]{12} /, " version=VERSION ");
const field = (line: string, name: string): string =>
  new RegExp(` ${name}=(?:"((?:[^"\\\\]|\\\\.)*)"|(\\S*))`)
    .exec(line)
    ?.slice(1)
    .find((value) => value !== undefined) ?? "";

/** stamp.ts as it is; for a line that a handler writes, or that tells of a failure, with a line in its place that does so. */
function sourceFor(line: string): string {
  const text = field(line, "text");
  if (text !== "") {
    const lines = STAMP.split("\n");
    const [, number] = field(line, "at").split(":");
    lines[Number(number) - 1] = `    session.log.warn(${JSON.stringify(text)}, { status: ${field(line, "status")} });`;
    return lines.join("\n");
  }
  if (field(line, "error") === "") return STAMP;
  const [, number] = field(line, "at").split(":");
  const lines = STAMP.split("\n");
  lines[2] = "const lookup: { result: string } = JSON.parse('{}').none;";
  lines[Number(number) - 1] = '    session.message.addHeader("X-Lookup", lookup.result);';
  return lines.join("\n");
}

describe.each(
  blocksOf("text")
    .filter((block) => kindOf(block) === "log")
    .map((block) => [placeOf(block), block] as const),
)("%s", (_, block) => {
  test("is what the log says", async () => {
    const line = block.text.trimEnd();
    await using pmilter = await startPmilter({
      listen: "inet:127.0.0.1:0",
      server: { log_format: line.startsWith("[") ? "text" : "plain" },
      config: '[[filter]]\npath = "handlers/stamp.ts"\n',
      files: { "handlers/stamp.ts": sourceFor(line) },
    });
    const [, hostname = "", address = ""] = /^(\S+) \[(.*)\]$/.exec(field(line, "client")) ?? [];
    await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix", macros: { i: "4ZB1" } });
    await client.negotiate();
    const to = field(line, "to") === "" ? ["<b@example.com>"] : [field(line, "to")];
    await client.send({
      client: { address, hostname },
      helo: field(line, "helo"),
      from: field(line, "from"),
      to,
      eml: "Subject: a\n\nb\n",
    });
    await client.quit();
    const logged = await pmilter.log.next(new RegExp(`${/[\])e]: ([^:]+):/.exec(line)![1]}: .* phase=`));
    expect(withoutTime(logged)).toBe(withoutTime(line));
    expect(withoutTime(line)).toStartWith("[TIME]");
  });
});

describe.each(
  blocksOf("text")
    .filter((block) => kindOf(block) === "configuration")
    .map((block) => [placeOf(block), block] as const),
)("%s", (_, block) => {
  test("is what check says of such a file", async () => {
    const shown = [...block.text.matchAll(/^ +(\d+) \| (.*)$/gm)].map(
      ([, number, text]) => [Number(number), text!] as const,
    );
    const lines = ["", "[server]"];
    for (const [number, text] of shown) lines[number - 1] = text;
    await using dir = await tempDir("docs");
    await Bun.write(`${dir.path}/pmilter.toml`, `${lines.join("\n")}\n`);
    const { exitCode, stderr } = await runPmilter(["check", "-c", "pmilter.toml"], { cwd: dir.path });
    expect(stderr).toBe(block.text.replace(/^(?=pmilter\.toml:)/gm, "pmilter: "));
    expect(exitCode).toBe(1);
  });
});

describe.each(
  blocksOf("text")
    .filter((block) => kindOf(block) === "trial")
    .map((block) => [placeOf(block), block] as const),
)("%s", (_, block) => {
  test("is what try says of such a folder", async () => {
    await using dir = await tempDir("docs");
    const files = {
      "pmilter.toml": '[server]\nlisten = "inet:127.0.0.1:0"\n[[filter]]\npath = "handlers/stamp.ts"\n',
      "handlers/stamp.ts": STAMP,
      "mails/newsletter.eml": "From: news@example.net\nTo: b@example.com\nSubject: a\n\nb\n",
      "mails/spam.eml": "From: spam@example.com\nTo: b@example.com\nSubject: a\n\nb\n",
    };
    for (const [name, text] of Object.entries(files)) await Bun.write(`${dir.path}/${name}`, text);
    const { stdout } = await runPmilter(["try", "-c", "pmilter.toml", "mails", "--brief"], { cwd: dir.path });
    expect(stdout).toBe(block.text);
  });
});

test("there is no text block that is not produced here", () => {
  expect(blocksOf("text").filter((block) => kindOf(block) === undefined)).toEqual([]);
  for (const block of blocksOf("text")) {
    if (kindOf(block) === "log") expect(block.text.trimEnd().split("\n"), placeOf(block)).toHaveLength(1);
  }
});
