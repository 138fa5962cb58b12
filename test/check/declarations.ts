/**
 * The declarations of the module "pmilter", as the compiler makes them: what `src/index.ts` exports and what that needs, with
 * the doc comments, in one block `declare module "pmilter"`. `bun run declarations` writes them to `src/check/pmilter.d.txt`,
 * which `pmilter types` and `pmilter check` use, and what "pmilter/options" adds to valibot to `src/check/options.d.txt`; a
 * test compares them.
 *
 * TypeScript emits a declaration file for each source. Of those, the declarations that are reachable from the exports are
 * taken over: the compiler says which declaration a name refers to.
 */
import { join } from "node:path";
import ts from "typescript";

const SRC = join(import.meta.dir, "..", "..", "src");
const INDEX = join(SRC, "index.ts");
export const DECLARATION_FILE = join(SRC, "check", "pmilter.d.txt");
const OPTIONS_INDEX = join(SRC, "options", "index.ts");
export const OPTION_DECLARATION_FILE = join(SRC, "check", "options.d.txt");

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ESNext,
  module: ts.ModuleKind.Preserve,
  moduleResolution: ts.ModuleResolutionKind.Bundler,
  lib: ["lib.esnext.d.ts"],
  types: ["bun"],
  strict: true,
  exactOptionalPropertyTypes: true,
  allowImportingTsExtensions: true,
  declaration: true,
  emitDeclarationOnly: true,
  skipLibCheck: true,
};

/** The text of `declare module "pmilter" { … }`. */
export async function declarations(): Promise<string> {
  const emitted = emitDeclarations(INDEX);
  const program = programOf(emitted);
  const checker = program.getTypeChecker();
  const index = program.getSourceFile(declarationOf(INDEX))!;
  const exported = new Set<ts.Declaration>();
  const written = new Set<ts.Declaration>();
  for (const symbol of checker.getExportsOfModule(checker.getSymbolAtLocation(index)!)) {
    for (const declaration of declarationsOf(symbol, checker)) {
      exported.add(declaration);
      collect(declaration, checker, emitted, written);
    }
  }
  const parts = [...written].map((declaration) => textOf(declaration, exported.has(declaration)));
  parts.push("// What does not say export is not exported.\nexport {};");
  const [doc = ""] = docsOf(index);
  return format(`${doc}declare module "pmilter" {\n${parts.join("\n\n")}\n}\n`);
}

/** What `src/options/index.ts` declares besides valibot, in the place of valibot's own declarations: without its prefix. */
export async function optionDeclarations(): Promise<string> {
  const path = declarationOf(OPTIONS_INDEX);
  const file = ts.createSourceFile(path, emitDeclarations(OPTIONS_INDEX).get(path)!, ts.ScriptTarget.ESNext, true);
  const parts = file.statements
    .filter((statement) => ts.isFunctionDeclaration(statement))
    .map((statement) => textOf(statement, true).replace(/\bv\./g, ""));
  return format(`${parts.join("\n\n")}\n`);
}

/** The declaration files of a source and what it imports, by path. */
function emitDeclarations(source: string): ReadonlyMap<string, string> {
  const emitted = new Map<string, string>();
  const program = ts.createProgram([source], OPTIONS);
  const { diagnostics } = program.emit(undefined, (path, text) => emitted.set(path, text));
  if (diagnostics.length > 0) throw new Error(ts.formatDiagnostics(diagnostics, ts.createCompilerHost(OPTIONS)));
  return emitted;
}

/** The declaration files, read by the compiler in the place of their sources. */
function programOf(emitted: ReadonlyMap<string, string>): ts.Program {
  const host = ts.createCompilerHost(OPTIONS);
  const { fileExists, getSourceFile, readFile } = host;
  host.fileExists = (path) => emitted.has(path) || (!emitted.has(declarationOf(path)) && fileExists(path));
  host.readFile = (path) => emitted.get(path) ?? readFile(path);
  host.getSourceFile = (path, target, ...rest) => {
    const text = emitted.get(path);
    return text === undefined ? getSourceFile(path, target, ...rest) : ts.createSourceFile(path, text, target, true);
  };
  // Only names of these files are looked up: it needs no library.
  return ts.createProgram([declarationOf(INDEX)], { ...OPTIONS, noLib: true, types: [] }, host);
}

function declarationOf(source: string): string {
  return source.replace(/(?<!\.d)\.ts$/, ".d.ts");
}

/** What a name stands for, wherever it was imported from or exported again. */
function declarationsOf(symbol: ts.Symbol, checker: ts.TypeChecker): readonly ts.Declaration[] {
  const isAlias = (symbol.flags & ts.SymbolFlags.Alias) !== 0;
  return (isAlias ? checker.getAliasedSymbol(symbol) : symbol).declarations ?? [];
}

/** Adds a declaration and, behind it, what it refers to. */
function collect(
  declaration: ts.Declaration,
  checker: ts.TypeChecker,
  emitted: ReadonlyMap<string, string>,
  written: Set<ts.Declaration>,
): void {
  const statement = statementOf(declaration);
  if (statement === null || !emitted.has(declaration.getSourceFile().fileName) || written.has(declaration)) return;
  written.add(declaration);
  const visit = (node: ts.Node): void => {
    if (ts.isIdentifier(node)) {
      const symbol = checker.getSymbolAtLocation(node);
      for (const named of symbol === undefined ? [] : declarationsOf(symbol, checker)) {
        collect(named, checker, emitted, written);
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(statement);
}

/** The statement of a declaration at the top level of its file; null for a member, a parameter and the like. */
function statementOf(declaration: ts.Declaration): ts.Statement | null {
  const node = ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration;
  return ts.isSourceFile(node.parent) && ts.isStatement(node) ? node : null;
}

/** A declaration as it stands in `declare module`: with its doc comment, and with no modifier but perhaps `export`. */
function textOf(declaration: ts.Declaration, isExported: boolean): string {
  const statement = statementOf(declaration)!;
  const { text } = statement.getSourceFile();
  const doc = docsOf(statement).at(-1) ?? "";
  const modifiers = ts.canHaveModifiers(statement) ? (ts.getModifiers(statement) ?? []) : [];
  const code = text.slice(modifiers.at(-1)?.end ?? statement.getStart(), statement.end).trimStart();
  return `${doc}${isExported ? "export " : ""}${code}`;
}

/** The doc comments in front of a statement, or of the first one of a file, each with its line end. */
function docsOf(node: ts.Statement | ts.SourceFile): string[] {
  const { text } = node.getSourceFile();
  return (ts.getLeadingCommentRanges(text, node.getFullStart()) ?? [])
    .map(({ end, pos }) => `${text.slice(pos, end)}\n`)
    .filter((comment) => comment.startsWith("/**"));
}

/** With the formatter of the sources. */
async function format(text: string): Promise<string> {
  const child = Bun.spawn([process.execPath, "fmt", "--no-script", "--stdin-filepath", "pmilter.d.ts"], {
    stdin: Buffer.from(text),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [formatted, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  if (exitCode !== 0) throw new Error(`the declarations cannot be formatted: ${stderr}`);
  return formatted;
}

if (import.meta.main) {
  await Bun.write(DECLARATION_FILE, await declarations());
  await Bun.write(OPTION_DECLARATION_FILE, await optionDeclarations());
}
