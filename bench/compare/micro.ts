/**
 * The microbenchmarks of the working tree on the code of two trees. They know the internals that they measure, so one may
 * not run on the other tree's: then each tree runs its own of that name, and the comparison says so.
 */
import { existsSync } from "node:fs";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import type { CaseResult, Mode } from "../micro/cases.ts";
import { FILES, runFile } from "../micro/suite.ts";
import { ROOT } from "../support/machine.ts";
import { interleave, type Plan } from "../support/suite.ts";
import type { Compared, Figure } from "./verdict.ts";

/** Beside `bench` in the other tree, so that all paths from it lead where they lead here. */
const BORROWED = "bench-of-the-working-tree";

type Key = keyof typeof FIGURES;

/**
 * The compared figures, and the run of a file that gives each. For times the lower quartile counts: other programs only ever
 * add to a time. Bytes come from resident memory, which grows by pages: some tens of bytes a unit are noise.
 */
const FIGURES = {
  nsP25: { unit: "ns", kind: "speed", resolution: 0, mode: ({ isQuick }: Plan): Mode => (isQuick ? "quick" : "time") },
  bytes: { unit: "bytes", kind: "amount", resolution: 32, mode: (): Mode => "memory" },
} as const;

/** A file of microbenchmarks, and the folder of the other tree that it is taken from. */
interface Pair {
  readonly file: string;
  readonly folder: string;
}

export async function compareMicro(plan: Plan, root: string): Promise<Compared> {
  await cp(join(ROOT, "bench"), join(root, BORROWED), { recursive: true });
  const { pairs, notes } = await pairUp(plan, root);
  const keys: readonly Key[] = plan.isQuick ? ["nsP25"] : ["nsP25", "bytes"];
  const jobs = pairs.flatMap((pair) =>
    keys.flatMap((key) => (["here", "there"] as const).map((tree) => ({ tree, pair, key }))),
  );
  const results = await interleave(plan, jobs, async ({ tree, pair: { file, folder }, key }, round) => {
    const place = tree === "here" ? { root: ROOT, folder: "bench" } : { root, folder };
    const { results } = await runFile(place, file, FIGURES[key].mode(plan), plan.signal);
    plan.note(`micro ${round + 1}/${plan.rounds} ${file}, ${FIGURES[key].unit}, ${tree}`);
    return results;
  });
  const of = (tree: "here" | "there", pair: Pair, key: Key) =>
    results.get(jobs.find((job) => job.tree === tree && job.pair === pair && job.key === key)!)!;
  const figures = pairs.flatMap((pair) =>
    keys.flatMap((key) => figuresOf(key, of("here", pair, key), of("there", pair, key), notes)),
  );
  return { figures, notes };
}

/** Finds out which file runs on the other tree: ours, else its own, else none. */
async function pairUp(plan: Plan, root: string): Promise<{ pairs: readonly Pair[]; notes: string[] }> {
  const pairs: Pair[] = [];
  const notes: string[] = [];
  for (const file of FILES) {
    try {
      await runFile({ root, folder: BORROWED }, file, "quick", plan.signal);
      pairs.push({ file, folder: BORROWED });
    } catch {
      plan.signal.throwIfAborted();
      const hasOwn = existsSync(join(root, "bench", "micro", file));
      if (hasOwn) pairs.push({ file, folder: "bench" });
      notes.push(`${file} does not run on the other revision: ${hasOwn ? "each runs its own" : "not compared"}`);
    }
  }
  return { pairs, notes };
}

type Rounds = readonly (readonly CaseResult[])[];

function figuresOf(key: Key, here: Rounds, there: Rounds, notes: string[]): readonly Figure[] {
  const figures: Figure[] = [];
  const { unit, kind, resolution } = FIGURES[key];
  for (const name of new Set([...here, ...there].flatMap((results) => results.map((result) => result.name)))) {
    // Another revision may have given its figures another form.
    const of = (rounds: Rounds) =>
      rounds.flatMap((results) => results.filter((result) => result.name === name && Number.isFinite(result[key])));
    const [ours, theirs] = [of(here), of(there)];
    if (ours.length !== theirs.length) {
      notes.push(`${name}, ${unit}: only in ${ours.length === 0 ? "the other revision" : "the working tree"}`);
      continue;
    }
    figures.push({
      name: `${name}, ${unit}/${ours[0]!.unit}`,
      kind,
      resolution,
      better: "less",
      here: ours.map((result) => result[key]),
      there: theirs.map((result) => result[key]),
    });
  }
  return figures;
}
