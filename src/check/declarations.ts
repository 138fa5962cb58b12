/**
 * The declarations of the module "pmilter" for editors, made from the sources behind `index.ts`: what it exports and
 * what that needs, with the doc comments. It is called as a macro, when `api-types.ts` is bundled or transpiled: the binary
 * holds the text, and reads no source.
 *
 * It leans on the formatter: a declaration begins at the left edge, and each of its further lines is indented or begins
 * with a bracket. What it does not know is an error, so that it comes up in a build and not in an editor.
 */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { USAGE_ERRORS } from "../handler/errors.ts";
import { PHASE_LIST } from "../protocol/phases.ts";

const INDEX = join(import.meta.dirname, "..", "index.ts");

/** Tables that types are derived from; in a declaration there are only types, so these are written from the values. */
const TABLES: Readonly<Record<string, object>> = {
  PHASES: Object.fromEntries(PHASE_LIST.map(({ name, verdicts }) => [name, { verdicts }])),
  USAGE_ERRORS,
};

interface Declaration {
  /** The doc comment with its line end, or nothing. */
  readonly doc: string;
  readonly code: string;
}

interface Source {
  readonly text: string;
  /** What stands at the top level, by name. */
  readonly declarations: ReadonlyMap<string, Declaration>;
  /** The files that imported and re-exported names come from. */
  readonly origins: ReadonlyMap<string, string>;
}

/** The text of `declare module "pmilter" { … }`. */
export function declarations(): string {
  const index = readSource(INDEX);
  const written = new Map<string, Declaration>();
  for (const name of index.origins.keys()) collect(INDEX, name, written);
  const parts = [...written].map(([name, { doc, code }]) => `${doc}${index.origins.has(name) ? "export " : ""}${code}`);
  parts.push("// What does not say export is not exported.\nexport {};");
  const body = parts.join("\n\n").replace(/^(?=.)/gm, "  ");
  return `${docOf(index.text)}declare module "pmilter" {\n${body}\n}\n`;
}

/** Adds the declaration of a name and, behind it, what it refers to. */
function collect(file: string, name: string, written: Map<string, Declaration>): void {
  if (written.has(name)) return;
  const { declarations, origins } = readSource(file);
  const origin = origins.get(name);
  if (origin !== undefined) return collect(origin, name, written);
  const source = declarations.get(name);
  if (source === undefined) throw new Error(`${file}: no declaration of ${name} in a form that pmilter types knows`);
  const table = TABLES[name];
  const code = table === undefined ? ambient(source.code) : `const ${name}: ${literalType(table)};`;
  if (/^const \w+ =/.test(code)) throw new Error(`${file}: ${name} is a value: add it to the tables of pmilter types`);
  written.set(name, { doc: source.doc, code });
  if (table !== undefined) return;
  for (const [word] of withoutComments(code).matchAll(/\w+/g)) {
    if (declarations.has(word) || origins.has(word)) collect(file, word, written);
  }
}

/** Code as it stands in `declare module`: without bodies. */
function ambient(code: string): string {
  return code
    .replace(/^(function [^]*?) \{$[^]*/m, "$1;")
    .replace(/^( {2}\w.*\)) \{\n(?: {4}.*\n)* {2}\}$/gm, "$1;")
    .replace(/^( +)override /gm, "$1");
}

/** `{ a: ["b"] }` as `{ readonly a: readonly ["b"] }`. */
function literalType(value: unknown, indent = ""): string {
  if (Array.isArray(value)) return `readonly [${value.map((member) => literalType(member)).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const members = Object.entries(value).map(
    ([key, member]) => `${indent}  readonly ${key}: ${literalType(member, `${indent}  `)};\n`,
  );
  return `{\n${members.join("")}${indent}}`;
}

const sources = new Map<string, Source>();

function readSource(file: string): Source {
  let source = sources.get(file);
  if (source === undefined) {
    const text = readFileSync(file, "utf8");
    source = { text, declarations: findDeclarations(text), origins: findOrigins(file, text) };
    sources.set(file, source);
  }
  return source;
}

function findDeclarations(text: string): Map<string, Declaration> {
  const pattern =
    /^(\/\*\*(?:(?!\*\/)[^])*\*\/\n)?(?:export )?(?:declare )?((?:interface|type|class|function|const) (\w+).*(?:\n(?:[ )}\]].*|(?=\n)))*)/gm;
  const found = new Map<string, Declaration>();
  for (const [, doc = "", code, name] of text.matchAll(pattern)) found.set(name!, { doc, code: code!.trimEnd() });
  return found;
}

function findOrigins(file: string, text: string): Map<string, string> {
  const origins = new Map<string, string>();
  for (const [, names, path] of text.matchAll(/^(?:import|export) (?:type )?\{([^}]*)\} from "(\..*)";$/gm)) {
    for (const name of names!.matchAll(/(?:type )?(\w+),?/g)) origins.set(name[1]!, join(dirname(file), path!));
  }
  return origins;
}

/** The doc comment that a file opens with. */
function docOf(text: string): string {
  return /^\/\*\*(?:(?!\*\/)[^])*\*\/\n/.exec(text)?.[0] ?? "";
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[^]*?\*\/|\/\/.*/g, "");
}
