/** attachments: messages that hide a file from the filter and not from the programs that open it. */
import { beforeAll, expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { join } from "node:path";
import { cells } from "../support/markdown.ts";
import { ROOT } from "../support/pmilter.ts";
import { allEvasions, type Evasion, KINDS } from "./evasions/all.ts";
import { answersTo, STRICT } from "./evasions/answers.ts";

setDefaultTimeout(120_000);

const ALL = allEvasions();
let defaults: ReadonlyMap<Evasion, string>;
let strict: ReadonlyMap<Evasion, string>;

beforeAll(async () => {
  using _ = spyOn(console, "log").mockImplementation(() => {});
  defaults = await answersTo(ALL);
  strict = await answersTo(ALL, STRICT);
});

test("there are at least 500 evasions, each once, the same ones each time", () => {
  expect(ALL.length).toBeGreaterThanOrEqual(500);
  expect(new Set(ALL.map(({ kind }) => kind))).toEqual(new Set(KINDS));
  expect(new Set(ALL.map(({ kind, name }) => `${kind}: ${name}`)).size).toBe(ALL.length);
  expect(allEvasions()).toEqual(ALL);
});

test("the page tells how many of each kind are refused", async () => {
  const rows = KINDS.map((kind) => {
    const own = ALL.filter((evasion) => evasion.kind === kind);
    const refused = [defaults, strict].map((answers) => own.filter((evasion) => answers.get(evasion) !== "").length);
    return [kind, own.length, ...refused].map(String);
  });
  const page = await Bun.file(join(ROOT, "docs/handlers/attachments.md")).text();
  const shown = cells(page).filter(([kind = ""]) => (KINDS as readonly string[]).includes(kind));
  expect(shown.map((row) => row.slice(0, 4))).toEqual(rows);
});

test("what the defaults refuse the strict options refuse as well", () => {
  const odd = ALL.filter((evasion) => defaults.get(evasion) !== "" && strict.get(evasion) === "");
  expect(odd.map(({ kind, name }) => `${kind}: ${name}`)).toEqual([]);
});
