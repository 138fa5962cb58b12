/**
 * The types of TypeScript handlers, judged by Bun's own checker in a process of its own. It gets a folder with the
 * declarations of pmilter, Bun and Node, and a file that assigns each handler to the type of its use in the
 * configuration. JavaScript is not judged. The nearest tsconfig.json above a handler rules for it, where there is one.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { constants, setPriority } from "node:os";
import { dirname, join, resolve } from "node:path";
import { IS_COMPILED } from "../compiled.ts";
import type { Config } from "../config/config.ts";
import { isTypeScript, type Sources } from "../load/sources.ts";
import { readText } from "../load/files.ts";
import API_TYPES from "./pmilter.d.txt" with { type: "text" };
import { installedBunTypes, type TypeFiles, unpackBunTypes } from "./bun-types.ts";
import { optionTypes } from "./option-types.ts";
import { type Phase, PHASE_LIST } from "../protocol/phases.ts";
import type { Problem } from "./problem.ts";
import { type Place, type Use, usesOf } from "./uses.ts";

/** How long the checker may take. */
const TIMEOUT_MS = 120_000;

/** Ordinary JavaScript with types here and there passes; mistakes that would show at run time should not. */
const OPTIONS = {
  target: "ESNext",
  lib: ["ESNext"],
  module: "Preserve",
  moduleResolution: "bundler",
  resolveJsonModule: true,
  allowSyntheticDefaultImports: true,
  strict: true,
  noImplicitThis: false,
  strictPropertyInitialization: false,
  useUnknownInCatchVariables: false,
} as const;

/**
 * Errors that are no mistakes by themselves: a missing type is `any` (TS7…; without these an empty list would be a list
 * of `never`), and a value that is `unknown`, such as an option or the JSON of an answer, may have any type at run
 * time. The exception is a collection that is indexed, with `get` in the hint: that is a mistake.
 */
const ALLOWED = /^TS70(?!52)\d\d:|^[^\n]*'unknown'/;

/** Options that the check needs, in place of those of a tsconfig.json. */
const OWN_OPTIONS = {
  noEmit: true,
  allowImportingTsExtensions: true,
  allowJs: true,
  checkJs: false,
  skipLibCheck: true,
  composite: false,
  incremental: false,
  declaration: false,
  declarationMap: false,
  emitDeclarationOnly: false,
  tsBuildInfoFile: null,
} as const;

export interface TypeReport {
  readonly problems: readonly Problem[];
  /** Other messages of the checker, such as on a tsconfig.json. */
  readonly remarks: readonly string[];
}

/**
 * @param folder empty, for the checker's input; to be removed afterwards
 * @throws Error if the checker cannot be run
 */
export async function checkTypes(config: Config, sources: Sources, folder: string): Promise<TypeReport> {
  const uses = usesOf(config, sources);
  if (uses.length === 0) return { problems: [], remarks: [] };
  await writeTypes(folder, usesOptions(sources));
  const judged = new Set(sources.files.filter(({ path }) => isTypeScript(path)).map(({ path }) => path));
  const problems: Problem[] = [];
  const remarks: string[] = [];
  for (const [tsconfig, group] of Map.groupBy(uses, ({ path }) => nearestTsconfig(dirname(path)))) {
    const uses = new UseFile(group);
    writeFileSync(join(folder, "uses.ts"), uses.text);
    writeFileSync(join(folder, "tsconfig.json"), JSON.stringify(projectOf(folder, tsconfig, group)));
    for (const found of await run(folder)) {
      if (tsconfig === null && ALLOWED.test(found.text)) continue;
      if (found.file === join(folder, "uses.ts")) problems.push(...uses.placed(found));
      else if (judged.has(found.file)) problems.push(found);
      else if (found.file === join(folder, "tsconfig.json")) remarks.push(`${tsconfig ?? "types"}: ${found.text}`);
      else if (/\/tsconfig[^/]*\.json$/.test(found.file)) remarks.push(`${found.file}: ${found.text}`);
    }
  }
  return { problems: distinct(problems), remarks };
}

async function bunTypes(): Promise<TypeFiles> {
  if (!IS_COMPILED) return installedBunTypes();
  const { PACKED_BUN_TYPES } = await import("./packed-types.ts");
  return unpackBunTypes(PACKED_BUN_TYPES);
}

/** The declarations of "pmilter/options" are large: the checker gets them only for handlers that import it. */
function usesOptions({ files }: Sources): boolean {
  return files.some(({ text }) => /["']pmilter\/options["']/.test(text));
}

async function writeTypes(folder: string, withOptions: boolean): Promise<void> {
  for (const [path, text] of Object.entries(await bunTypes())) {
    const file = join(folder, "node_modules", path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
  writeFileSync(join(folder, "pmilter.d.ts"), API_TYPES);
  writeFileSync(join(folder, "pmilter-options.d.ts"), withOptions ? await optionTypes() : "");
}

/** The file that holds each handler against its use: see `Use`. */
class UseFile {
  readonly text: string;
  /** Where each line belongs. */
  readonly #places: (Place | null)[] = [];

  constructor(uses: readonly Use[]) {
    const lines: string[] = [];
    for (const { lines: own } of uses) {
      for (const { text, place } of own) {
        lines.push(text);
        this.#places.push(place);
      }
    }
    this.text = `${lines.join("\n")}\n`;
  }

  /** An error of this file, where it belongs. */
  placed({ line, text }: Problem): Problem[] {
    const place = this.#places[line - 1] ?? null;
    if (place === null) return [];
    const { prefix = "", ...where } = place;
    return [{ ...where, text: `${prefix}${text}` }];
  }
}

function projectOf(folder: string, tsconfig: string | null, uses: readonly Use[]): object {
  const types = { typeRoots: [join(folder, "node_modules", "@types")], types: ["bun"] };
  const ours = ["pmilter.d.ts", "pmilter-options.d.ts", "uses.ts"].map((name) => join(folder, name));
  const files = [...new Set(uses.map(({ path }) => path)), ...ours];
  if (tsconfig === null) return { compilerOptions: { ...OPTIONS, ...OWN_OPTIONS, ...types }, files };
  const theirs = dirname(tsconfig);
  const { types: named = [], typeRoots } = compilerOptionsOf(tsconfig);
  return {
    extends: tsconfig,
    compilerOptions: {
      ...OWN_OPTIONS,
      types: [...new Set([...named, "bun"])],
      typeRoots: [...(typeRoots ?? [join(theirs, "node_modules", "@types")]), ...types.typeRoots],
    },
    files,
    // Their global declarations, but not the modules of `pmilter types`: those of this version are among the files.
    include: [join(theirs, "**/*.d.ts")],
    exclude: [join(theirs, "**/pmilter.d.ts"), join(theirs, "**/node_modules"), join(theirs, "dist")],
  };
}

function nearestTsconfig(folder: string): string | null {
  const file = join(folder, "tsconfig.json");
  if (readText(file) !== null) return file;
  const above = dirname(folder);
  return above === folder ? null : nearestTsconfig(above);
}

/** The options on types of a tsconfig.json itself. */
function compilerOptionsOf(tsconfig: string): { types?: string[]; typeRoots?: string[] } {
  let config: unknown;
  try {
    config = Bun.JSONC.parse(readText(tsconfig) ?? "");
  } catch {
    // The checker says so.
    return {};
  }
  const options = (config as { compilerOptions?: { types?: unknown; typeRoots?: unknown } } | null)?.compilerOptions;
  const strings = (value: unknown) =>
    Array.isArray(value) ? value.filter((each): each is string => typeof each === "string") : undefined;
  const [types, typeRoots] = [strings(options?.types), strings(options?.typeRoots)];
  return {
    ...(types === undefined ? {} : { types }),
    ...(typeRoots === undefined ? {} : { typeRoots: typeRoots.map((root) => resolve(dirname(tsconfig), root)) }),
  };
}

async function run(folder: string): Promise<Problem[]> {
  const args = ["check", "--no-script", "--no-pretty", "--all", "--threads=1", "-p", join(folder, "tsconfig.json")];
  const child = Bun.spawn([process.execPath, ...args], {
    cwd: folder,
    env: { BUN_BE_BUN: "1", HOME: folder, TMPDIR: folder, NO_COLOR: "1" },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    timeout: TIMEOUT_MS,
  });
  giveWay(child.pid);
  const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  const problems = parseErrors(stdout, folder);
  for (const problem of problems) problem.text = inPlainWords(problem.text);
  if (exitCode === 0 || problems.length > 0) return problems;
  const reason = child.signalCode ?? (stderr.trim().split("\n")[0] || `exit code ${exitCode}`);
  throw new Error(`the types could not be checked: ${reason}`);
}

/** It may run beside a server: mail comes first. */
function giveWay(pid: number): void {
  try {
    setPriority(pid, constants.priority.PRIORITY_LOW);
  } catch {
    // It has ended already, or may not be made slower here: it is checked all the same.
  }
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** `file(line,column): error TS1234: text`, with further lines that are indented. */
function parseErrors(output: string, folder: string): Mutable<Problem>[] {
  const problems: Mutable<Problem>[] = [];
  for (const line of output.split("\n")) {
    const match = /^(?:(.+?)\((\d+),(\d+)\): )?error (TS\d+: .*)$/.exec(line);
    if (match !== null) {
      const [, file, row, column, text = ""] = match;
      problems.push({
        file: resolve(folder, file ?? "tsconfig.json"),
        line: Number(row ?? 0),
        column: Number(column ?? 0),
        text,
      });
    } else if (/^\s+\S/.test(line) && problems.length > 0) problems.at(-1)!.text += `\n${line}`;
  }
  return problems;
}

/** Types are inferred in the order of the source; TypeScript does not say so. */
const OWN_UNKNOWN = /^(TS\d+): '([\w$.]*\bown)' is of type 'unknown'/;

/** A member that a session or message does not have in this phase, by the names of their types. */
const NOT_HERE = /Property '(\w+)' does not exist on type '(Everywhere<|From\w+[<&' ])/;

/** The first phase with each member of a session, and of its message. */
const FROM: Readonly<Record<"session" | "message", Readonly<Record<string, Phase>>>> = {
  session: { helo: "helo", tls: "helo", auth: "envfrom", message: "envfrom" },
  message: { headers: "header", rawHeaders: "eoh", raw: "eom", body: "eom", mime: "eom", receivedAt: "eom" },
};

/** With the first phase that has a missing member; as it is for a member that no phase has. */
function withPhase(text: string): string {
  const [, member = "", type = ""] = NOT_HERE.exec(text) ?? [];
  const object = type.startsWith("Everywhere") ? "session" : "message";
  if (!Object.hasOwn(FROM[object], member)) return text;
  const short = text.replace(/\.(?: Did you mean '\w+'\?)?$/, "");
  return `${short}; ${object}.${member} is there from ${FROM[object][member]} on`;
}

/**
 * The same in fewer words where a verdict is the matter, with its cause where `session.own` has no type, and with the
 * first phase that has a member.
 */
function inPlainWords(text: string): string {
  const [, code, own] = OWN_UNKNOWN.exec(text) ?? [];
  if (own !== undefined) {
    return `${code}: ${own} has no type here: write start() before the handlers that use it, or give the type of its result to defineFilter, as the third`;
  }
  const kind = /Type 'Verdict<"(\w+)">' is not assignable to type/.exec(text)?.[1];
  const name = /Result<"(\w+)">/.exec(text)?.[1];
  const phase = PHASE_LIST.find((each) => each.name === name);
  const verdicts: readonly string[] = phase?.verdicts ?? [];
  if (kind === undefined || phase === undefined || verdicts.includes(kind)) return withPhase(text);
  const has = verdicts.join(", ") || "none";
  return `${text.slice(0, text.indexOf(":"))}: ${kind}() is no verdict of phase ${phase.name}; it has ${has}`;
}

/** Two handlers that import the same file bring its errors twice. */
function distinct(problems: readonly Problem[]): Problem[] {
  return [...new Map(problems.map((each) => [JSON.stringify(each), each])).values()];
}
