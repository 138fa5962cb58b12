// Limits of recipients, messages and bytes by user, client, sender or recipient, for all workers: docs/handlers/rate-limit.md.
import { type Address, defineFilter, type OutcomeVerdict, type Phase, type Session } from "pmilter";
import { type InferOutput, table } from "pmilter/options";
import { headerName, option, PREFIX_OPTIONS, type Refusal } from "./lib/options.ts";
import { type Count, type Rule, RULES, storeKey, valueOf } from "./lib/rate-limit/rules.ts";
import { type Call, giveBack, MessageState, Own, take, type Taken, type Wish } from "./lib/rate-limit/taking.ts";
import { ON_STORE_FAILURE, openStore } from "./lib/store-trouble.ts";

export const options = table({
  rules: RULES,
  mark_header: option(headerName(), "X-Rate-Limit", "the header that `mark` adds"),
  ...PREFIX_OPTIONS,
  on_store_failure: ON_STORE_FAILURE,
});

/** What the rules count by. */
interface Known {
  readonly auth: { readonly authen: string };
  readonly client: { readonly address: string };
  readonly message: { readonly sender: Address };
  readonly options: InferOutput<typeof options>;
}

/** What is to be taken for some of the rules; nothing where the mail has no value for a rule's key. */
function wishes(
  { auth, client, message, options }: Known,
  rules: readonly Rule[],
  cost: number,
  recipient: Address | null = null,
): readonly Wish[] {
  const counted = { user: auth.authen, client: client.address, sender: message.sender, recipient };
  const prefixes = { ipv4: options.ipv4_prefix, ipv6: options.ipv6_prefix };
  return rules.flatMap((rule) => {
    const value = valueOf(rule, counted, prefixes);
    return value === "" ? [] : [{ rule, value, key: storeKey(rule, value), cost }];
  });
}

/** Rules that are asked once for each message, when it begins or as a whole. */
function ofMessage(rules: readonly Rule[], count: Count): readonly Rule[] {
  return rules.filter((rule) => rule.count === count && rule.key !== "recipient");
}

/** Rules that are asked for each recipient: a message is one for each of its recipients. */
function ofRecipients(rules: readonly Rule[]): readonly Rule[] {
  return rules.filter(({ count, key }) => count === "recipients" || (count === "messages" && key === "recipient"));
}

/** The size that the client has announced (RFC 1870); 0 without one. */
function announcedBytes(params: readonly string[]): number {
  const size = params.map((param) => /^SIZE=(\d{1,15})$/i.exec(param)?.[1]).find((digits) => digits !== undefined);
  return Number(size ?? 0);
}

/** What became of mail that its client will not send again. */
const PASSED: ReadonlySet<OutcomeVerdict> = new Set(["accept", "quarantine", "discard"]);

export default defineFilter({
  name: "rate-limit",
  options,
  messageState: () => new MessageState(),

  async start(_, home) {
    await openStore(home.store);
    return new Own(home.store);
  },

  leaveOut({ rules }, isTooEarly) {
    const wantsMessages = ofMessage(rules, "messages").length > 0;
    const wantsBytes = rules.some(({ count }) => count === "bytes");
    const marks = rules.some(({ whenOver }) => whenOver === "mark" || whenOver === "quarantine");
    // With conditions on recipients, a message is known to be the filter's business at DATA.
    const isLate = isTooEarly("envfrom");
    const uses: Partial<Record<Phase, boolean>> = {
      envfrom: (wantsMessages || wantsBytes) && !isLate,
      envrcpt: ofRecipients(rules).length > 0,
      data: wantsMessages && isLate,
      body: wantsBytes,
      eom: wantsBytes || marks,
    };
    return (Object.keys(uses) as Phase[]).filter((phase) => uses[phase] !== true);
  },

  async envfrom(session, _sender, params) {
    const { rules } = session.options;
    const announced = announcedBytes(params);
    const wanted = [...wishes(session, ofMessage(rules, "messages"), 1)];
    // So that a client need not send what will be refused: the difference is settled once the size is known.
    if (announced > 0) wanted.push(...wishes(session, ofMessage(rules, "bytes"), announced));
    return await take(session, wanted, null);
  },

  async envrcpt(session) {
    const recipient = session.message.recipients.at(-1)!;
    return await take(session, wishes(session, ofRecipients(session.options.rules), 1, recipient), recipient.address);
  },

  async data(session) {
    return await takeOrEnd(session, wishes(session, ofMessage(session.options.rules, "messages"), 1));
  },

  body({ message }, chunk) {
    message.state.bodyBytes += chunk.length;
  },

  async eom(session) {
    const { message, options } = session;
    const { state } = message;
    const refusal = await takeBytes(session);
    if (refusal !== undefined) return refusal;
    const over = [...state.over];
    if (over.length === 0) return undefined;
    const words = over.map(({ key, words }) => `${key}; ${words}`);
    message.addHeader(options.mark_header, words.join(", "));
    message.results.set("rate-limit", words);
    if (over.some(({ whenOver }) => whenOver === "quarantine"))
      message.quarantine(`over the limit: ${words.join(", ")}`);
    return undefined;
  },

  async outcome(session, { recipients, verdict }) {
    const { taken } = session.message.state;
    if (taken.length === 0) return;
    const passed = new Map<string, number>();
    for (const { address, verdict: own } of recipients) {
      if (PASSED.has(own)) passed.set(address, (passed.get(address) ?? 0) + 1);
    }
    await giveBack(session, notPassed(taken, PASSED.has(verdict), passed));
  },
});

/** Takes for the whole message, all of whose takings end if it is refused. */
async function takeOrEnd(session: Call, wanted: readonly Wish[]): Promise<Refusal | undefined> {
  const refusal = await take(session, wanted, null);
  if (refusal === undefined) return undefined;
  const { taken } = session.message.state;
  session.message.state.taken = [];
  await giveBack(session, taken);
  return refusal;
}

interface Sized extends Pick<Session<"eom">["message"], "rawHeaders" | "recipients"> {}

/** The size of the message: what the client had not announced is taken, and what it had announced too much is given back. */
async function takeBytes(session: Call & Known & { readonly message: Sized }): Promise<Refusal | undefined> {
  const rules = session.options.rules.filter(({ count }) => count === "bytes");
  if (rules.length === 0) return undefined;
  const { message } = session;
  const { state } = message;
  const bytes = message.rawHeaders().length + "\r\n".length + state.bodyBytes;
  const all = new Map<string, Wish>();
  for (const recipient of [null, ...message.recipients]) {
    for (const wish of wishes(session, rules, bytes, recipient)) all.set(wish.key, wish);
  }
  const more: Wish[] = [];
  const less: Taken[] = [];
  for (const wish of all.values()) {
    const announced = state.taken.find(({ key }) => key === wish.key);
    const missing = bytes - (announced?.cost ?? 0);
    if (missing > 0) more.push({ ...wish, cost: missing, total: bytes });
    if (missing >= 0 || announced === undefined) continue;
    less.push({ ...announced, cost: -missing });
    announced.cost = bytes;
  }
  const [refusal] = await Promise.all([takeOrEnd(session, more), giveBack(session, less)]);
  return refusal;
}

/** What was taken for a message, or for recipients, that did not pass. */
function notPassed(taken: readonly Taken[], hasPassed: boolean, passed: ReadonlyMap<string, number>): readonly Taken[] {
  if (!hasPassed) return taken;
  // A recipient that was given twice may have passed once.
  const left = new Map<string, number>();
  return taken.filter(({ key, recipient }) => {
    if (recipient === null) return false;
    const at = `${key}\0${recipient}`;
    const rest = left.get(at) ?? passed.get(recipient) ?? 0;
    left.set(at, rest - 1);
    return rest <= 0;
  });
}
