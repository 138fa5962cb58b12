/** attachments: what two programs by others open does not pass the strict options. */
import { expect, setDefaultTimeout, spyOn, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { allEvasions, KINDS } from "./evasions/all.ts";
import { answersTo, STRICT } from "./evasions/answers.ts";
import { programsThatOpen, TOOLS } from "./evasions/opened.ts";

setDefaultTimeout(600_000);

describeWith(TOOLS, "evasions", () => {
  test("none that two programs open passes the strict options", async () => {
    using _ = spyOn(console, "log").mockImplementation(() => {});
    const all = allEvasions();
    const programs = await programsThatOpen(all);
    const answers = await answersTo(all, STRICT);
    const opened = all.filter((evasion) => programs.get(evasion)!.length >= 2);
    const passing = opened.filter((evasion) => answers.get(evasion) === "");
    expect(passing.map(({ kind, name }) => `${kind}: ${name}`)).toEqual([]);
    // The programs do open evasions of each kind.
    for (const kind of KINDS) expect(opened.filter((evasion) => evasion.kind === kind).length).toBeGreaterThan(30);
  });
});
