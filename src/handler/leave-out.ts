/** What a filter leaves out, by its options and conditions: handlers, and the body. What is left out costs nothing. */
import { type Phase, PHASE_NAMES } from "../protocol/phases.ts";
import { tooEarly, type When } from "./conditions.ts";
import type { LoadedFilter } from "./filter.ts";
import { kindOf, wrongModule } from "./module-errors.ts";

const COLLECT_BODY = "collectBody";

/**
 * The filter without what its `leaveOut` names.
 * @param options as its schema gives them
 * @throws UsageError PMILTER_ERR_MODULE for a result that is no such list; what `leaveOut` throws
 */
export function fitted(loaded: LoadedFilter, options: unknown, when: When | null): LoadedFilter {
  if (loaded.leaveOut === null) return loaded;
  const isTooEarly = (phase: Phase): boolean => when !== null && tooEarly([phase], when) !== null;
  const left: unknown = loaded.leaveOut.call(loaded.self, options, isTooEarly);
  if (!Array.isArray(left)) return wrong(kindOf(left));
  const unknown = left.find((name) => name !== COLLECT_BODY && !PHASE_NAMES.includes(name as Phase)) as unknown;
  if (unknown !== undefined) return wrong(typeof unknown === "string" ? JSON.stringify(unknown) : kindOf(unknown));
  const handlers = Object.fromEntries(Object.entries(loaded.handlers).filter(([phase]) => !left.includes(phase)));
  return { ...loaded, handlers, collectBody: left.includes(COLLECT_BODY) ? null : loaded.collectBody };
}

function wrong(seen: string): never {
  return wrongModule(`leaveOut() of the filter must return a list of phases, "collectBody" among them, got ${seen}`);
}
