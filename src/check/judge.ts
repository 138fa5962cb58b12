/** All that is found in the handlers of a configuration without running them. */
import { type Config, entryFiles } from "../config/config.ts";
import type { Sources } from "../load/sources.ts";
import { callProblems, uncollectedBody } from "./calls.ts";
import { inOrder, type Problem } from "./problem.ts";
import { checkTypes } from "./types.ts";

export interface Judgement {
  readonly problems: readonly Problem[];
  /** Remarks that refuse nothing, such as a tsconfig.json that the checker does not take. */
  readonly remarks: readonly string[];
}

/**
 * @param folder for the type checker's input; null if types are not judged
 * @throws Error if the checker cannot be run
 */
export async function judgeHandlers(config: Config, sources: Sources, folder: string | null): Promise<Judgement> {
  const entries = new Set(entryFiles(config).map((file) => sources.targets.get(file)));
  const calls = [
    ...callProblems(sources.files),
    ...sources.files.filter(({ path }) => entries.has(path)).flatMap(uncollectedBody),
  ];
  const types = folder === null ? { problems: [], remarks: [] } : await checkTypes(config, sources, folder);
  return { problems: inOrder([...calls, ...types.problems]), remarks: types.remarks };
}
