/** Takes from the limits of rate-limit.ts, and gives back. */
import { type Log, type Store, tempfail } from "pmilter";
import type { Refusal } from "../options.ts";
import type { Rule } from "./rules.ts";
import { type OnStoreFailure, StoreTrouble } from "../store-trouble.ts";

/** What is to be taken for a rule. */
export interface Wish {
  readonly rule: Rule;
  readonly value: string;
  readonly key: string;
  readonly cost: number;
  /** The cost of the whole mail, a part of which was taken before; without it `cost`. */
  readonly total?: number;
}

/** What was taken, and is given back if the message, or the recipient, does not pass. */
export interface Taken {
  readonly rule: Rule;
  readonly key: string;
  cost: number;
  /** The recipient as the mail server names it; null for the whole message. */
  readonly recipient: string | null;
}

/** What is known of a message. */
export class MessageState {
  taken: Taken[] = [];
  /** Rules whose limits it has exceeded, and which let it pass. */
  readonly over = new Set<Rule>();
  bodyBytes = 0;
}

/** What a filter has in each worker. */
export class Own {
  readonly store: Store;
  readonly trouble = new StoreTrouble();

  constructor(store: Store) {
    this.store = store;
  }
}

/** What handlers have in common of the session. */
export interface Call {
  readonly own: Own;
  readonly options: { readonly on_store_failure: OnStoreFailure };
  readonly log: Log;
  readonly signal: AbortSignal;
  readonly message: { readonly state: MessageState };
}

const STORE_FAILED = tempfail("451 4.3.0 Limits cannot be looked up, try again later");

/** Takes for all wishes at once, and judges. Where the mail is refused, nothing stays taken. */
export async function take(
  call: Call,
  wishes: readonly Wish[],
  recipient: string | null,
): Promise<Refusal | undefined> {
  if (wishes.length === 0) return undefined;
  const { log, message, options, own, signal } = call;
  const { state } = message;
  let hasFailed = false;
  const results = await Promise.all(
    wishes.map(async (wish) => {
      const { cost, key, rule } = wish;
      try {
        return { wish, ...(await own.store.take(key, { limit: rule.limit, per: rule.per, cost })) };
      } catch (error) {
        hasFailed = true;
        own.trouble.report(
          error,
          log,
          options.on_store_failure === "pass" ? "mail is not counted" : "mail is refused for now",
        );
        return { wish, ok: null, retryAfter: 0 };
      }
    }),
  );
  const taken = results
    .filter(({ ok }) => ok === true)
    .map(({ wish: { cost, key, rule } }) => ({ rule, key, cost, recipient }));
  // Nobody waits for this call any more: the message has not passed, and was or will be told so.
  if (signal.aborted) {
    await giveBack(call, taken);
    return undefined;
  }
  const over = results.filter(({ ok }) => ok === false);
  const refusal = hasFailed && options.on_store_failure === "tempfail" ? STORE_FAILED : refusalOf(over);
  // Recorded before anything is waited for.
  if (refusal === undefined) {
    state.taken.push(...taken);
    for (const { wish } of over) state.over.add(wish.rule);
  }
  const notices = over.map((each) => notice(call, each.wish, each.retryAfter));
  await Promise.all([refusal === undefined ? undefined : giveBack(call, taken), ...notices]);
  return refusal;
}

interface Over {
  readonly wish: Wish;
  readonly retryAfter: number;
}

/** The strictest of the rules that refuse; undefined if all let pass. */
function refusalOf(over: readonly Over[]): Refusal | undefined {
  const refusing = over.filter(({ wish }) => wish.rule.whenOver === "reject" || wish.rule.whenOver === "tempfail");
  const [first] = refusing.toSorted((one, other) => severity(other) - severity(one));
  if (first === undefined) return undefined;
  const { rule } = first.wish;
  return isTooLarge(first.wish) ? rule.tooLarge : rule.refusal(first.retryAfter);
}

/** Permanent refusals first, then the longest to wait. */
function severity({ retryAfter, wish }: Over): number {
  return wish.rule.whenOver === "reject" || isTooLarge(wish) ? Infinity : retryAfter;
}

/** It would exceed the limit of an unused window, too. */
function isTooLarge({ cost, rule, total = cost }: Wish): boolean {
  return total > rule.limit;
}

/** The first excess of a key in a window is told, by one worker. */
async function notice({ log, own }: Call, { key, rule, value }: Wish, retryAfter: number): Promise<void> {
  try {
    if (!(await own.store.claim(key, { ttl: Math.max(1, retryAfter) }))) return;
  } catch (error) {
    own.trouble.report(error, log, "limits that were exceeded are not told");
    return;
  }
  log.warn(`over the limit of ${rule.words}`, { [rule.key]: value, action: rule.whenOver, for_seconds: retryAfter });
}

export async function giveBack({ log, own }: Pick<Call, "log" | "own">, taken: readonly Taken[]): Promise<void> {
  const costs = new Map<string, number>();
  for (const { cost, key } of taken) costs.set(key, (costs.get(key) ?? 0) + cost);
  await Promise.all(
    [...costs].map(async ([key, cost]) => {
      try {
        await own.store.giveBack(key, cost);
      } catch (error) {
        own.trouble.report(error, log, "what was refused stays counted until its window ends");
      }
    }),
  );
}
