/**
 * The declarations of the module "pmilter/options": valibot's, as they are installed, and behind them ours. They are one
 * block `declare module`, since an editor's folder has no `node_modules`.
 */
import { IS_COMPILED } from "../compiled.ts";
import { installedValibotTypes, unpackValibotTypes } from "./valibot-types.ts";
import OWN_TYPES from "./options.d.txt" with { type: "text" };

/** The text of `declare module "pmilter/options" { … }`. */
export async function optionTypes(): Promise<string> {
  if (!IS_COMPILED) return moduleOf(installedValibotTypes());
  const { PACKED_VALIBOT_TYPES } = await import("./packed-types.ts");
  return moduleOf(unpackValibotTypes(PACKED_VALIBOT_TYPES));
}

/** Our names stand for valibot's of the same name, which become names of the module's own. */
function moduleOf(valibot: string): string {
  const ours = new Set([...OWN_TYPES.matchAll(/^export function (\w+)/gm)].map(([, name]) => name!));
  const names = [...ours].join("|");
  const declared = valibot
    .replace(new RegExp(`\\b(declare function|typeof) (${names})\\b`, "g"), "$1 valibot_$2")
    .replace(/^export \{ (.*) \};$/m, (_, list: string) => {
      const kept = list.split(", ").filter((name) => !ours.has(name));
      return `export { ${kept.join(", ")} };`;
    })
    .replace(/^declare /gm, "");
  return `declare module "pmilter/options" {\n${declared}\n${OWN_TYPES}}\n`;
}
