/** The plan of each session with its right replies: chosen at random from the seed and the session's number. Pure. */
import type { Habit } from "../src/testing/index.ts";
import type { Phase } from "../src/protocol/phases.ts";
import { type Fault, isOfMessage } from "./faults.ts";
import { Random } from "./random.ts";

/** The role of a connection of the soak. */
export type Role =
  /** Mail, message after message. */
  | "mail"
  /** Mail with long pauses between the messages. */
  | "idle"
  /** A message with a handler that fails, between two messages without. */
  | "fault"
  /** Goes away in the middle of something. */
  | "vanish"
  /** Sends bytes that are not the milter protocol. */
  | "garbage";

export interface Rule {
  readonly verdict: "pass" | "accept" | "reject" | "tempfail" | "discard";
  readonly phase: Phase;
}

export interface Recipient {
  readonly address: string;
  readonly verdict: "pass" | "reject" | "tempfail";
}

export interface MessagePlan {
  readonly id: string;
  readonly rule: Rule;
  readonly sender: string;
  readonly params: readonly string[];
  readonly recipients: readonly Recipient[];
  readonly headers: readonly (readonly [name: string, value: string])[];
  /** Where its body begins in the store of bodies. */
  readonly bodyAt: number;
  readonly bodyBytes: number;
  readonly fault: Fault | null;
  /** The mail server gives the message up after the recipients. */
  readonly isAborted: boolean;
  /** An UNKNOWN command comes before it; null if none. */
  readonly unknown: string | null;
  /** Milliseconds before it. */
  readonly restMs: number;
  /** Milliseconds in the middle of it, before DATA. */
  readonly pauseMs: number;
}

export interface SessionPlan {
  readonly number: number;
  readonly role: Role;
  readonly as: Habit;
  readonly isTcp: boolean;
  /** Every command is answered: the mail server offers no NR flags. */
  readonly answersAll: boolean;
  readonly hostname: string;
  readonly helo: string;
  /** At connect or helo: the verdict on the connection. */
  readonly rule: Rule | null;
  readonly fault: Fault | null;
  readonly messages: readonly MessagePlan[];
  /** Of `vanish`: how it goes away. */
  readonly vanishing: Vanishing | null;
}

export interface Vanishing {
  /** `deaf`: it sends much and reads nothing. */
  readonly how: "end" | "reset" | "deaf";
  /** After so many bytes, wherever that is. */
  readonly afterBytes: number;
}

/** The store of bodies is as large; a body is a piece of it. */
export const BODY_STORE_BYTES = 512 * 1024;
const LARGEST_BODY = 300 * 1024;

/** Text by chance, in lines as mail has them. */
export function bodyStore(seed: number): Uint8Array {
  const random = new Random(seed, 0x0b0d);
  const bytes = new Uint8Array(BODY_STORE_BYTES);
  for (let at = 0; at < bytes.length; at++)
    bytes[at] = at % 76 === 74 ? 13 : at % 76 === 75 ? 10 : random.between(32, 126);
  return bytes;
}

const RULES: readonly Rule[] = (["accept", "reject", "tempfail", "discard"] as const).flatMap((verdict) =>
  (["envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"] as const)
    // A recipient that is refused is no verdict on the message: see `recipients`.
    .filter((phase) => phase !== "envrcpt" || verdict === "accept" || verdict === "discard")
    .map((phase) => ({ verdict, phase })),
);
/** Phases that belong to no message, but occur within a message. */
const BESIDE_MESSAGES: ReadonlySet<Phase> = new Set(["abort", "unknown"]);
const PASS: Rule = { verdict: "pass", phase: "eom" };

/**
 * @param number no two sessions of a run have the same
 * @param fault of the role `fault`: how, and where
 */
export function planSession(seed: number, number: number, role: Role, fault: Fault | null = null): SessionPlan {
  const random = new Random(seed, number);
  const rule: Rule | null =
    role === "mail" && random.chance(1, 40)
      ? {
          verdict: random.pick(["accept", "reject", "tempfail"] as const),
          phase: random.pick(["connect", "helo"] as const),
        }
      : null;
  const nameAt = (phase: Phase): string => {
    if (fault?.phase === phase) return `${fault.kind}.${phase}.fault.example`;
    return rule?.phase === phase ? `${rule.verdict}.${number}.rule.example` : `${phase}.${number}.client.example`;
  };
  const vanishing: Vanishing | null =
    role === "vanish"
      ? {
          how: random.chance(1, 8) ? "deaf" : random.pick(["end", "reset"] as const),
          afterBytes: random.chance(1, 3) ? random.below(200) : random.below(random.chance(1, 4) ? 60_000 : 2500),
        }
      : null;
  const ofMessage = fault !== null && (isOfMessage(fault.phase) || BESIDE_MESSAGES.has(fault.phase)) ? fault : null;
  const count = role === "fault" ? 3 : role === "idle" ? 6 : random.between(1, 8);
  return {
    number,
    role,
    as: random.pick(["postfix", "sendmail"] as const),
    isTcp: random.chance(1, 2),
    answersAll: random.chance(1, 5),
    hostname: nameAt("connect"),
    // The close handler has no other name to look at.
    helo: fault?.phase === "close" ? nameAt("close") : nameAt("helo"),
    rule,
    fault,
    messages: Array.from({ length: count }, (_, index) =>
      planMessage(random, `${number}-${index}`, role, index === 1 ? ofMessage : null),
    ),
    vanishing,
  };
}

function planMessage(random: Random, id: string, role: Role, fault: Fault | null): MessagePlan {
  const rule = fault !== null || random.chance(3, 5) ? PASS : random.pick(RULES);
  const manner = random.chance(1, 4) ? "later" : "now";
  const isAborted = fault?.phase === "abort" || (fault === null && random.chance(1, 25));
  const needsBody = rule.phase === "body" || fault?.phase === "body";
  return {
    id,
    rule,
    sender: `<${rule.verdict}.${rule.phase}.${manner}.${id}@soak.example>`,
    params: [
      `SIZE=${random.below(100_000)}`,
      ...(fault !== null && fault.phase !== "unknown" ? [`FAULT=${fault.kind}.${fault.phase}`] : []),
    ],
    recipients: Array.from(
      { length: random.chance(1, 10) ? random.between(5, 20) : random.between(1, 3) },
      (_, index) => {
        const verdict = fault === null && random.chance(1, 10) ? random.pick(["reject", "tempfail"] as const) : "pass";
        return { address: `<${verdict}.${id}.${index}@soak.example>`, verdict };
      },
    ),
    headers: [
      ["From", ` <${id}@soak.example>`],
      ["Subject", ` subject ${id}`],
      ["X-Drop", " dropped"],
      ...Array.from(
        { length: random.below(8) },
        (_, index) => [`X-Filler-${index}`, ` ${"x".repeat(random.below(300))}`] as const,
      ),
    ],
    bodyAt: random.below(BODY_STORE_BYTES - LARGEST_BODY),
    bodyBytes: bodySize(random, needsBody),
    fault,
    isAborted,
    unknown: fault?.phase === "unknown" ? `FAULT ${fault.kind}` : random.chance(1, 12) ? `WHO ${id}` : null,
    restMs: role === "idle" ? random.between(2000, 9000) : 0,
    pauseMs: random.chance(1, 12) ? random.between(50, 1500) : 0,
  };
}

function bodySize(random: Random, needsBody: boolean): number {
  const kind = random.below(20);
  if (kind === 0) return needsBody ? 1 : 0;
  if (kind === 1) return random.between(65_535, LARGEST_BODY);
  return kind < 6 ? random.between(4000, 60_000) : random.between(1, 4000);
}
