/** Another revision for a comparison: what was committed, not what lies there, and nothing stays. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { BenchUsageError } from "../../bench/args.ts";
import { checkOut } from "../../bench/compare/revision.ts";
import { describeWith, outsideTool } from "../support/available.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

const git = outsideTool("git");
const { signal } = new AbortController();

async function repository() {
  const dir = await tempDir("repository");
  const run = (...args: string[]) => {
    const identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.net", "-c", "commit.gpgsign=false"];
    const { success, stderr } = Bun.spawnSync([git.path, "-C", dir.path, ...identity, ...args]);
    if (!success) throw new Error(stderr.toString());
  };
  run("init", "--quiet");
  await writeFile(join(dir.path, "package.json"), '{ "name": "engine" }\n');
  for (const text of ["first", "second"]) {
    await writeFile(join(dir.path, "file"), text);
    run("add", ".");
    run("commit", "--quiet", "--message", text);
  }
  await writeFile(join(dir.path, "file"), "not committed");
  return dir;
}

describeWith([git, outsideTool("tar")], "checkOut", () => {
  test.each([
    ["HEAD", "second"],
    ["HEAD~1", "first"],
  ])("%s is what was committed then, and is gone afterwards", async (name, text) => {
    await using dir = await repository();
    let root: string;
    {
      await using revision = await checkOut(name, signal, dir.path);
      ({ root } = revision);
      expect(revision.name).toMatch(new RegExp(`^${name} \\([0-9a-f]{7}\\)$`));
      expect(await readFile(join(root, "file"), "utf8")).toBe(text);
    }
    expect(existsSync(root)).toBe(false);
  });

  test("a revision that is not there is wrong usage, as in a clone of one commit", async () => {
    await using dir = await repository();
    const error: unknown = await checkOut("HEAD~2", signal, dir.path).catch((error: unknown) => error);
    expect(error).toBeInstanceOf(BenchUsageError);
    expect(String(error)).toContain('there is no revision "HEAD~2" here');
  });
});
