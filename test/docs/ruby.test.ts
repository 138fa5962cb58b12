/** The `ruby` blocks of the pages: each is converted to the `ts` block behind it, and both decide the same. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { MilterClient } from "../../src/testing/index.ts";
import { runPmilter, startPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { blocksOf, placeOf } from "./blocks.ts";

setDefaultTimeout(120_000);

const BLOCKS = blocksOf("ruby");

test("there is one", () => {
  expect(BLOCKS.length).toBeGreaterThan(0);
});

describe.each(BLOCKS.map((block) => [placeOf(block), block] as const))("%s", (_, block) => {
  const typescript = blocksOf("ts", block.file).find(({ line }) => line > block.line)!;
  const phase = /export default (?:async )?function (\w+)/.exec(typescript.text)![1]!;

  test("is converted to the next ts block", async () => {
    await using dir = await tempDir("ruby-block");
    const file = join(dir.path, "script.rb");
    await Bun.write(file, block.text);
    const { exitCode, stderr } = await runPmilter(["convert", file, "--phase", phase]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(await Bun.file(join(dir.path, "script.ts")).text()).toBe(typescript.text);
  });

  test("decides as that does", async () => {
    const answers: unknown[] = [];
    for (const [extension, { text }] of [
      ["rb", block],
      ["ts", typescript],
    ] as const) {
      await using pmilter = await startPmilter({
        config: `[handler.session]\n${phase}_handler = "handler.${extension}"\n`,
        files: { [`handler.${extension}`]: text },
      });
      await using client = await MilterClient.connect(pmilter.addresses[0]!, { as: "postfix" });
      // As many as one of the scripts counts.
      const to = ["a@example.com", ...Array.from({ length: 101 }, (_, at) => `b${at}@example.net`)];
      const { recipients, verdict } = await client.send({ eml: "A: b\n\nc\n", from: "a@b.c", to });
      expect(new Set(recipients.map((recipient) => recipient.verdict)).size).toBe(2);
      answers.push({ recipients, verdict });
    }
    expect(answers[0]).toEqual(answers[1]);
  });
});
