/** The types, as the compiler sees them: `refused.ts` fails where it must, and `allowed.ts` works as it is written. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { checkFilter } from "../../src/handler/filter.ts";
import { runFilter } from "../../src/testing/index.ts";
import { envfrom, helped, stamp, whole } from "./allowed.ts";

setDefaultTimeout(120_000);

describe("types", () => {
  test("bun check finds every error that refused.ts expects, and none in allowed.ts", async () => {
    const check = Bun.spawn([process.execPath, "check", "--no-script", "test/types"], {
      cwd: join(import.meta.dir, "../.."),
      stdout: "pipe",
      stderr: "pipe",
    });
    const output = (await check.stdout.text()) + (await check.stderr.text());
    expect(`${await check.exited} ${output}`).toStartWith("0 ");
    expect(output).toContain("No type errors");
  });

  test("the filters of allowed.ts are filters", () => {
    expect([stamp, whole, helped].map((filter) => checkFilter(filter, "x").name)).toEqual(["stamp", "whole", "x"]);
  });

  test("the examples do what they say", async () => {
    expect(await runFilter(stamp, { eml: "Subject: hi\n\nhello\n" })).toMatchObject({
      verdict: "accept",
      modifications: [{ kind: "addHeader", name: "X-Pmilter", value: "Enable" }],
    });
    expect(await runFilter({ envfrom }, { from: "spam-from@example.com", eml: "A: b\n\n" })).toMatchObject({
      verdict: "reject",
      reply: { code: 550, enhanced: "5.7.1", lines: ["Not welcome here"] },
    });
  });
});
