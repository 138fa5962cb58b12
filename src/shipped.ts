/**
 * The filters that come with pmilter, which `[[filter]]` names with `use`. They are modules of the program, in the
 * repository, in the package and in the binary alike, and are loaded only where a configuration uses them. A new one is
 * registered here, and nowhere else.
 */
import { join } from "node:path";
import { IS_COMPILED } from "./compiled.ts";

/** The module of each, by its name. */
export const SHIPPED = {
  "access-lists": () => import("../handlers/access-lists.ts"),
  attachments: () => import("../handlers/attachments.ts"),
  banner: () => import("../handlers/banner.ts"),
  "bcc-archive": () => import("../handlers/bcc-archive.ts"),
  disclaimer: () => import("../handlers/disclaimer.ts"),
  "dkim-sign": () => import("../handlers/dkim-sign.ts"),
  "dns-lists": () => import("../handlers/dns-lists.ts"),
  greylist: () => import("../handlers/greylist.ts"),
  "header-policy": () => import("../handlers/header-policy.ts"),
  "mail-auth": () => import("../handlers/mail-auth.ts"),
  "rate-limit": () => import("../handlers/rate-limit.ts"),
  "subject-tag": () => import("../handlers/subject-tag.ts"),
} as const satisfies Readonly<Record<string, () => Promise<{ readonly default: unknown }>>>;

export type ShippedName = keyof typeof SHIPPED;

export const SHIPPED_NAMES = Object.keys(SHIPPED) as ShippedName[];

/** Those that change neither the body nor a header that a signature covers: they may run behind `dkim-sign`. */
export const KEEPS_CONTENT: ReadonlySet<string> = new Set<ShippedName>([
  "access-lists",
  "bcc-archive",
  "dkim-sign",
  "dns-lists",
  "greylist",
  "rate-limit",
]);

/**
 * The name of a source in a binary, by which it is found in pmilter's repository.
 * @param path as source maps have it: relative to the folder that the binary was built in
 */
export function bundledSource(path: string): string {
  return `pmilter/${path}`;
}

/** The source of a shipped filter, for logs. */
export function shippedFile(name: ShippedName): string {
  const path = `handlers/${name}.ts`;
  return IS_COMPILED ? bundledSource(path) : join(import.meta.dir, "..", path);
}
