/** The shipped configuration and handlers print what the original pmilter's did, in its README's example run. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { MAIN, runPmilter, Lines } from "../support/pmilter.ts";
import { ORIGINAL_ARGUMENTS, originalLines } from "../support/original-run.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");

const ORIGINAL = originalLines({ phaseName: "connect" });

test("pmilter.toml as shipped: the lines of the original's run", async () => {
  await using dir = await tempDir("original");
  await cp(join(ROOT, "handlers"), join(dir.path, "handlers"), { recursive: true });
  const shipped = await readFile(join(ROOT, "pmilter.toml"), "utf8");
  const configFile = join(dir.path, "pmilter.toml");
  const moved = shipped.replace(/^listen = .*$/m, 'listen = "pmilter.sock"');
  expect(moved).not.toBe(shipped);
  await writeFile(configFile, moved);

  const server = Bun.spawn([process.execPath, MAIN, "-c", configFile], { stdio: ["ignore", "pipe", "pipe"] });
  const [log, prints] = [new Lines(), new Lines()];
  void log.read(server.stderr);
  void prints.read(server.stdout);
  try {
    await log.next(/ready: listening on /);
    expect(log.all[0]).toMatch(
      /^\[\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\]\[notice\]: pmilter\/\S+ starting \(using Bun \S+\)$/,
    );
    const { exitCode, stdout, stderr } = await runPmilter([
      "send",
      "-c",
      configFile,
      join(ROOT, "test", "fixtures", "hello.eml"),
      ...ORIGINAL_ARGUMENTS,
    ]);
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toMatch(/^ {2}addHeader X-Pmilter: Enable$/m);
    expect(stdout).toMatch(/^verdict: accept$/m);
    server.kill("SIGTERM");
    expect(await server.exited).toBe(0);
    await prints.next(/bye/);
  } finally {
    server.kill("SIGKILL");
  }
  const printed = prints.all.filter((line) => !line.startsWith("pmilter: "));
  expect(printed).toHaveLength(ORIGINAL.length);
  ORIGINAL.forEach((expected, index) => {
    if (typeof expected === "string") expect(printed[index]).toBe(expected);
    else expect(printed[index]).toMatch(expected);
  });
  // Its two other handlers, once each.
  expect(prints.all.filter((line) => line.startsWith("pmilter: "))).toEqual([
    "pmilter: configuration loaded",
    "pmilter: bye",
  ]);
});

test("the shipped configuration passes check", async () => {
  const { exitCode, stdout, stderr } = await runPmilter(["check", "-c", join(ROOT, "pmilter.toml")]);
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  expect(stdout).toContain("  handler: connect helo envfrom envrcpt header body eom");
});
