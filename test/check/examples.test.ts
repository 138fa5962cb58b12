/** Every export of "pmilter" has an example in its comment: editors show it. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import ts from "typescript";

setDefaultTimeout(300_000);

const INDEX = join(import.meta.dir, "../../src/index.ts");

test("every export of pmilter has an @example", () => {
  const program = ts.createProgram([INDEX], {
    target: ts.ScriptTarget.ESNext,
    module: ts.ModuleKind.Preserve,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib: ["lib.esnext.d.ts"],
    types: ["bun"],
    allowImportingTsExtensions: true,
    noEmit: true,
  });
  const checker = program.getTypeChecker();
  const names = checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(INDEX)!)!);
  expect(names.length).toBeGreaterThan(40);
  const without = names.filter((name) => {
    const declared = name.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(name) : name;
    return !declared.getJsDocTags(checker).some((tag) => tag.name === "example");
  });
  expect(without.map(({ name }) => name)).toEqual([]);
});
