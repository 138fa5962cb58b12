/**
 * Compares a plan with the session that was seen: gives the faults of the server, and the counts that it must have made.
 * Pure: the time, and the incidents meanwhile, are arguments.
 */
import type { WorkerCounter } from "../src/counters.ts";
import { PHASES, type Phase } from "../src/protocol/phases.ts";
import type { EventReply, Modification } from "../src/testing/index.ts";
import { FAULTS, isOfMessage } from "./faults.ts";
import type { MessagePlan, Rule, SessionPlan } from "./plan.ts";

/** A command and its reply. */
export interface Answer {
  readonly phase: Phase;
  readonly reply: EventReply;
}

export interface Seen {
  readonly answers: readonly Answer[];
  /** The modifications before the reply to the end of the message; null if the session ended earlier. */
  readonly modifications: readonly Modification[] | null;
}

/** Further facts that the judge needs. */
export interface Circumstances {
  /** How often a worker was, or may have been, lost meanwhile. */
  readonly incidents: number;
  readonly body: Uint8Array;
  readonly session: SessionPlan;
}

export type ProblemKind = "wrong" | "accepted against a rule";
export interface Problem {
  readonly kind: ProblemKind;
  readonly text: string;
}

/** How often something must have been counted, and how often it may have been besides. */
export interface Count {
  readonly name: WorkerCounter;
  readonly sure: number;
  readonly perhaps: number;
}

export interface Judgement {
  readonly problems: readonly Problem[];
  readonly counts: readonly Count[];
  /** The outcome of the message; `none`: no verdict on it was due. */
  readonly verdict: "accept" | "reject" | "tempfail" | "discard" | "none";
  /** The verdict was the fallback. */
  readonly isFallback: boolean;
  /** It was excused, since another session had the worker lost. */
  readonly isCollateral: boolean;
  /** Of an accepted message: the versions that it was stamped with. */
  readonly stamps: readonly number[];
}

const VERDICT_COUNTERS = {
  accept: "accepted",
  reject: "rejected",
  tempfail: "tempfailed",
  discard: "discarded",
} as const satisfies Record<string, WorkerCounter>;

type Verdict = keyof typeof VERDICT_COUNTERS;

/** A reply in short. */
export function describeReply(reply: EventReply): string {
  if (reply.kind === "none") return reply.sent ? "no reply" : "not sent";
  return reply.kind === "replycode" ? `${reply.code} ${reply.enhanced} ${reply.lines.join(" / ")}` : reply.kind;
}

function verdictOf(reply: EventReply): Verdict | null {
  if (reply.kind === "replycode") return reply.code >= 500 ? "reject" : "tempfail";
  return reply.kind === "none" || reply.kind === "continue" || reply.kind === "skip" ? null : reply.kind;
}

/** The fallback has no text, every rule's refusal has a text. */
function isFallbackReply(reply: EventReply): boolean {
  return reply.kind === "tempfail";
}

function isRuleReply(reply: EventReply, verdict: string, id: string): boolean {
  if (verdictOf(reply) !== verdict) return false;
  if (verdict === "accept" || verdict === "discard") return true;
  return reply.kind === "replycode" && reply.enhanced.endsWith(".7.1") && reply.lines.join() === id;
}

export function judgeMessage(plan: MessagePlan, { answers, modifications }: Seen, given: Circumstances): Judgement {
  const problems: Problem[] = [];
  const counts: Count[] = [];
  const wrong = (text: string, kind: ProblemKind = "wrong"): void => void problems.push({ kind, text });
  const count = (name: WorkerCounter, sure: number, perhaps = 0): void => void counts.push({ name, sure, perhaps });
  const fault = plan.fault === null ? null : { ...FAULTS[plan.fault.kind], phase: plan.fault.phase };
  const isDisturbed = given.incidents > 0;
  /** The fallback may come instead of the right verdict. */
  const isExcused =
    isDisturbed || (fault?.outcome === "either" && (isOfMessage(fault.phase) || fault.phase === "unknown"));

  const to: string[] = [];
  let refused = 0;
  let hasLostRecipient = false;
  let final: Answer | null = null;
  for (const answer of answers) {
    const { phase, reply } = answer;
    const verdict = verdictOf(reply);
    if (phase === "envrcpt" && verdict !== "accept" && verdict !== "discard") {
      const index = to.length + refused;
      const recipient = plan.recipients[index];
      if (verdict === null) to.push(recipient?.address.slice(1, -1) ?? "");
      else refused += 1;
      const isOwnFault = fault?.phase === "envrcpt" && fault.outcome === "fallback" && index === 0;
      if (isOwnFault) {
        if (!isFallbackReply(reply)) wrong(`recipient ${index}: ${describeReply(reply)}, expected the fallback`);
        else if (fault.losesWorker) hasLostRecipient = true;
        else count("fallbacks", 1);
      } else if (isFallbackReply(reply) && (isExcused || hasLostRecipient)) {
        hasLostRecipient = true;
      } else if (
        recipient?.verdict === "pass" ? verdict !== null : !isRuleReply(reply, recipient?.verdict ?? "", plan.id)
      ) {
        wrong(`recipient ${index} (${recipient?.verdict}): ${describeReply(reply)}`);
      }
      if (verdict !== null && !(isFallbackReply(reply) && (isExcused || hasLostRecipient)))
        count("recipientsRefused", 1);
      continue;
    }
    if (verdict === null) continue;
    if (phase === "unknown" || phase === "connect" || phase === "helo") {
      wrong(`${phase}: ${describeReply(reply)} within a message`);
      continue;
    }
    final = answer;
  }

  const end = answers.at(-1);
  const isComplete = end?.phase === "eom";
  if (final === null && isComplete) final = end;
  let verdict: Judgement["verdict"] = "none";
  let isFallback = false;
  if (final !== null) {
    verdict = verdictOf(final.reply) ?? "accept";
    isFallback = isFallbackReply(final.reply);
    if (isFallback) {
      const isOwn =
        fault?.outcome === "fallback" && isOfMessage(fault.phase) && (fault.phase !== "envrcpt" || fault.losesWorker);
      const isTooEarly = isOwn && PHASES[final.phase].index < PHASES[fault.phase].index && !isExcused;
      if (isTooEarly) wrong(`the fallback at ${final.phase}, expected at ${fault.phase} or later`);
      if (!isOwn && !isExcused && !hasLostRecipient)
        wrong(`the fallback at ${final.phase}, expected ${nameOfRule(plan.rule)}`);
    } else {
      if (hasLostRecipient)
        wrong(`${describeReply(final.reply)} at ${final.phase}, after the fallback for a recipient`);
      judgeVerdict(plan, final, fault !== null && fault.outcome === "fallback" && fault.phase, isDisturbed, wrong);
    }
    count("messages", 1, isDisturbed ? 1 : 0);
    count(VERDICT_COUNTERS[verdict as Verdict], 1, isDisturbed && verdict === "tempfail" ? 1 : 0);
    if (isDisturbed && verdict !== "tempfail") count("tempfailed", 0, 1);
    if (isFallback) count("fallbacks", 1, isDisturbed ? 1 : 0);
    else if (isDisturbed) count("fallbacks", 0, 1);
  } else {
    const isEnded = to.length === 0 && refused === plan.recipients.length;
    if (!isEnded && !plan.isAborted)
      wrong(`no verdict, the last answer was ${end === undefined ? "none" : describeReply(end.reply)}`);
    // Decided outside, before the mail server gave it up: or never, if the worker was not its own.
    if (isDisturbed || hasLostRecipient)
      for (const name of ["messages", "tempfailed", "fallbacks"] as const) count(name, 0, 1);
    if (hasLostRecipient) count("recipientsRefused", 0, refused);
  }

  const stamps =
    verdict === "accept" && final !== null ? judgeChanges(plan, final, modifications, to, given, wrong) : [];
  if (verdict !== "accept" && (modifications?.length ?? 0) > 0)
    wrong(`${modifications!.length} changes of a message that is not accepted`);
  countFault(plan, answers, isDisturbed, count);
  const isCollateral = isFallback && (fault === null || !isOfMessage(fault.phase));
  return { problems, counts, verdict, isFallback, isCollateral, stamps };
}

function judgeVerdict(
  { id, rule }: MessagePlan,
  { phase, reply }: Answer,
  failsAt: Phase | false,
  isDisturbed: boolean,
  wrong: (text: string, kind?: ProblemKind) => void,
): void {
  const verdict = verdictOf(reply) ?? "accept";
  const isAgainst = verdict === "accept" && rule.verdict !== "accept" && rule.verdict !== "pass";
  if (isAgainst) {
    wrong(`accepted at ${phase}, expected ${nameOfRule(rule)}`, "accepted against a rule");
  } else if (failsAt !== false && isOfMessage(failsAt) && failsAt !== "envrcpt") {
    const kind = verdict === "accept" ? "accepted against a rule" : "wrong";
    wrong(`${describeReply(reply)} at ${phase}, expected the fallback for the handler that failed at ${failsAt}`, kind);
  } else if (
    rule.verdict === "pass"
      ? reply.kind !== "continue"
      : !isRuleReply(reply, rule.verdict, id) && !isSilentAccept(rule, reply)
  ) {
    wrong(`${describeReply(reply)} at ${phase}, expected ${nameOfRule(rule)}${isDisturbed ? " or the fallback" : ""}`);
  } else if (PHASES[phase].index < PHASES[rule.phase].index) {
    wrong(`${describeReply(reply)} at ${phase}, expected it at ${rule.phase} or later`);
  }
}

/** With changes to send, `accept` at eom is the end of the message as always. */
function isSilentAccept(rule: Rule, reply: EventReply): boolean {
  return rule.verdict === "accept" && rule.phase === "eom" && reply.kind === "continue";
}

function nameOfRule({ phase, verdict }: Rule): string {
  return `${verdict} at ${phase}`;
}

/** The changes of an accepted message show whether its handlers saw this message and no other. */
function judgeChanges(
  plan: MessagePlan,
  { phase }: Answer,
  modifications: readonly Modification[] | null,
  to: readonly string[],
  { body, session }: Circumstances,
  wrong: (text: string) => void,
): number[] {
  const changes = modifications ?? [];
  if (plan.rule.verdict === "accept" && plan.rule.phase !== "eom") {
    if (changes.length > 0) wrong(`${changes.length} changes, expected none`);
    return [];
  }
  if (phase !== "eom") return [];
  const sender = plan.sender.slice(1, -1);
  let stamps: number[] = [];
  for (const change of changes) {
    if (change.kind === "addHeader" && change.name === "X-Soak") {
      const [versions = "", ...rest] = change.value.split(";");
      stamps = versions.slice("versions=".length).split(",").map(Number);
      const expected = [
        `sender=${sender}`,
        `to=${to.join(",")}`,
        `helo=${session.helo}`,
        `client=${session.hostname}`,
        `subject=subject ${plan.id}`,
        `headers=${plan.headers.length}`,
        `chunks=${Math.ceil(body.length / 65_535)}`,
        `bytes=${body.length}`,
        `body=${body.length}`,
        `digest=${Bun.hash(body).toString(16)}`,
      ];
      const differences = expected.filter((text, index) => rest[index] !== text);
      if (differences.length > 0 || rest.length !== expected.length) {
        wrong(`stamped ${rest.join(";")}, expected ${differences.join(";")}`);
      }
    }
  }
  const kinds = changes.map((change) => `${change.kind} ${"name" in change ? change.name : ""}`).toSorted();
  const expected = ["addHeader X-Soak", "changeHeader Subject", "deleteHeader X-Drop"];
  if (!Bun.deepEquals(kinds, expected)) wrong(`changes ${kinds.join(", ") || "none"}, expected ${expected.join(", ")}`);
  const subject = changes.find((change) => change.kind === "changeHeader");
  const changed = `changed subject ${plan.id}`;
  if (subject !== undefined && subject.value !== changed)
    wrong(`the subject is "${subject.value}", expected "${changed}"`);
  return stamps;
}

/** The counter of the message's own fault. */
function countFault(
  { fault }: MessagePlan,
  answers: readonly Answer[],
  isDisturbed: boolean,
  count: (name: WorkerCounter, sure: number, perhaps?: number) => void,
): void {
  if (fault === null) return;
  const { counter, losesWorker, outcome } = FAULTS[fault.kind];
  // A handler whose worker is lost to another session may have failed before, or not at all; a late handler fails after.
  if (counter !== null)
    count(counter, isDisturbed || (outcome === "right" && answers.length === 0) ? 0 : 1, isDisturbed ? 1 : 0);
  if (fault.kind === "tardy") count("late", 0, 1);
  if (losesWorker) for (const name of ["errors", "timeouts", "late"] as const) count(name, 0, 1);
}

/** CONNECT or HELO, with the plan for it. */
export function judgeGreeting(
  plan: SessionPlan,
  { phase, reply }: Answer,
  incidents: number,
): Pick<Judgement, "problems" | "counts"> & { isOver: boolean } {
  const problems: Problem[] = [];
  const counts: Count[] = [];
  const verdict = verdictOf(reply);
  const rule = plan.rule?.phase === phase ? plan.rule : null;
  const fault = plan.fault?.phase === phase ? FAULTS[plan.fault.kind] : null;
  const isExcused = incidents > 0 || fault?.outcome === "either";
  const isFallback = isFallbackReply(reply);
  const wrong = (text: string, kind: ProblemKind = "wrong"): void =>
    void problems.push({ kind, text: `${phase}: ${text}` });
  if (fault?.outcome === "fallback") {
    if (!isFallback)
      wrong(`${describeReply(reply)}, expected the fallback`, verdict === null ? "accepted against a rule" : "wrong");
  } else if (isFallback) {
    if (!isExcused) wrong(`the fallback, expected ${rule?.verdict ?? "continue"}`);
  } else if (rule === null ? verdict !== null : !isRuleReply(reply, rule.verdict, String(plan.number))) {
    const isAgainst = verdict === null || verdict === "accept";
    wrong(
      `${describeReply(reply)}, expected ${rule?.verdict ?? "continue"}`,
      isAgainst ? "accepted against a rule" : "wrong",
    );
  }
  const isDisturbed = incidents > 0;
  if (verdict !== null && verdict !== "accept")
    counts.push({ name: "connectionsRefused", sure: 1, perhaps: isDisturbed ? 1 : 0 });
  if (isFallback) counts.push({ name: "fallbacks", sure: 1, perhaps: isDisturbed ? 1 : 0 });
  if (fault !== null && fault.counter !== null) {
    counts.push({ name: fault.counter, sure: isDisturbed ? 0 : 1, perhaps: isDisturbed ? 1 : 0 });
    if (plan.fault?.kind === "tardy") counts.push({ name: "late", sure: 0, perhaps: 1 });
  }
  // Its handlers are asked again by the next worker.
  if (isDisturbed && plan.fault !== null) {
    for (const name of ["errors", "timeouts", "late"] as const) counts.push({ name, sure: 0, perhaps: 2 });
  }
  return { problems, counts, isOver: verdict !== null };
}

/** The UNKNOWN command of a plan. */
export function judgeUnknown(plan: MessagePlan, reply: EventReply, incidents: number): Problem | null {
  const isFault = plan.fault?.phase === "unknown";
  if (reply.kind === "continue" && (isFault || incidents > 0)) return null;
  // A message's verdict, if the worker was lost with commands behind this command.
  if (reply.kind === "tempfail" && incidents > 0) return null;
  const isRight = !isFault && reply.kind === "replycode" && reply.code === 500 && reply.lines.join() === plan.unknown;
  return isRight
    ? null
    : {
        kind: "wrong",
        text: `unknown: ${describeReply(reply)}, expected ${isFault ? "continue" : `500 5.5.1 ${plan.unknown}`}`,
      };
}
