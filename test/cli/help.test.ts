/** Help, version and wrong usage: where the texts go, and the exit codes. */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { COMMAND_NAMES } from "../../src/cli/args.ts";
import { helpText } from "../../src/cli/help.ts";
import { VERSION } from "../../src/version.ts";
import { ROOT, runPmilter } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

describe("helpText", () => {
  const texts = [null, ...COMMAND_NAMES].map(helpText);

  test("fits a terminal, and has no stray spaces", () => {
    for (const text of texts) {
      expect(text).toEndWith("\n");
      for (const line of text.split("\n")) {
        expect(line.length).toBeLessThanOrEqual(110);
        expect(line).toBe(line.trimEnd());
      }
    }
  });

  test("the general one names every command and the exit codes", () => {
    for (const name of COMMAND_NAMES) expect(helpText(null)).toMatch(new RegExp(`^  ${name} `, "m"));
    expect(helpText(null)).toMatch(/Exit codes: 0 .*; 1 .*; 2 /);
  });

  test("each command's begins with its usage", () => {
    for (const name of COMMAND_NAMES) expect(helpText(name)).toMatch(new RegExp(`^Usage: pmilter .*${name}`, "m"));
  });

  test("send's and try's have every option that they take", () => {
    for (const option of [
      "--from",
      "--to",
      "--client",
      "--hostname",
      "--helo",
      "--macro",
      "--as",
      "--json",
      "--config",
    ]) {
      expect(helpText("send")).toContain(`${option}`);
      expect(helpText("try")).toContain(`${option}`);
    }
    for (const option of ["--listener", "--brief", "--strict"]) expect(helpText("try")).toContain(option);
  });
});

describe("pmilter", () => {
  test.each([
    [["--help"], helpText(null)],
    [["help", "send"], helpText("send")],
    [["check", "-h"], helpText("check")],
    [["--version"], `pmilter ${VERSION} (Bun ${Bun.version})\n`],
  ])("%j goes to standard output, exit code 0", async (args, stdout) => {
    expect(await runPmilter(args)).toEqual({ exitCode: 0, stdout, stderr: "" });
  });

  test.each([
    [["frobnicate"], /^pmilter: there is no command "frobnicate".*\nTry: pmilter help\n$/],
    [["send"], /^pmilter: send needs the message.*\nTry: pmilter help send\n$/],
    [["try"], /^pmilter: try needs messages: .*\nTry: pmilter help try\n$/],
    [["try", "x.eml", "--json", "--brief"], /^pmilter: --json and --brief are .*\nTry: pmilter help try\n$/],
    [["check", "--nothing"], /^pmilter: .*--nothing.*\nTry: pmilter help check\n$/],
  ])("%j is wrong usage: two lines on standard error, exit code 2", async (args, stderr) => {
    const result = await runPmilter(args);
    expect(result).toMatchObject({ exitCode: 2, stdout: "" });
    expect(result.stderr).toMatch(stderr);
  });
});

test("a clone without its packages says how to get them", async () => {
  await using clone = await tempDir("clone");
  for (const name of ["bunfig.toml", "package.json", "src"]) {
    await cp(join(ROOT, name), join(clone.path, name), { recursive: true });
  }
  const child = Bun.spawn([process.execPath, "src/main.ts", "check"], { cwd: clone.path, stderr: "pipe" });
  expect(await child.stderr.text()).toMatch(
    /^pmilter: Cannot find package .*\nThe packages .* run "bun install --frozen-lockfile"\.\n$/,
  );
  expect(await child.exited).toBe(1);
});
