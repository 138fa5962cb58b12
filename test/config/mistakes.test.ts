/**
 * Mistakes of a configuration's author: each file of `mistakes` beside this one has one (or says that it has several), and
 * the text of the same name is what the author is told: where, what was seen, what was expected.
 */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { loadConfig } from "../../src/config/load.ts";
import { runPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { failure } from "./failure.ts";

const FOLDER = join(import.meta.dir, "mistakes");
const NAMES = readdirSync(FOLDER)
  .filter((name) => name.endsWith(".conf"))
  .map((name) => name.slice(0, -".conf".length));

function messageOf(file: string): string {
  return `${failure(() => loadConfig(file, {})).message.replaceAll(`${FOLDER}/`, "")}\n`;
}

test("there are at least twenty", () => {
  expect(NAMES.length).toBeGreaterThanOrEqual(20);
});

describe("a mistake is told as it is written", () => {
  test.each(NAMES)("%s", (name) => {
    expect(messageOf(join(FOLDER, `${name}.conf`))).toBe(readFileSync(join(FOLDER, `${name}.txt`), "utf8"));
  });

  test.each(NAMES.filter((name) => name !== "utf-16"))("%s: with the line, and what was expected", (name) => {
    const first = messageOf(join(FOLDER, `${name}.conf`)).split("\n", 1)[0]!;
    expect(first).toMatch(/\.conf:\d+:\d+: /);
    expect(first).toMatch(
      /expected|did you mean|belongs to|already|as well|the tables are|is a \.ts|is missing|is not/,
    );
  });
});

test("all problems are told in the same form, whichever comes first", async () => {
  const { exitCode, stderr } = await runPmilter(["check", "-c", join(FOLDER, "several.conf")]);
  expect(exitCode).toBe(1);
  const problems = stderr.split("\n").filter((line) => line.includes("several.conf"));
  expect(problems).toHaveLength(3);
  for (const line of problems) expect(line).toStartWith(`pmilter: ${FOLDER}/several.conf:`);
});

test("a folder, and a file that is not there", async () => {
  await using dir = await tempDir("mistakes");
  const { stderr } = await runPmilter(["check", "-c", dir.path]);
  expect(stderr).toBe(`pmilter: ${dir.path}: the configuration cannot be read: expected a file, got a folder\n`);
  expect((await runPmilter(["check", "-c", join(dir.path, "no.conf")])).stderr).toBe(
    `pmilter: ${join(dir.path, "no.conf")}: the configuration cannot be read: there is no such file\n`,
  );
});
