/**
 * Prints the evasions that pass: by kind, those that two programs open and the strict options let pass, and with `--all`
 * also those that the defaults let pass, and those that no two programs open. `bun test/shipped/evasions/report.ts [--all]`.
 */
import { allEvasions, KINDS } from "./all.ts";
import { answersTo, STRICT } from "./answers.ts";
import { programsThatOpen, TOOLS } from "./opened.ts";

const missing = TOOLS.filter(({ available }) => !available);
if (missing.length > 0) {
  console.error(missing.map(({ reason }) => reason).join("\n"));
  process.exit(1);
}
const { log } = console;
// The filter logs each finding.
console.log = () => {};
const all = allEvasions();
const defaults = await answersTo(all);
const strict = await answersTo(all, STRICT);
const programs = await programsThatOpen(all);
console.log = log;
for (const kind of KINDS) {
  const own = all.filter((evasion) => evasion.kind === kind);
  const opened = own.filter((evasion) => programs.get(evasion)!.length >= 2);
  const count = (answers: typeof strict) => own.filter((evasion) => answers.get(evasion) !== "").length;
  console.log(
    `${kind}: ${own.length}, opened by two ${opened.length}, refused ${count(defaults)}, strictly ${count(strict)}`,
  );
  for (const evasion of own) {
    const isOpened = opened.includes(evasion);
    const answer = strict.get(evasion)!;
    const by = programs.get(evasion)!.join(", ");
    if (isOpened && answer === "") console.log(`  PASSES ${evasion.name} | ${by}`);
    else if (!process.argv.includes("--all")) continue;
    else if (isOpened && defaults.get(evasion) === "") console.log(`  by default ${evasion.name} | ${by} | ${answer}`);
    else if (!isOpened && answer === "") console.log(`  unopened ${evasion.name} | ${by}`);
  }
}
process.exit(0);
