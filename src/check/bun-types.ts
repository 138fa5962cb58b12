/** The declarations of Bun and Node, as they are installed; and packed, as the binary holds them. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";

/** Each package is found from the package before it, since that depends on it. */
const PACKAGES = ["@types/bun", "bun-types", "@types/node", "undici-types"] as const;

/** Texts by path below `node_modules`. */
export type TypeFiles = Readonly<Record<string, string>>;

/** From the packages beside pmilter's sources. */
export function installedBunTypes(): TypeFiles {
  const files: Record<string, string> = {};
  let from = import.meta.dirname;
  for (const name of PACKAGES) {
    const folder = dirname(Bun.resolveSync(`${name}/package.json`, from));
    from = folder;
    for (const file of declarationFiles(folder)) {
      files[join(name, relative(folder, file))] = readFileSync(file, "utf8");
    }
  }
  return files;
}

/** The same as text, for a macro. */
export function packBunTypes(): string {
  return Buffer.from(Bun.zstdCompressSync(JSON.stringify(installedBunTypes()))).toString("base64");
}

export function unpackBunTypes(packed: string): TypeFiles {
  return JSON.parse(Bun.zstdDecompressSync(Buffer.from(packed, "base64")).toString("utf8")) as TypeFiles;
}

function declarationFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory())
      return entry.name === "docs" || entry.name === "node_modules" ? [] : declarationFiles(path);
    return entry.name.endsWith(".d.ts") || entry.name === "package.json" ? [path] : [];
  });
}
