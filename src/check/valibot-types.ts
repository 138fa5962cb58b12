/** The declarations of valibot, as they are installed; and packed, as the binary holds them. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** From the package beside pmilter's sources. */
export function installedValibotTypes(): string {
  const folder = dirname(Bun.resolveSync("valibot/package.json", import.meta.dirname));
  return readFileSync(join(folder, "dist", "index.d.mts"), "utf8");
}

/** The same as text, for a macro. */
export function packValibotTypes(): string {
  return Buffer.from(Bun.zstdCompressSync(installedValibotTypes())).toString("base64");
}

export function unpackValibotTypes(packed: string): string {
  return Bun.zstdDecompressSync(Buffer.from(packed, "base64")).toString("utf8");
}
