/**
 * Waits for the reply to an event and judges it: whether a mail server of the habit takes it in the phase, under the
 * negotiated options. `client.ts` applies it to the session.
 */
import { ACTION, namesOf, PROTOCOL } from "../protocol/constants.ts";
import type { FinalReply, ModificationReply, Reply, ReplyKind } from "../protocol/replies.ts";
import { VERDICTS } from "../protocol/verdicts.ts";
import type { Exchange } from "./exchange.ts";
import { actionOf, type EventPhase, FINAL_REPLIES, type Habit, takesProgress } from "./habits.ts";
import type { Negotiated } from "./negotiation.ts";

export class ReplyReader {
  /** PROGRESS packets so far, by phase. */
  readonly progress = new Map<EventPhase, number>();
  readonly #exchange: Exchange;
  readonly #habit: Habit;
  readonly #legal: Readonly<Record<EventPhase, readonly ReplyKind[]>>;
  readonly #actions: number;
  /** Where the reply to the end of the message stands: before, in or after the run of REPLBODY packets. */
  #bodyRun: "before" | "in" | "after" = "before";

  constructor(conversation: Exchange, habit: Habit, negotiated: Negotiated) {
    this.#exchange = conversation;
    this.#habit = habit;
    this.#actions = negotiated.actions;
    const legal = FINAL_REPLIES[habit];
    this.#legal = (negotiated.protocol & PROTOCOL.SKIP) === 0 ? withoutSkip(legal) : legal;
  }

  /**
   * Waits for the final reply to the event of `phase` that was just sent.
   * @param modifications gets the modifications before it; left out where none may come
   * @throws ProtocolError PMILTER_ERR_REPLY, and the errors of {@link Exchange.next}
   */
  async read(phase: EventPhase, modifications?: ModificationReply[]): Promise<FinalReply> {
    const legal = this.#legal[phase];
    const expected = legal.join(", ");
    this.#bodyRun = "before";
    for (;;) {
      const reply = await this.#exchange.next(phase, expected);
      if (reply.kind === "progress") {
        if (!takesProgress(this.#habit, phase)) throw this.#illegal(phase, "progress", expected);
        this.progress.set(phase, (this.progress.get(phase) ?? 0) + 1);
        this.#endBodyRun();
      } else if (isFinal(reply)) {
        if (!legal.includes(reply.kind)) throw this.#illegal(phase, reply.kind, expected);
        this.#exchange.settle(phase);
        return reply;
      } else if (reply.kind === "optneg" || modifications === undefined) {
        throw this.#illegal(phase, reply.kind, expected);
      } else {
        this.#judge(reply);
        modifications.push(reply);
      }
    }
  }

  #judge(reply: ModificationReply): void {
    const action = actionOf(reply);
    if ((this.#actions & action) === 0) {
      throw this.#exchange.violation(`eom: ${reply.kind} without the action ${namesOf(ACTION, action).join("")}`);
    }
    if (reply.kind !== "replaceBody") {
      this.#endBodyRun();
    } else if (this.#bodyRun === "after" && this.#habit === "postfix") {
      throw this.#exchange.violation("eom: replaceBody in a second run; Postfix takes all its packets in one");
    } else {
      this.#bodyRun = "in";
    }
  }

  #endBodyRun(): void {
    if (this.#bodyRun === "in") this.#bodyRun = "after";
  }

  #illegal(phase: EventPhase, kind: ReplyKind, expected: string): Error {
    const message = `${phase}: reply ${kind} is not taken here by ${this.#habit}, expected ${expected}`;
    return this.#exchange.violation(message);
  }
}

function withoutSkip(
  legal: Readonly<Record<EventPhase, readonly ReplyKind[]>>,
): Readonly<Record<EventPhase, readonly ReplyKind[]>> {
  const phases = Object.entries(legal).map(([phase, kinds]) => [phase, kinds.filter((kind) => kind !== "skip")]);
  return Object.fromEntries(phases) as Record<EventPhase, readonly ReplyKind[]>;
}

function isFinal(reply: Reply): reply is FinalReply {
  return reply.kind === "replycode" || Object.hasOwn(VERDICTS, reply.kind);
}
