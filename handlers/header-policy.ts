// Requires, limits, removes and rewrites headers, and judges some that matter: docs/handlers/header-policy.md.
import { defineFilter } from "pmilter";
import { type Options, Prepared, type Refusal } from "./lib/header-options.ts";
import { type Rule, RULES } from "./lib/header-rules.ts";

const ACTIONS = ["reject", "tempfail", "quarantine", "fix", "observe"] as const;

interface Step {
  readonly rule: Rule;
  readonly action: (typeof ACTIONS)[number];
  /** For `reject` and `tempfail`. */
  readonly refusal: Refusal | null;
}

const RULE_NAMES = Object.keys(RULES) as (keyof typeof RULES)[];

const steps = new Prepared((options: Options): readonly Step[] => options.tables("rules").map(readStep));

function readStep(options: Options): Step {
  const rule = RULES[options.choice("rule", RULE_NAMES)](options);
  const action = options.choice("action", ACTIONS);
  if (action === "fix" && !rule.fixes) options.fail("action", 'another action: there is no "value" or "replace"');
  let refusal: Refusal | null = null;
  if (action === "reject") refusal = options.refusal("text", "reject", `550 5.6.0 Message refused: ${rule.problem}`);
  else if (action === "tempfail") {
    refusal = options.refusal("text", "tempfail", `451 4.6.0 Message refused for now: ${rule.problem}`);
  } else if (options.has("text")) options.fail("text", `no text, as the action is "${action}"`);
  options.end();
  return { rule, action, refusal };
}

export default defineFilter({
  name: "header-policy",

  start(options, { folder }) {
    steps.start(options, folder);
  },

  eom(session) {
    for (const { rule, action, refusal } of steps.of(session.options)) {
      const fix = rule.check(session);
      if (fix === null) continue;
      if (refusal !== null) return refusal;
      if (action === "fix") fix();
      else if (action === "quarantine") session.message.quarantine(`header-policy: ${rule.problem}`);
      else console.log(`header-policy: queue_id=${session.queueId} observed: ${rule.problem}`);
    }
  },
});
