/** The account of a run: counts of what was sent and received, and all faults. Pure. */
import type { Counts } from "../src/counters.ts";
import type { Count } from "./judge.ts";

export const PROBLEM_KINDS = [
  /** The server closed or refused a connection without a reason in the packets that were sent. */
  "dropped",
  /** A reply that is neither right nor an allowed fallback. */
  "wrong",
  /** The worst fault: a message passed that a rule refuses, or that a failed handler had to decide on. */
  "accepted against a rule",
  /** An answer after the time that is allowed for it, or none at all. */
  "late",
  /** A counter of the server, or its memory or descriptors, is wrong. */
  "server",
] as const;
export type ProblemKind = (typeof PROBLEM_KINDS)[number];

export interface Example {
  readonly kind: ProblemKind;
  /** Milliseconds since the start. */
  readonly at: number;
  readonly session: number;
  readonly text: string;
  /** Packets and replies. */
  readonly conversation: readonly string[];
  /** The server's log up to then. */
  readonly log: readonly string[];
}

/** Examples that are kept of each kind. */
const KEPT = 3;

/** How an answer was to be expected: each has its own worst time. */
export type Waiting = "ordinary" | "beside a lost worker" | "of a failing handler";

export interface Worst {
  readonly ms: number;
  readonly what: string;
}

export type CountName = keyof Counts;

export class Account {
  readonly #problems: Record<ProblemKind, number> = {
    dropped: 0,
    wrong: 0,
    "accepted against a rule": 0,
    late: 0,
    server: 0,
  };
  readonly examples: Example[] = [];
  readonly #counts = new Map<CountName, { sure: number; perhaps: number }>();
  readonly #tally = new Map<string, number>();
  readonly #worst = new Map<Waiting, Worst>();
  readonly #log: () => readonly string[];

  /** @param log the server's last lines */
  constructor(log: () => readonly string[] = () => []) {
    this.#log = log;
  }

  problem(kind: ProblemKind, at: number, session: number, text: string, conversation: readonly string[] = []): void {
    this.#problems[kind] += 1;
    if (this.#problems[kind] <= KEPT) this.examples.push({ kind, at, session, text, conversation, log: this.#log() });
  }

  get problems(): Readonly<Record<ProblemKind, number>> {
    return this.#problems;
  }

  get hasFailed(): boolean {
    return PROBLEM_KINDS.some((kind) => this.#problems[kind] > 0);
  }

  /** Counts a thing that the summary names. */
  add(what: string, by = 1): void {
    this.#tally.set(what, (this.#tally.get(what) ?? 0) + by);
  }

  get(what: string): number {
    return this.#tally.get(what) ?? 0;
  }

  /** In alphabetical order. */
  get tally(): Readonly<Record<string, number>> {
    return Object.fromEntries([...this.#tally].toSorted(([a], [b]) => (a < b ? -1 : 1)));
  }

  answered(waiting: Waiting, ms: number, what: string): void {
    this.add("answers");
    if (ms > (this.#worst.get(waiting)?.ms ?? 0)) this.#worst.set(waiting, { ms, what });
  }

  get worst(): Readonly<Partial<Record<Waiting, Worst>>> {
    return Object.fromEntries(this.#worst);
  }

  /** The server must have counted it so often, and may have besides. */
  count(name: CountName, sure: number, perhaps = 0): void {
    const count = this.#counts.get(name);
    if (count === undefined) this.#counts.set(name, { sure, perhaps });
    else {
      count.sure += sure;
      count.perhaps += perhaps;
    }
  }

  countAll(counts: readonly Count[]): void {
    for (const { name, perhaps, sure } of counts) this.count(name, sure, perhaps);
  }

  /** The server's own counters, each beside its expected value. */
  compare(counters: Readonly<Record<string, number>>, names: readonly CountName[]): Comparison[] {
    return names.map((name) => {
      const { perhaps = 0, sure = 0 } = this.#counts.get(name) ?? {};
      const counted = counters[name] ?? null;
      const isRight = counted === null || (counted >= sure && counted <= sure + perhaps);
      return { name, counted, least: sure, most: sure + perhaps, isRight };
    });
  }
}

export interface Comparison {
  readonly name: CountName;
  /** By the server; null if it has no such counter. */
  readonly counted: number | null;
  readonly least: number;
  readonly most: number;
  readonly isRight: boolean;
}
