/** The time of pmilter's start, and the effect of a reload on replies. */
import type { Plan, SuiteResult } from "../support/suite.ts";
import { measureReload } from "./reload.ts";
import { measureStart } from "./start.ts";

export async function runLife(plan: Plan): Promise<SuiteResult> {
  const start = await measureStart(plan);
  const reload = await measureReload(plan);
  return {
    commands: [...start.commands, ...reload.commands],
    tables: [...start.tables, ...reload.tables],
    raw: { start: start.raw, reload: reload.raw },
  };
}
