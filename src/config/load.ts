/**
 * The entry point of the folder: a file or its text becomes a Config or a ConfigError. It prints nothing and reads only
 * the named file and the files that it includes; the handler loader finds out whether handlers exist and load.
 */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import * as v from "valibot";
import { checkTogether, noticesOf } from "./checks.ts";
import { type Config, toConfig } from "./config.ts";
import { codeOf, whyNotRead } from "../errors.ts";
import type { Environment } from "./places.ts";
import { ConfigError, type ConfigIssue, type ConfigText, show } from "./errors.ts";
import { findIncluded, type IncludedFile, readIncluded } from "./include.ts";
import { type Fault, type Names, readIncludedNames, readNames } from "./keys.ts";
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

/** A file of the configuration: the main file, or one that it includes. */
interface Document {
  readonly text: ConfigText & { readonly source: string };
  readonly names: Names;
  /** Which of all `[[filter]]` tables its first is. */
  readonly firstFilter: number;
  readonly isMain: boolean;
}

/**
 * Checks the text of a configuration file. The file itself is not touched; the files that it includes are read.
 *
 * @param text TOML
 * @param file its name: shown in messages as it is given, and where relative paths begin
 * @param env for the default of `server.control`
 * @throws ConfigError with every fault that was found
 */
export function parseConfig(text: string, file: string, env: Environment = process.env): Config {
  const source = text.replace(/^\uFEFF/, "");
  const main: Document = {
    text: { file, source },
    names: readNames(parseToml(source, file)),
    firstFilter: 0,
    isMain: true,
  };
  const include = v.safeParse(ConfigSchema.entries.include, main.names.input["include"]);
  const included = include.success ? readIncludes(include.output ?? [], main) : NOTHING_INCLUDED;
  const documents = [main, ...included.documents];
  const faults: PlacedFault[] = documents.flatMap((document) =>
    document.names.faults.map((fault) => ({ ...fault, document })),
  );
  const add = ({ path, text: what }: Fault): void => {
    const document = ownerOf(path, documents);
    faults.push({ document, path: shifted(path, -document.firstFilter), text: what });
  };
  const filters = documents.flatMap(({ names }) => filtersIn(names));
  const result = v.safeParse(ConfigSchema, { ...main.names.input, filter: filters });
  for (const issue of result.issues ?? []) add({ path: pathOf(issue), text: issue.message });

  const isSound = (path: KeyPath): boolean =>
    !faults.some((fault) => startsWith(shifted(fault.path, fault.document.firstFilter), path));
  // readNames has seen to tables and lists: only leaves can be wrong, and isSound tells which.
  const values = result.output as ConfigFile;
  const absolute = resolve(file);
  const folder = dirname(absolute);
  for (const fault of checkTogether(values, folder, isSound)) add(fault);
  const issues = [...included.issues, ...documents.flatMap((document) => issuesIn(document, faults))];
  if (issues.length > 0) throw new ConfigError(file, issues, source, { cause: included.cause });
  const tables = documents.flatMap(({ names, text: { file: name } }) =>
    filtersIn(names).map((_, table) => ({ file: resolve(name), table })),
  );
  const notices = documents.flatMap(({ names }) => names.notices);
  const files = included.documents.map((document) => resolve(document.text.file));
  return toConfig(absolute, folder, values, { files, tables }, env, [...notices, ...noticesOf(values)]);
}

/** A fault, by its path in the file where it stands. */
interface PlacedFault extends Fault {
  readonly document: Document;
}

interface Included {
  readonly documents: readonly Document[];
  /** Faults of whole files, and of `include` itself. */
  readonly issues: readonly ConfigIssue[];
  /** The error of the first file that cannot be read. */
  readonly cause: unknown;
}

const NOTHING_INCLUDED: Included = { documents: [], issues: [], cause: undefined };

/** Reads the files of `include`. A file that is no TOML gives issues, and no document. */
function readIncludes(patterns: readonly string[], main: Document): Included {
  const { files, faults } = findIncluded(patterns, main.text.file);
  const documents: Document[] = [];
  const find = locator(main.text.source);
  const issues: ConfigIssue[] = faults.map(({ index, text }) => ({
    key: "include",
    text,
    ...find(["include", index]),
  }));
  let cause: unknown = faults.find((fault) => fault.cause !== undefined)?.cause;
  let firstFilter = filtersIn(main.names).length;
  for (const file of files) {
    try {
      const source = decode(bytesOf(file), file.name).replace(/^\uFEFF/, "");
      const names = readIncludedNames(parseToml(source, file.name), main.text.file);
      documents.push({ text: { file: file.name, source }, names, firstFilter, isMain: false });
      firstFilter += filtersIn(names).length;
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      cause ??= error.cause;
      issues.push(...error.issuesOf(file.name));
    }
  }
  return { documents, issues, cause };
}

function bytesOf(file: IncludedFile): Uint8Array {
  try {
    return readIncluded(file);
  } catch (cause) {
    const files = codeOf(cause) === "EISDIR" ? `; its files are ${show(`${file.pattern}/*.toml`)}` : "";
    const why = `${whyNotRead(cause, { denied: "permission denied" })}${files}`;
    throw new ConfigError(file.name, [{ text: `the included file cannot be read: ${why}` }], undefined, { cause });
  }
}

function filtersIn({ input }: Names): readonly unknown[] {
  const { filter } = input;
  return Array.isArray(filter) ? filter : [];
}

/** The file that a path in all files together is of. */
function ownerOf([table, index]: KeyPath, documents: readonly Document[]): Document {
  const [main] = documents;
  if (table !== "filter" || typeof index !== "number") return main!;
  return documents.findLast(({ firstFilter, names }) => firstFilter <= index && filtersIn(names).length > 0) ?? main!;
}

/** A path with the number of its filter, if it has one, counted from elsewhere. */
function shifted(path: KeyPath, by: number): KeyPath {
  const [table, index, ...rest] = path;
  return table === "filter" && typeof index === "number" ? [table, index + by, ...rest] : path;
}

/** The faults of a document. */
function issuesIn(document: Document, faults: readonly PlacedFault[]): ConfigIssue[] {
  const { names, text } = document;
  const find = locator(text.source);
  const of = document.isMain ? {} : { of: text };
  return faults
    .filter((fault) => fault.document === document)
    .map((fault) => {
      const path = names.written(fault.path);
      return Object.assign({ key: pathInWords(path), text: fault.text }, of, find(path));
    });
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
