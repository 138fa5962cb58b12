/** `pmilter dkim check`: compares the DNS with the keys of the configuration. */
import { dirname } from "node:path";
import { nameOfRecord } from "../../../handlers/lib/dkim/key-record.ts";
import { type Options, options } from "../../../handlers/lib/dkim-sign/options.ts";
import type { SigningKey } from "../../../handlers/lib/dkim-sign/keys.ts";
import type { Config } from "../../config/config.ts";
import { loadConfig } from "../../config/load.ts";
import { applySchema } from "../../handler/options.ts";
import { inFolder } from "../../options/folder.ts";
import { UsageError } from "../../usage-error.ts";
import { resolverOf } from "../../services/dns/system-resolver.ts";
import type { Resolver } from "../../services/dns/resolver.ts";
import type { DkimArguments } from "../args.ts";
import { compare, type Comparison, zoneLine } from "./record.ts";
import { DkimError } from "./new.ts";

/** @returns the exit code: 1 if a record is not as it should be */
export async function checkKeys(configFile: string, { domain, selector }: DkimArguments): Promise<number> {
  const config = loadConfig(configFile);
  const keys = (await keysOf(config)).filter(
    (key) => key.domain === domain && (selector === null || key.selector === selector),
  );
  if (keys.length === 0) {
    const name = selector === null ? domain : nameOfRecord(domain, selector);
    throw new DkimError(`no filter dkim-sign of ${config.file} has a key for ${name}`);
  }
  const resolver = resolverOf(config.dns);
  const isRight = await Promise.all(keys.map((key) => check(resolver, key)));
  return isRight.every(Boolean) ? 0 : 1;
}

/** The keys of all filters dkim-sign, each once. */
async function keysOf(config: Config): Promise<readonly SigningKey[]> {
  const found = new Map<string, SigningKey>();
  for (const { options: given, use } of config.filters) {
    if (use !== "dkim-sign") continue;
    const { keys, seal } = await optionsOf(config, given);
    for (const key of [...keys.all, ...(seal === undefined ? [] : [seal])]) {
      found.set(nameOfRecord(key.domain, key.selector), key);
    }
  }
  return [...found.values()];
}

async function optionsOf(config: Config, given: unknown): Promise<Options> {
  try {
    return (await inFolder(dirname(config.file), () => applySchema(options, "dkim-sign", given))) as Options;
  } catch (error) {
    if (error instanceof UsageError) throw new DkimError(`${config.file}: ${error.message}`, { cause: error });
    throw error;
  }
}

async function check(resolver: Resolver, { domain, key, selector }: SigningKey): Promise<boolean> {
  const name = nameOfRecord(domain, selector);
  const { reason, records, status } = await resolver.resolve({ name, type: "TXT" }, new AbortController().signal);
  const { problems, warnings } = comparison();
  for (const warning of warnings) process.stdout.write(`${name}: warning: ${warning}\n`);
  for (const problem of problems) process.stdout.write(`${name}: ${problem}\n`);
  if (problems.length === 0) process.stdout.write(`${name}: ok, the record has the key\n`);
  else if (status !== "failed") process.stdout.write(`expected:\n${zoneLine(domain, selector, key)}\n`);
  return problems.length === 0;

  function comparison(): Comparison {
    if (status === "found") return compare(records as readonly string[], key);
    const problem = status === "failed" ? `the DNS does not answer: ${reason ?? "no reason"}` : "there is no record";
    return { problems: [problem], warnings: [] };
  }
}
