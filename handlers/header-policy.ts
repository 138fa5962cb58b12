// Requires, limits, removes and rewrites headers, and judges some that matter: docs/handlers/header-policy.md.
import { defineFilter } from "pmilter";
import {
  array,
  expected,
  type GenericSchema,
  lazy,
  looseObject,
  nonEmpty,
  picklist,
  pipe,
  table,
} from "pmilter/options";
import { RULES, type Step } from "./lib/header-rules.ts";
import { required } from "./lib/options.ts";

const RULE_NAMES = Object.keys(RULES) as (keyof typeof RULES)[];

/** A table that does not say which rule it is; its other options cannot be judged. */
const NO_RULE = looseObject({ rule: picklist(RULE_NAMES) }, ({ input, path }) =>
  path === undefined ? expected("a table")({ input }) : '"rule" is missing',
) as unknown as GenericSchema<unknown, Step>;

const step = lazy((input): GenericSchema<unknown, Step> => {
  const rule = (input as { readonly rule?: unknown } | null | undefined)?.rule;
  const name = RULE_NAMES.find((each) => each === rule);
  return name === undefined ? NO_RULE : RULES[name].schema;
});

export const options = table({
  rules: required(pipe(array(step), nonEmpty(expected("at least one [[filter.options.rules]]"))), "the rules"),
});

export default defineFilter({
  name: "header-policy",
  options,

  eom(session) {
    for (const { rule, action, refusal } of session.options.rules) {
      const fix = rule.check(session);
      if (fix === null) continue;
      if (refusal !== null) return refusal;
      if (action === "fix") fix();
      else if (action === "quarantine") session.message.quarantine(`header-policy: ${rule.problem}`);
      else session.log.warn(`observed: ${rule.problem}`);
    }
  },
});
