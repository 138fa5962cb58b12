/** The memory of pmilter: for connections that rest, for a large message, and after many messages. */
import type { Plan, SuiteResult } from "../support/suite.ts";
import { measureIdle } from "./idle.ts";
import { measureLarge } from "./large.ts";
import { measureSteady } from "./steady.ts";

export async function runMemory(plan: Plan): Promise<SuiteResult> {
  const idle = await measureIdle(plan);
  const large = await measureLarge(plan);
  const steady = await measureSteady(plan);
  const parts = [idle, large, steady];
  return {
    commands: [...new Set(parts.flatMap(({ commands }) => commands))],
    tables: parts.flatMap(({ tables }) => tables),
    raw: { idle: idle.raw, large: large.raw, steady: steady.raw },
  };
}
