/**
 * A conversation with a host made by hand: a clock that the test moves, and reads that are overwritten as soon as
 * their callback is over, as a socket may do. Whoever keeps a view of a read fails loudly.
 */
import { testServices } from "../../src/testing/services.ts";
import type { LogLevel } from "../../src/admin/log-level.ts";
import { parseConfig } from "../../src/config/load.ts";
import { compileConditions, type Conditions, scopeOf, type SessionScope } from "../../src/handler/conditions.ts";
import { Chain, type ChainPolicy, type Limits } from "../../src/handler/chain.ts";
import type { WorkerCounter } from "../../src/counters.ts";
import { Conversation, type ConversationHost } from "../../src/handler/conversation.ts";
import type { Fallback } from "../../src/handler/fallback.ts";
import { checkFilter } from "../../src/handler/filter.ts";
import { RunningOutcomes } from "../../src/handler/outcomes.ts";
import type { FailureReport, Report, VerdictReport } from "../../src/handler/report.ts";
import type { Spool } from "../../src/handler/message/spool.ts";
import type { Filter } from "../../src/handler/types.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { type Session, UsageError } from "../../src/index.ts";
import { ALL, ALL_NR, cmd, packetsOf } from "../protocol/wire.ts";

/** What the configuration would say of a filter, beside the filter itself. */
export interface Place {
  readonly onError?: Fallback;
  readonly onTimeout?: Fallback;
  readonly timeoutMs?: number;
  readonly isObserved?: boolean;
  readonly options?: unknown;
  /** `[filter.when]`, as the configuration would have it. */
  readonly when?: string;
}

export interface Setting {
  readonly limits?: Partial<Limits>;
  readonly onError?: Fallback;
  readonly deferContent?: boolean;
  readonly reportsAccepted?: boolean;
  /** What the mail server offers; everything by default. */
  readonly version?: number;
  readonly actions?: number;
  readonly protocol?: number;
}

// Filters of any types, as a chain takes them.
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyFilter = Filter<any, any, any, any>;
export type Placed = AnyFilter | readonly [AnyFilter, Place];

const LIMITS: Limits = {
  packet: 1 << 20,
  headers: 1000,
  headerBytes: 1 << 20,
  recipients: 1000,
  macros: 1 << 16,
  body: 1 << 24,
};

export const HANDLER_TIMEOUT_MS = 8000;
export const EOM_TIMEOUT_MS = 240_000;

/** All flags but those that take replies away. */
export const NO_NR = ALL & ~ALL_NR;

export function chainOf(filters: readonly Placed[], setting: Setting = {}): Chain {
  const policy: ChainPolicy = {
    onError: setting.onError ?? "tempfail",
    handlerTimeoutMs: HANDLER_TIMEOUT_MS,
    eomTimeoutMs: EOM_TIMEOUT_MS,
    deferContent: setting.deferContent ?? true,
    limits: { ...LIMITS, ...setting.limits },
  };
  const places = filters.map((placed, index) => {
    const [filter, place] = (Array.isArray(placed) ? placed : [placed, {}]) as [AnyFilter, Place];
    return {
      index,
      loaded: checkFilter(filter, `filter${index + 1}`),
      onError: place.onError ?? "tempfail",
      onTimeout: place.onTimeout ?? "tempfail",
      timeoutMs: place.timeoutMs ?? null,
      isObserved: place.isObserved ?? false,
      options: place.options ?? {},
      own: undefined,
      files: {},
      ...conditionsOf(place.when),
    };
  });
  return new Chain(places, policy);
}

/** @param text the lines of `[filter.when]` */
function conditionsOf(text: string | undefined): { scope: SessionScope | null; conditions: Conditions | null } {
  if (text === undefined) return { scope: null, conditions: null };
  const toml = `[server]\nlisten = ["inet:127.0.0.1:1", "inet:127.0.0.1:2"]\n[[filter]]\npath = "a.ts"\n[filter.when]\n${text}\n`;
  const { when } = parseConfig(toml, "/harness.toml", {}).filters[0]!;
  return { scope: scopeOf(when), conditions: compileConditions(when) };
}

interface Timer {
  readonly at: number;
  readonly callback: () => void;
}

export class FakeHost implements ConversationHost {
  readonly isTurnOver = false;
  readonly outcomes = new RunningOutcomes();
  logs: (level: LogLevel) => boolean = () => true;
  spool: Spool | null = null;
  isTrial = false;
  readonly services = testServices(this);
  time = 1000;
  readonly reports: Report[] = [];
  /** Mistakes of ours, each of which would end the connection. */
  readonly mistakes: unknown[] = [];
  readonly counts: Partial<Record<WorkerCounter, number>> = {};
  readonly reportsAccepted: boolean;
  timers: Timer[] = [];
  resume: () => void = () => undefined;
  flush: () => void = () => undefined;

  constructor(reportsAccepted: boolean) {
    this.reportsAccepted = reportsAccepted;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.time + ms, callback };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((other) => other !== timer);
    };
  }

  now(): number {
    return this.time;
  }

  get arrivedAt(): number {
    return this.time;
  }

  report(report: Report): void {
    this.reports.push(report);
  }

  count(counter: WorkerCounter): void {
    this.counts[counter] = (this.counts[counter] ?? 0) + 1;
  }

  failed(error: unknown): void {
    this.mistakes.push(error);
  }

  calling(): void {}

  suspended(): void {}

  /** Moves the clock and runs the timers that are due on the way, each at its time. */
  advance(ms: number): void {
    const until = this.time + ms;
    for (;;) {
      const due = this.timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0];
      if (due === undefined) break;
      this.timers = this.timers.filter((timer) => timer !== due);
      this.time = due.at;
      due.callback();
    }
    this.time = until;
  }
}

/** One mail server connection without a socket. */
export class Line {
  readonly host: FakeHost;
  readonly writer = new ReplyWriter();
  readonly conversation: Conversation;
  /** Reading is paused, since so much is queued. */
  isPaused = false;
  /** Replies not looked at yet. */
  #sent: string[] = [];

  constructor(chain: Chain, reportsAccepted = false) {
    this.host = new FakeHost(reportsAccepted);
    this.host.resume = () => this.#work();
    this.host.flush = () => this.#flush();
    this.conversation = new Conversation(chain, this.writer, this.host);
  }

  /** A connection to these filters, negotiated. */
  static to(filters: readonly Placed[], setting: Setting = {}): Line {
    const line = new Line(chainOf(filters, setting), setting.reportsAccepted);
    line.send(cmd.optneg(setting.version ?? 6, setting.actions ?? 0x1ff, setting.protocol ?? ALL));
    return line;
  }

  /** Sends packets, each as a read of its own, overwritten once it was taken; gives the replies so far. */
  send(...reads: readonly Uint8Array[]): string[] {
    for (const read of reads) {
      const chunk = Buffer.from(read);
      const { session } = this.conversation;
      session.push(chunk);
      if (this.conversation.isWaiting) {
        session.survey();
        this.conversation.foresee(this.isPaused);
      } else this.#work();
      if (!this.conversation.isWaiting) chunk.fill(0x2a);
    }
    return this.replies();
  }

  /** Replies since the last look: the code letter, and the payload in latin1. */
  replies(): string[] {
    this.#flush();
    const sent = this.#sent;
    this.#sent = [];
    return sent;
  }

  get failures(): FailureReport[] {
    return this.host.reports.filter((report) => report.kind === "failure");
  }

  get verdicts(): VerdictReport[] {
    return this.host.reports.filter((report) => report.kind === "verdict");
  }

  /** The connection is gone. */
  hangUp(): void {
    this.conversation.hangUp();
    this.writer.clear();
  }

  #work(): void {
    this.conversation.session.survey();
    this.conversation.pump();
    if (!this.conversation.isWaiting) return;
    this.conversation.foresee(this.isPaused);
  }

  #flush(): void {
    this.#sent.push(...packetsOf(this.writer.copy()));
    this.writer.clear();
  }
}

/** Lets promises that are settled run their continuations. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

/** A message in steps, one a phase, for tests that look at each reply. */
export const STEPS = {
  connect: cmd.connect(),
  helo: cmd.helo(),
  envfrom: cmd.mail(),
  envrcpt: cmd.rcpt(),
  data: cmd.data(),
  header: cmd.header(),
  eoh: cmd.eoh(),
  body: cmd.body(),
  eom: cmd.eom(),
} as const;
export type StepName = keyof typeof STEPS;
export const STEP_NAMES = Object.keys(STEPS) as StepName[];

/** The flags by which a filter switches a step off (docs/protocol.md, "Protocol flags"). */
const NO: Readonly<Record<StepName, number>> = {
  connect: 0x1,
  helo: 0x2,
  envfrom: 0x4,
  envrcpt: 0x8,
  data: 0x200,
  header: 0x20,
  eoh: 0x40,
  body: 0x10,
  eom: 0,
};

/** Plays the steps that the filter has not switched off; gives the replies of each, as one word per step that had any. */
export async function play(line: Line, steps: readonly StepName[] = STEP_NAMES): Promise<string> {
  const words: string[] = [];
  for (const step of steps) {
    if ((line.conversation.session.options.protocol & NO[step]) !== 0) continue;
    const replies = line.send(STEPS[step]);
    await settled();
    replies.push(...line.replies());
    words.push(`${step}:${replies.join(",")}`);
  }
  return words.filter((word) => !word.endsWith(":")).join(" ");
}

/** A filter that has the body and is asked at the end of the message. */
export const collecting = (eom: (session: Session<"eom">) => unknown): AnyFilter => ({
  collectBody: true,
  eom: (session) => eom(session) as undefined,
});

/** The code of the UsageError that something throws, the text of another error, `"none"` if nothing is thrown. */
export function codeOf(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    return error instanceof UsageError ? error.code : String(error);
  }
  return "none";
}
