/** The declarations that `pmilter types` writes and `pmilter check` reads are those that the compiler makes of the sources. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { DECLARATION_FILE, declarations, OPTION_DECLARATION_FILE, optionDeclarations } from "./declarations.ts";

setDefaultTimeout(300_000);

test("src/check/pmilter.d.txt is what `bun run declarations` writes", async () => {
  expect(await Bun.file(DECLARATION_FILE).text()).toBe(await declarations());
});

test("src/check/options.d.txt is what `bun run declarations` writes", async () => {
  expect(await Bun.file(OPTION_DECLARATION_FILE).text()).toBe(await optionDeclarations());
});
