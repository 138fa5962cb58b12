/**
 * The use of each TypeScript handler in the configuration, as lines of TypeScript: a phase file is assigned to the
 * handler type of its phase, a filter to `Filter`, and its options in the configuration to their type.
 */
import { PHASE_NAMES } from "../protocol/phases.ts";
import type { Config } from "../config/config.ts";
import { type KeyPath, locator, pathInWords } from "../config/locate.ts";
import { readText } from "../load/files.ts";
import { isTypeScript, type Sources } from "../load/sources.ts";
import { blank, placeOfDefault } from "../load/source-text.ts";
import type { Problem } from "./problem.ts";

/** The place that an error belongs to, and a prefix for its text. */
export type Place = Omit<Problem, "text"> & { readonly prefix?: string };

export interface Use {
  /** The real path of the handler's file. */
  readonly path: string;
  /** With where an error in each belongs; null for lines that loading the handler judges. */
  readonly lines: readonly { readonly text: string; readonly place: Place | null }[];
}

export function usesOf(config: Config, sources: Sources): Use[] {
  if (!config.server.handler) return [];
  const texts = new Map(sources.files.map(({ path, text }) => [path, text]));
  const uses: Use[] = [];
  const add = (file: string, lines: (module: string, place: Place) => Use["lines"]) => {
    const path = sources.targets.get(file) ?? file;
    const text = texts.get(path);
    if (text === undefined || !isTypeScript(path)) return;
    const module = `handler${uses.length}`;
    const imported = { text: `import ${module} from ${JSON.stringify(path)};`, place: null };
    uses.push({ path, lines: [imported, ...lines(module, { file: path, ...placeOfDefault(text) })] });
  };
  for (const phase of PHASE_NAMES) {
    const file = config.handler.session[phase];
    if (file === undefined) continue;
    add(file, (module, place) => [
      { text: `${module} satisfies import("pmilter").Handler<"${phase}", any, any>;`, place },
    ]);
  }
  const locators = new Map<string, ReturnType<typeof locator>>();
  const findIn = (file: string, key: KeyPath) => {
    let find = locators.get(file);
    if (find === undefined) locators.set(file, (find = locator(readText(file) ?? "")));
    return find(key);
  };
  for (const { file, options, path, table } of config.filters) {
    // The types of shipped filters are pmilter's own, and their options are judged by their schemas.
    if (path === null) continue;
    // A schema judges the options as they are written; the type is that of its result.
    const hasSchema = definesOptions(texts.get(sources.targets.get(path) ?? path) ?? "");
    add(path, (module, place) => [
      { text: `${module} satisfies import("pmilter").Filter<any, any, any, any, any>;`, place },
      ...optionLines(module, hasSchema ? {} : options, (name) => {
        const key: KeyPath = ["filter", table, "options", name];
        return { file, line: 0, column: 0, ...findIn(file, key), prefix: `${pathInWords(key)}: ` };
      }),
    ]);
  }
  return uses;
}

/** Whether the object given to `defineFilter` has a member `options`, by its text. */
function definesOptions(text: string): boolean {
  const code = blank(text);
  const start = /\bdefineFilter\s*(?:<[^(]*>)?\s*\(\s*(?=\{)/.exec(code);
  if (start === null) return false;
  let depth = 0;
  for (let at = start.index + start[0].length; at < code.length; at++) {
    const char = code[at]!;
    if ("([{".includes(char)) depth++;
    else if (")]}".includes(char) && --depth === 0) return false;
    if (depth === 1 && /[{,]/.test(char) && /^\s*options\s*[:,}]/.test(code.slice(at + 1, at + 200))) return true;
  }
  return false;
}

/** Which are left out is for the filter to say; those that are given have a type. */
function optionLines(module: string, options: Record<string, unknown>, placeOf: (name: string) => Place): Use["lines"] {
  const type = `typeof ${module} extends { start?(options: infer O, ...rest: any[]): any } ? O : unknown`;
  return [
    { text: `const ${module}Options: Partial<${type}> = {`, place: null },
    ...Object.entries(options).map(([name, value]) => ({
      text: `${JSON.stringify(name)}: ${literal(value)},`,
      place: placeOf(name),
    })),
    { text: `};`, place: null },
  ];
}

function literal(value: unknown): string {
  if (value instanceof Date) return "new Date()";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object" && value !== null) {
    const members = Object.entries(value).map(([name, member]) => `${JSON.stringify(name)}: ${literal(member)}`);
    return `{ ${members.join(", ")} }`;
  }
  if (typeof value === "number" && !Number.isFinite(value)) return "Infinity";
  return JSON.stringify(value);
}
