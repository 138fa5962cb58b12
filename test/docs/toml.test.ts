/** The `toml` blocks of the pages: each is a configuration that is read without a remark, and that `check` passes. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { generateKeyPairSync } from "node:crypto";
import { chmod, cp, mkdir, symlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { parseConfig } from "../../src/config/load.ts";
import { runPmilter } from "../support/pmilter.ts";
import { type TempDir, tempDir } from "../support/temp.ts";
import { type Block, blocksOf, placeOf, ROOT } from "./blocks.ts";

setDefaultTimeout(120_000);

const KEY = generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" });

let dir: TempDir;
beforeAll(async () => {
  dir = await tempDir("toml");
  await cp(join(ROOT, "handlers"), join(dir.path, "handlers"), { recursive: true });
  // What handlers import from packages.
  await symlink(join(ROOT, "node_modules"), join(dir.path, "node_modules"));
  const patience = blocksOf("ts", "docs/handlers.md").find(({ text }) => text.includes('name: "patience"'));
  await Bun.write(join(dir.path, "handlers/patience.ts"), patience!.text);
});
afterAll(async () => await dir?.[Symbol.asyncDispose]());

/** For files that a page names and nobody wrote: a function that does nothing, a filter without a phase, a key, an empty list. */
async function standIns({ text }: Block): Promise<void> {
  for (const [, path = ""] of text.matchAll(/^file = "([^"]+)"$/gm)) {
    const file = join(dir.path, path);
    await Bun.write(file, path.endsWith(".pem") ? KEY : "");
    await chmod(file, 0o600);
  }
  for (const [, key, path = ""] of text.matchAll(/^(\w+) = "(handlers\/[^"]+)"$/gm)) {
    const file = join(dir.path, path);
    if (await Bun.file(file).exists()) continue;
    await mkdir(dirname(file), { recursive: true });
    const filter = 'import { defineFilter } from "pmilter";\nexport default defineFilter({ eom() {} });\n';
    await Bun.write(file, key === "path" ? filter : "export default function nothing() {}\n");
  }
}

describe.each(blocksOf("toml").map((block) => [placeOf(block), block] as const))("%s", (_, block) => {
  test("is read without a remark", () => {
    expect(parseConfig(block.text, "/etc/pmilter.toml", {}).notices).toEqual([]);
  });

  test("passes check", async () => {
    await standIns(block);
    await Bun.write(join(dir.path, "pmilter.toml"), block.text);
    const { exitCode, stdout, stderr } = await runPmilter(["check", "--no-types", "-c", "pmilter.toml"], {
      cwd: dir.path,
    });
    expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
    expect(stdout).toContain("pmilter.toml: ok\n");
    for (const [, name] of block.text.matchAll(/^path = "handlers\/(\w+)\.ts"$/gm)) {
      expect(stdout).toMatch(new RegExp(`^  ${name}(?: \\(observe.*\\))?: `, "m"));
    }
  });
});
