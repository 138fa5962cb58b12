/**
 * Plays a planned session as a mail server, has each reply judged, and records it in the account, with each thing that it
 * does to the connection on purpose.
 */
import { CommandWriter } from "../src/protocol/commands.ts";
import { PROTOCOL } from "../src/protocol/constants.ts";
import type { Phase } from "../src/protocol/phases.ts";
import { ConversationError, type EventReply, MilterClient, type Modification } from "../src/testing/index.ts";
import type { Account, Waiting } from "./account.ts";
import { FAULTS } from "./faults.ts";
import type { Incidents } from "./incidents.ts";
import { type Answer, judgeGreeting, judgeMessage, judgeUnknown, type Problem } from "./judge.ts";
import type { MessagePlan, SessionPlan } from "./plan.ts";
import { TIMEOUTS } from "./server.ts";
import { SoakTransport, type Target } from "./transport.ts";
import type { Versions } from "./versions.ts";

/** The parts that the sessions of a run share. */
export interface PlayerHome {
  readonly account: Account;
  readonly incidents: Incidents;
  readonly versions: Versions;
  readonly bodies: Uint8Array;
  readonly targets: { readonly unix: Target; readonly tcp: Target };
  readonly allowanceMs: number;
  /** No further message is to be begun. */
  readonly isOver: boolean;
  /** Settles when a message may be begun. */
  pace(): Promise<void>;
  /** Settles after the time, or once the run is over. */
  rest(ms: number): Promise<void>;
  /** Milliseconds since the start. */
  now(): number;
  /** A handler begins to eat memory. */
  eats(): void;
}

/** Beyond the time in which an answer is late: then none is awaited any more. */
const PATIENCE_MS = 20_000;
const BLOCK_MS = (TIMEOUTS.block + 1) * 1000;
const DEADLINE_MS = { eom: TIMEOUTS.eom * 1000, other: TIMEOUTS.handler * 1000 } as const;
/** After a reply by the main thread, the lost worker may still disturb its other sessions for so long. */
const GRACE_MS = 1000;
/** The same for a worker that has eaten memory: it is ended when that is seen. */
const EATEN_MS = 3000;
const NR_FLAGS = PROTOCOL.NR_HDR | 0x0f_f000;
const ALL_PROTOCOL = 0x1f_ffff;
/** UNKNOWN commands of a client that reads nothing: more than sockets take in replies. */
const DEAF_COMMANDS = 8000;

export async function playSession(home: PlayerHome, plan: SessionPlan): Promise<void> {
  const opened = home.now();
  const { vanishing } = plan;
  const leaves = vanishing === null || vanishing.how === "deaf" ? null : { ...vanishing, how: vanishing.how };
  let transport: SoakTransport;
  try {
    transport = await SoakTransport.connect(plan.isTcp ? home.targets.tcp : home.targets.unix, leaves);
  } catch (error) {
    home.account.problem("dropped", opened, plan.number, `cannot connect: ${String(error)}`);
    await home.rest(1000);
    return;
  }
  home.account.add("sessions");
  home.account.count("connections", 1);
  await new SessionPlayer(home, plan, transport, opened).play();
}

class SessionPlayer {
  readonly #home: PlayerHome;
  readonly #plan: SessionPlan;
  readonly #transport: SoakTransport;
  readonly #client: MilterClient;
  readonly #opened: number;
  /** Milliseconds that this session's own handlers may take at the commands that come. */
  #ownMs = 0;
  /** Of the incidents that last, those that this session made. */
  #ownIncidents = 0;
  #lastVersion = 0;
  #isMidMessage = false;

  constructor(home: PlayerHome, plan: SessionPlan, transport: SoakTransport, opened: number) {
    this.#home = home;
    this.#plan = plan;
    this.#transport = transport;
    this.#opened = opened;
    this.#client = MilterClient.over(transport, {
      as: plan.as,
      ...(plan.answersAll ? { offer: { protocol: ALL_PROTOCOL & ~NR_FLAGS } } : {}),
      timeoutMs: PATIENCE_MS + home.allowanceMs,
    });
  }

  async play(): Promise<void> {
    const { account } = this.#home;
    try {
      await this.#playAll();
    } catch (error) {
      if (this.#transport.hasVanished) {
        account.add("vanished");
        if (this.#isMidMessage) account.add("vanished within a message");
      } else this.#broken(error);
    } finally {
      this.#transport.destroy();
    }
    if (this.#plan.vanishing === null) return;
    // Whatever it was about: the server may have decided it before it saw the end, or while a worker was lost.
    for (const name of [
      "messages",
      "accepted",
      "rejected",
      "tempfailed",
      "discarded",
      "fallbacks",
      "connectionsRefused",
    ] as const) {
      account.count(name, 0, 1);
    }
    account.count("recipientsRefused", 0, 20);
    account.count("protocolErrors", 0, 1);
    // While it is deaf, the fallback of a lost worker cannot be given to it; half a packet cannot be gone on with.
    if (this.#home.incidents.during(this.#opened, this.#home.now()) > 0) account.count("sessionsLost", 0, 1);
  }

  async #playAll(): Promise<void> {
    const client = this.#client;
    const { fault, messages, vanishing } = this.#plan;
    await this.#timed("OPTNEG", async () => void (await client.negotiate()));
    if (await this.#greet("connect")) return;
    if (await this.#greet("helo")) return;
    if (vanishing?.how === "deaf") {
      await this.#stayDeaf();
      return;
    }
    for (const message of messages) {
      if (this.#home.isOver && message.fault === null) break;
      await this.#home.rest(message.restMs);
      await this.#home.pace();
      await this.#unknown(message);
      await this.#message(message);
    }
    const over = fault?.phase === "close" ? this.#incident(fault.kind) : null;
    const from = this.#home.now();
    await client.quit();
    if (fault?.phase !== "close") return;
    this.#home.account.add(`fault ${fault.kind}`);
    over?.(this.#home.now() + BLOCK_MS + GRACE_MS);
    // It runs at QUIT; whether its time is over before the connection has ended is another matter.
    const isSure = FAULTS[fault.kind].counter === "errors" && this.#home.incidents.during(from, this.#home.now()) === 0;
    if (isSure) this.#home.account.count("errors", 1);
    for (const name of ["errors", "timeouts", "late"] as const) this.#home.account.count(name, 0, 1);
  }

  /** @returns true if the session is over with it */
  async #greet(phase: "connect" | "helo"): Promise<boolean> {
    const { fault, helo, hostname } = this.#plan;
    const isFault = fault?.phase === phase;
    const from = this.#home.now();
    const over = isFault ? this.#incident(fault.kind) : null;
    if (isFault) this.#home.account.add(`fault ${fault.kind}`);
    this.#ownMs = isFault ? this.#waitOf(fault.kind, phase) : 0;
    let reply: EventReply = { kind: "none", sent: false };
    await this.#timed(phase, async () => {
      reply =
        phase === "connect"
          ? await this.#client.connect({ address: "192.0.2.7", hostname })
          : await this.#client.helo(helo);
    });
    this.#ownMs = 0;
    over?.(this.#home.now() + (fault?.kind === "eats" ? EATEN_MS : GRACE_MS));
    const incidents = this.#home.incidents.during(from, this.#home.now()) - (over === null ? 0 : 1);
    const { counts, isOver, problems } = judgeGreeting(this.#plan, { phase, reply }, incidents);
    this.#report(problems);
    this.#home.account.countAll(counts);
    if (isOver) {
      this.#home.account.add("connections refused or accepted whole");
      await this.#client.quit();
    }
    return isOver;
  }

  async #unknown(message: MessagePlan): Promise<void> {
    const { fault, unknown } = message;
    if (unknown === null) return;
    const isFault = fault?.phase === "unknown";
    const from = this.#home.now();
    const over = isFault ? this.#incident(fault.kind) : null;
    if (isFault) this.#home.account.add(`fault ${fault.kind}`);
    this.#ownMs = Math.max(this.#ownMs, isFault ? this.#waitOf(fault.kind, "unknown") : 0);
    let reply: EventReply = { kind: "none", sent: false };
    await this.#timed("unknown", async () => {
      reply = await this.#client.unknown(unknown);
    });
    this.#ownMs = 0;
    over?.(this.#home.now() + (fault?.kind === "eats" ? EATEN_MS : GRACE_MS));
    const incidents = this.#home.incidents.during(from, this.#home.now()) - (over === null ? 0 : 1);
    const problem = judgeUnknown(message, reply, incidents);
    if (problem !== null) this.#report([problem]);
  }

  async #message(plan: MessagePlan): Promise<void> {
    const { account, bodies, incidents, versions } = this.#home;
    const { fault } = plan;
    const from = this.#home.now();
    const isFault = fault !== null && fault.phase !== "unknown";
    const over = isFault ? this.#incident(fault.kind) : null;
    if (isFault) account.add(`fault ${fault.kind}`);
    const carried = this.#ownMs;
    this.#ownMs = Math.max(carried, isFault && fault.phase !== "abort" ? this.#waitOf(fault.kind, fault.phase) : 0);
    const body = bodies.subarray(plan.bodyAt, plan.bodyAt + plan.bodyBytes);
    const answers: Answer[] = [];
    this.#isMidMessage = true;
    const modifications = await this.#play(plan, body, answers);
    this.#isMidMessage = false;
    this.#ownMs = isFault && fault.phase === "abort" ? this.#waitOf(fault.kind, "abort") : 0;
    const to = this.#home.now();
    over?.(to + (fault?.kind === "eats" ? EATEN_MS : GRACE_MS) + (fault?.phase === "abort" ? BLOCK_MS : 0));
    const others = incidents.during(from, to) - (over === null ? 0 : 1);
    const seen = { answers, modifications };
    const judgement = judgeMessage(plan, seen, { incidents: others, body, session: this.#plan });
    this.#report(judgement.problems, plan);
    account.countAll(judgement.counts);
    account.add("messages");
    account.add(`verdict ${judgement.isFallback ? "fallback" : judgement.verdict}`);
    if (judgement.isCollateral) account.add("fallbacks beside a lost worker");
    if (judgement.stamps.length === 0) return;
    const movesMs = TIMEOUTS.drain * 1000 + this.#home.allowanceMs;
    // A worker that was lost meanwhile comes back with the code that it had, and moves its sessions then.
    const oldest = Math.max(versions.at(this.#opened), others > 0 ? 0 : versions.at(from - movesMs));
    const problem = versions.problemOf(judgement.stamps, this.#lastVersion, oldest);
    if (problem !== null) this.#report([{ kind: "wrong", text: problem }], plan);
    if (this.#lastVersion !== 0 && judgement.stamps[0] !== this.#lastVersion) account.add("moved to newer code");
    this.#lastVersion = judgement.stamps[0]!;
  }

  /** The commands of a message, until an answer ends it; gives the changes, null if it did not come so far. */
  async #play(plan: MessagePlan, body: Uint8Array, answers: Answer[]): Promise<readonly Modification[] | null> {
    const client = this.#client;
    const step = async (phase: Phase, send: () => Promise<EventReply>): Promise<boolean> => {
      let reply: EventReply = { kind: "none", sent: false };
      await this.#timed(phase, async () => {
        reply = await send();
      });
      answers.push({ phase, reply });
      return endsMessage(phase, reply);
    };
    let modifications: readonly Modification[] | null = null;
    try {
      if (await step("envfrom", () => client.envfrom(plan.sender, plan.params))) return null;
      for (const { address } of plan.recipients) {
        if (await step("envrcpt", () => client.envrcpt(address))) return null;
      }
      const isAnyAccepted = answers.some(({ phase, reply }) => phase === "envrcpt" && reply.kind === "continue");
      if (!isAnyAccepted || plan.isAborted) return null;
      if (plan.pauseMs > 0) await this.#home.rest(plan.pauseMs);
      if (await step("data", () => client.data())) return null;
      for (const [name, value] of plan.headers) {
        if (await step("header", () => client.header(name, value))) return null;
      }
      if (await step("eoh", () => client.eoh())) return null;
      if (body.length > 0 && (await step("body", () => client.body(body)))) return null;
      await step("eom", async () => {
        const reply = await client.eom();
        ({ modifications } = reply);
        return reply;
      });
      return modifications;
    } finally {
      if (!this.#client.isClosed) await client.abort().catch(() => undefined);
    }
  }

  async #stayDeaf(): Promise<void> {
    this.#home.account.add("deaf");
    this.#transport.deafen();
    const writer = new CommandWriter();
    for (let count = 0; count < DEAF_COMMANDS; count++) writer.unknown("WHO reads nothing at all");
    this.#client.write(writer.copy());
    await this.#home.rest(2000);
    this.#transport.destroy();
  }

  /** Runs a command, and records the time of its reply. */
  async #timed(phase: string, run: () => Promise<void>): Promise<void> {
    const from = this.#home.now();
    await run();
    const to = this.#home.now();
    const ms = to - from;
    const beside = this.#home.incidents.during(from, to) - this.#ownIncidents;
    const waiting: Waiting =
      this.#ownMs > 0 ? "of a failing handler" : beside > 0 ? "beside a lost worker" : "ordinary";
    const limit = this.#ownMs + beside * BLOCK_MS + this.#home.allowanceMs;
    this.#home.account.answered(waiting, ms, `${phase} of session ${this.#plan.number}`);
    if (ms > limit) this.#late(`${phase}: answered after ${Math.round(ms)} ms, allowed are ${limit}`);
  }

  #waitOf(kind: keyof typeof FAULTS, phase: Phase): number {
    const { wait } = FAULTS[kind];
    if (wait === "none") return 0;
    return wait === "block" ? BLOCK_MS : phase === "eom" ? DEADLINE_MS.eom : DEADLINE_MS.other;
  }

  /** From now on other sessions are excused; null for a fault that leaves its worker alive. */
  #incident(kind: keyof typeof FAULTS): ((to: number) => void) | null {
    if (kind === "eats") this.#home.eats();
    if (!FAULTS[kind].losesWorker) return null;
    const end = this.#home.incidents.begin(this.#home.now());
    this.#ownIncidents = 1;
    return (to) => {
      this.#ownIncidents = 0;
      end(to);
    };
  }

  #report(problems: readonly Problem[], message?: MessagePlan): void {
    const where = message === undefined ? "" : `message ${message.sender}: `;
    for (const { kind, text } of problems) {
      this.#home.account.problem(kind, this.#home.now(), this.#plan.number, where + text, this.#transport.conversation);
    }
  }

  #late(text: string): void {
    this.#home.account.problem("late", this.#home.now(), this.#plan.number, text, this.#transport.conversation);
  }

  #broken(error: unknown): void {
    const kind = !(error instanceof ConversationError)
      ? "wrong"
      : error.code === "PMILTER_ERR_TIMEOUT"
        ? "late"
        : "dropped";
    const text = error instanceof Error ? error.message : String(error);
    this.#home.account.problem(kind, this.#home.now(), this.#plan.number, text, this.#transport.conversation);
    // The outcome of its message is not known.
    if (!this.#isMidMessage) return;
    for (const name of ["messages", "tempfailed", "fallbacks"] as const) this.#home.account.count(name, 0, 1);
  }
}

function endsMessage(phase: Phase, reply: EventReply): boolean {
  if (reply.kind === "none" || reply.kind === "continue" || reply.kind === "skip") return false;
  return phase !== "envrcpt" || reply.kind === "accept" || reply.kind === "discard";
}
