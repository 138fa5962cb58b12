/**
 * `pmilter/options`: schemas for the table `[filter.options]`. It is valibot, whose functions it exports, and a few kinds that
 * filters need: a strict table with a hint for mistyped names, durations, sizes, and files. `defineFilter({ options })` takes
 * any Standard Schema; with this one a filter needs no package of its own.
 * @example
 * import { boolean, duration, optional, string, table } from "pmilter/options";
 * const options = table({ tag: string(), wait: optional(duration(), "5s"), strict: optional(boolean(), false) });
 */
import { statSync } from "node:fs";
import { isAbsolute, resolve } from "node:path";
import * as v from "valibot";
import { show } from "../config/errors.ts";
import { nearestName } from "../config/nearest.ts";
import * as values from "../config/values.ts";
import { whyNotRead } from "../errors.ts";
import {
  DURATION_EXAMPLES,
  durationHint,
  MAX_DURATION_MS,
  readDuration,
  readSize,
  SIZE_EXAMPLES,
  sizeHint,
} from "../quantity.ts";
import { checkRegular, readRegularFile } from "../regular-file.ts";
import { folderInUse } from "./folder.ts";

export * from "valibot";

// `expected …, got …`, as in all messages about a configuration. A function that gives its own message is not asked.
v.setGlobalMessage(({ expected, input, message, type }) => {
  if (expected === null) return message;
  const what = /(?:^|_)length$/.test(type) ? `a length ${expected}` : inWords(expected);
  return `expected ${what}, got ${show(input)}`;
});

/** Valibot's names of kinds, in the words of the configuration's own errors. */
const KINDS: Readonly<Record<string, string>> = {
  string: "text",
  number: "a number",
  boolean: "true or false",
  Date: "a date and time",
  Array: "a list",
  Object: "a table",
};

/** @param expected a kind, or several: `("reject" | "tag")` */
function inWords(expected: string): string {
  const alternatives = /^\((.*)\)$/.exec(expected)?.[1] ?? expected;
  const words = alternatives.split(" | ").map((each) => KINDS[each] ?? each);
  const last = words.pop()!;
  return words.length === 0 ? last : `${words.join(", ")} or ${last}`;
}

/**
 * A message of the form `expected …, got …`, for schemas of one's own.
 * @example pipe(number(), check((port) => port % 2 === 0, expected("an even number")))
 */
export function expected(what: string): (issue: { readonly input: unknown }) => string {
  return values.expected(what);
}

/** What a table without a schema for other keys refuses. */
const UNKNOWN = "never";

/**
 * A table whose keys are all known. An unknown key is an error, with the name that was probably meant.
 * @param entries a schema for each key; `optional(schema, default)` for one that may be left out
 * @example table({ tag: string(), rules: optional(array(table({ limit: number() })), []) })
 */
export function table<const E extends v.ObjectEntries>(
  entries: E,
): v.StrictObjectSchema<E, v.ErrorMessage<v.StrictObjectIssue>> {
  const names = Object.keys(entries);
  return v.strictObject(entries, ({ expected, input, path }) => {
    const key = String(path?.at(-1)?.key ?? "");
    if (expected === UNKNOWN) return unknownKey(key, names);
    // The key's own name: valibot says so of one that is missing.
    if (path !== undefined && expected === JSON.stringify(key)) return `"${key}" is missing`;
    return `expected a table, got ${show(input)}`;
  });
}

function unknownKey(name: string, names: readonly string[]): string {
  const meant = nearestName(name, names);
  if (meant !== undefined) return `unknown option; did you mean "${meant}"?`;
  return names.length === 0 ? "unknown option; there are none" : `unknown option; there are ${names.join(", ")}`;
}

/**
 * A duration: seconds as a number, or text such as `"500ms"`, `"3s"`, `"10m"`, `"2h"`, `"7d"`. Gives
 * milliseconds, from 1 to a hundred years. Timers take no more than 24 days (2 ** 31 milliseconds).
 * @example table({ wait: optional(duration(), "5s") }) // options.wait is 5000
 */
export function duration(): v.GenericSchema<number | string, number> {
  return v.pipe(
    v.custom<number | string, (issue: { readonly input: unknown }) => string>(
      (value) => {
        const ms = readDuration(value);
        return ms >= 1 && ms <= MAX_DURATION_MS;
      },
      values.expected(`a duration from "1ms" to "36500d", such as ${DURATION_EXAMPLES}`, durationHint),
    ),
    v.transform((value: number | string) => Math.round(readDuration(value))),
  );
}

/**
 * A size: bytes as a whole number, or text such as `"64KB"`, `"10MB"`, `"1GB"` (1 KB is 1,024 bytes). Gives bytes.
 * @example table({ max: optional(size(), "64KB") }) // options.max is 65536
 */
export function size(): v.GenericSchema<number | string, number> {
  return v.pipe(
    v.custom<number | string, (issue: { readonly input: unknown }) => string>(
      (value) => readSize(value) >= 0 && Number.isSafeInteger(readSize(value)),
      values.expected(`a size such as ${SIZE_EXAMPLES}`, sizeHint),
    ),
    v.transform((value: number | string) => readSize(value)),
  );
}

/**
 * The path of a file that is there; relative to the configuration. Gives the absolute path.
 * @example table({ list: file() }) // list = "lists/senders.txt"
 */
export function file(): v.GenericSchema<string, string> {
  return pathTo((path) => {
    checkRegular(statSync(path));
    return path;
  });
}

/** Bits of a file's mode that let others than its owner and group read or write it. */
const OTHERS = 0o006;
const MAX_SECRET_BYTES = 1024 * 1024;

/**
 * The path of a file that holds a secret, such as a key or a password; relative to the configuration. Gives its text without
 * white space at the end. A file that every user may read is refused.
 * @example table({ password: secretFile() }) // options.password is what the file holds
 */
export function secretFile(): v.GenericSchema<string, string> {
  return pathTo((path, addProblem) => {
    const stats = statSync(path);
    checkRegular(stats);
    if ((stats.mode & OTHERS) !== 0) addProblem(`every user may read ${path}: expected mode 0600 or 0640`);
    if (stats.size <= MAX_SECRET_BYTES) return readRegularFile(path).toString("utf8").trimEnd();
    addProblem(`${path} has ${stats.size} bytes: that is no secret`);
    return "";
  });
}

function pathTo(read: (path: string, addProblem: (text: string) => void) => string): v.GenericSchema<string, string> {
  return v.pipe(
    values.text("the path of a file"),
    v.rawTransform<string, string>(({ dataset, addIssue, NEVER }) => {
      const path = isAbsolute(dataset.value) ? dataset.value : resolve(folderInUse(), dataset.value);
      let problem: string | null = null;
      let result = "";
      try {
        result = read(path, (text) => (problem ??= text));
      } catch (error) {
        problem = `expected a file that can be read, got ${path}: ${whyNotRead(error)}`;
      }
      if (problem === null) return result;
      addIssue({ message: problem });
      return NEVER;
    }),
  );
}
