/**
 * Each mistake of a filter's author is found by `pmilter check`, or at its first run, with file and line. And what is
 * right is found fault with by neither: the shipped handlers, and the odd ones below.
 */
import { beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { runPmilter, startPmilter, writeProject } from "../support/pmilter.ts";
import { tempDir } from "../support/temp.ts";
import { type Mistake, MISTAKES } from "./mistakes.ts";

setDefaultTimeout(120_000);

const FOUND = MISTAKES.filter(({ atRun }) => atRun !== true);

function projectOf({ code, files, options, phase }: Mistake) {
  const use =
    phase === undefined
      ? `[[filter]]\npath = "handler.ts"\n${options === undefined ? "" : `\n[filter.options]\n${options}\n`}`
      : `[handler.session]\n${phase}_handler = "handler.ts"\n`;
  return { config: use, files: { ...files, "handler.ts": code } };
}

/** From 1; 0 if no line is marked. */
function markedLine(text: string): number {
  return text.split("\n").findIndex((line) => /(?:\/\/|#) here\b/.test(line)) + 1;
}

test("there are at least thirty, and check finds 25 of them or more", () => {
  expect(MISTAKES.length).toBeGreaterThanOrEqual(30);
  expect(FOUND.length).toBeGreaterThanOrEqual(25);
  expect(new Set(MISTAKES.map(({ name }) => name)).size).toBe(MISTAKES.length);
});

describe("pmilter check finds", () => {
  const found = new Map<Mistake, Awaited<ReturnType<typeof checked>>>();
  // A few at a time: each is a process or two of its own.
  beforeAll(async () => {
    const waiting = [...FOUND];
    const work = async () => {
      for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) found.set(next, await checked(next));
    };
    await Promise.all([work(), work(), work()]);
  }, 600_000);

  test.each(FOUND.map((mistake) => [mistake.name, mistake] as const))("%s", (_, mistake) => {
    const { exitCode, file, stderr, text } = found.get(mistake)!;
    expect(exitCode, stderr).toBe(1);
    expect(stderr).toMatch(mistake.says);
    const places = [...stderr.matchAll(new RegExp(`^pmilter: (?:\\S*/)?${RegExp.escape(file)}:(\\d+):`, "gm"))];
    const lines = places.map(([, line]) => Number(line));
    const expected = markedLine(text);
    expect(lines.length, stderr).toBeGreaterThan(0);
    if (expected > 0) expect(lines, stderr).toContain(expected);
  });
});

/** What check says of it, and the file that it is to be about. */
async function checked(mistake: Mistake) {
  await using dir = await tempDir("mistake");
  const configFile = await writeProject(dir.path, projectOf(mistake));
  const { exitCode, stderr } = await runPmilter(["check", "-c", configFile], { cwd: dir.path });
  const isOption = mistake.options !== undefined;
  const text = isOption ? await Bun.file(configFile).text() : mistake.code;
  return { exitCode, stderr, file: isOption ? "pmilter.toml" : "handler.ts", text };
}

describe("the first run finds", () => {
  const rest = MISTAKES.filter(({ atRun }) => atRun === true);
  test.each(rest.map((mistake) => [mistake.name, mistake] as const))("%s", async (_, mistake) => {
    await using pmilter = await startPmilter(projectOf(mistake));
    const eml = join(import.meta.dir, "..", "fixtures", "hello.eml");
    expect(await runPmilter(["check", "-c", pmilter.configFile])).toMatchObject({ exitCode: 0, stderr: "" });
    expect((await runPmilter(["send", "-c", pmilter.configFile, eml])).exitCode).toBe(0);
    const line = await pmilter.log.next(/handler\.ts:\d+/);
    expect(line).toMatch(mistake.says);
    expect(line).toMatch(new RegExp(`handler\\.ts:${markedLine(mistake.code)}\\b`));
  });
});
