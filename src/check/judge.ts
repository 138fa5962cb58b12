/** All that is found in the handlers of a configuration without running them. */
import { type Config, entryFiles } from "../config/config.ts";
import type { Sources } from "../worker/sources.ts";
import { callProblems, uncollectedBody } from "./calls.ts";
import { inOrder, type Problem } from "./problem.ts";
import { checkTypes } from "./types.ts";

export interface Judgement {
  readonly problems: readonly Problem[];
  /** What there is to say besides: a tsconfig.json that the checker does not take, say. */
  readonly remarks: readonly string[];
}

/**
 * @param options whether types are judged, which takes a process; a signal that ends that
 * @throws Error if it cannot be run
 */
export async function judgeHandlers(
  config: Config,
  sources: Sources,
  { types, signal }: { readonly types: boolean; readonly signal?: AbortSignal },
): Promise<Judgement> {
  const entries = new Set(entryFiles(config).map((file) => sources.targets.get(file)));
  const calls = [
    ...callProblems(sources.files),
    ...sources.files.filter(({ path }) => entries.has(path)).flatMap(uncollectedBody),
  ];
  const judged = types ? await checkTypes(config, sources, signal) : { problems: [], remarks: [] };
  return { problems: inOrder([...calls, ...judged.problems]), remarks: judged.remarks };
}
