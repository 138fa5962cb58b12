/**
 * The door of the folder: a file or its text becomes a Config or a ConfigError. It prints nothing and reads no file but
 * the one named; whether handlers exist and load is for the handler loader to find out.
 */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import * as v from "valibot";
import { checkTogether, noticesOf } from "./checks.ts";
import { type Config, type Environment, toConfig } from "./config.ts";
import { ConfigError, type ConfigIssue } from "./errors.ts";
import { type Fault, pathInWords, readNames } from "./keys.ts";
import { type KeyPath, locator } from "./locate.ts";
import { type ConfigFile, ConfigSchema } from "./schema.ts";

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
    throw new ConfigError(path, [{ text: `the configuration cannot be read: ${reasonOf(error)}` }], undefined, {
      cause: error,
    });
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

function parseToml(source: string, file: string): Record<string, unknown> {
  try {
    // A key named __proto__ or constructor is nobody's setting, and a trap for whoever copies options.
    return parse(source, { unsafeKeyBehaviour: "throw" });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    const { line, column } = error;
    const reason = (error.message.split("\n", 1)[0] ?? "").replace(/^Invalid TOML document: /, "");
    // 0660 without quotes is no TOML at all, and the most likely way to write a mode.
    const isMode = /^\s*(?:server\s*\.\s*)?socket_mode\s*=/.test(source.split("\n")[line - 1] ?? "");
    const hint = isMode ? '; a mode stands in quotes, as in "0660"' : "";
    throw new ConfigError(file, [{ text: `not valid TOML: ${reason}${hint}`, line, column }], source, {
      cause: error,
    });
  }
}

function pathOf(issue: v.BaseIssue<unknown>): KeyPath {
  return (issue.path ?? []).map(({ key }) => (typeof key === "number" ? key : String(key)));
}

function startsWith(path: KeyPath, start: KeyPath): boolean {
  return start.every((part, index) => part === path[index]);
}

function decode(bytes: Uint8Array, file: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new ConfigError(file, [{ text: "the configuration is not UTF-8 text" }], undefined, { cause: error });
  }
}

const READ_ERRORS: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  ENOTDIR: "there is no such file",
  EACCES: "permission denied",
  EISDIR: "it is a folder",
};

function reasonOf(error: unknown): string {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return READ_ERRORS[code] ?? (error instanceof Error ? error.message : String(error));
}
