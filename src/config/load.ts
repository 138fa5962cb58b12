/**
 * The entry point of the folder: a file or its text becomes a Config or a ConfigError. It prints nothing and reads only
 * the named file; the handler loader finds out whether handlers exist and load.
 */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { checkTogether, noticesOf } from "./checks.ts";
import { type Config, toConfig } from "./config.ts";
import { whyNotRead } from "../errors.ts";
import type { Environment } from "./places.ts";
import { ConfigError, type ConfigIssue } from "./errors.ts";
import { type Fault, readNames } from "./keys.ts";
import { type KeyPath, locator, pathInWords } from "./locate.ts";
import { type ConfigFile, ConfigSchema } from "./schema.ts";
import { parseToml } from "./toml.ts";

export type { Config } from "./config.ts";

/**
 * Reads and checks a configuration file.
 *
 * @param path relative to the working directory, or absolute; shown in messages as it is given
 * @param env for the default of `server.control`
 * @throws ConfigError when the file cannot be read or used
 */
export function loadConfig(path: string, env: Environment = process.env): Config {
  let bytes: Uint8Array;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw new ConfigError(
      path,
      [{ text: `the configuration cannot be read: ${whyNotRead(error, { denied: "permission denied" })}` }],
      undefined,
      {
        cause: error,
      },
    );
  }
  return parseConfig(decode(bytes, path), path, env);
}

/**
 * Checks the text of a configuration file. The file itself is not touched.
 *
 * @param text TOML
 * @param file its name: shown in messages as it is given, and where relative paths begin
 * @param env for the default of `server.control`
 * @throws ConfigError with every fault that was found
 */
export function parseConfig(text: string, file: string, env: Environment = process.env): Config {
  const source = text.replace(/^\uFEFF/, "");
  const names = readNames(parseToml(source, file));
  const result = v.safeParse(ConfigSchema, names.input);
  const faults: Fault[] = [...names.faults];
  for (const issue of result.issues ?? []) faults.push({ path: pathOf(issue), text: issue.message });

  const isSound = (path: KeyPath): boolean => !faults.some((fault) => startsWith(fault.path, path));
  // readNames has seen to tables and lists: only leaves can be wrong, and isSound tells which.
  const values = result.output as ConfigFile;
  const absolute = resolve(file);
  const folder = dirname(absolute);
  faults.push(...checkTogether(values, folder, isSound));
  if (faults.length > 0) {
    const find = locator(source);
    const place = (fault: Fault): ConfigIssue => {
      const path = names.written(fault.path);
      return { key: pathInWords(path), text: fault.text, ...find(path) };
    };
    throw new ConfigError(file, faults.map(place), source);
  }
  return toConfig(absolute, folder, values, env, [...names.notices, ...noticesOf(values)]);
}

function pathOf(issue: v.BaseIssue<unknown>): KeyPath {
  return (issue.path ?? []).map(({ key }) => (typeof key === "number" ? key : String(key)));
}

function startsWith(path: KeyPath, start: KeyPath): boolean {
  return start.every((part, index) => part === path[index]);
}

function decode(bytes: Uint8Array, file: string): string {
  const isUtf16 = (bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    const { byte, ...place } = firstNotUtf8(bytes);
    const issue = isUtf16
      ? { text: "expected UTF-8 text, got UTF-16; save the file as UTF-8" }
      : { text: `expected UTF-8 text, got the byte 0x${byte}; save the file as UTF-8`, ...place };
    throw new ConfigError(file, [issue], undefined, { cause });
  }
}

/** Where bytes stop to be UTF-8. */
function firstNotUtf8(bytes: Uint8Array): { line: number; column: number; byte: string } {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  /** The first byte of the character that is being read. */
  let start = 0;
  try {
    for (let at = 0; at < bytes.length; at++) {
      const char = decoder.decode(bytes.subarray(at, at + 1), { stream: true });
      if (char !== "") start = at + 1;
      text += char;
    }
  } catch {
    // The character that began at `start` is none.
  }
  const lines = text.split("\n");
  const byte = bytes[start]!.toString(16).toUpperCase().padStart(2, "0");
  return { line: lines.length, column: lines.at(-1)!.length + 1, byte };
}
