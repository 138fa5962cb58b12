/**
 * The declarations of Bun and Node, packed. It is called as a macro, when `type-folder.ts` is bundled or transpiled: the
 * binary holds them, and needs no `node_modules`.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

/** Each package is found from the one before it, as they depend on each other. */
const PACKAGES = ["@types/bun", "bun-types", "@types/node", "undici-types"] as const;

/** Files by path below `node_modules`, as JSON, compressed, in base64. */
export function packedBunTypes(): string {
  const files: Record<string, string> = {};
  let from = import.meta.dirname;
  for (const name of PACKAGES) {
    const folder = dirname(Bun.resolveSync(`${name}/package.json`, from));
    from = folder;
    for (const file of declarationFiles(folder)) {
      files[join(name, relative(folder, file))] = readFileSync(file, "utf8");
    }
  }
  return Buffer.from(Bun.zstdCompressSync(JSON.stringify(files), { level: 3 })).toString("base64");
}

function declarationFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory())
      return entry.name === "docs" || entry.name === "node_modules" ? [] : declarationFiles(path);
    return entry.name.endsWith(".d.ts") || entry.name === "package.json" ? [path] : [];
  });
}
