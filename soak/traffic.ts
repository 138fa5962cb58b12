/** The connections of a run: their roles, in which proportion, and how fast they follow each other. */
import type { SoakArguments } from "./args.ts";
import { type Fault, faultsOf, includesHandlers, includesWorkers } from "./faults.ts";
import { planSession, type Role } from "./plan.ts";
import { playGarbage } from "./garbage.ts";
import { type PlayerHome, playSession } from "./player.ts";
import { Random } from "./random.ts";

/** Milliseconds between two faults of a kind: more often, and nothing but faults would be seen. */
const HANDLER_FAULT_MS = 300;
const WORKER_FAULT_MS = 3500;
/** So many at a time: now and then every worker is lost at once. */
const WORKER_FAULTS = 2;

/** Messages are begun no faster than so many a second. */
export class Pace {
  readonly #gapMs: number;
  #next = 0;

  constructor(perSecond: number) {
    this.#gapMs = 1000 / perSecond;
  }

  async wait(): Promise<void> {
    const now = performance.now();
    this.#next = Math.max(this.#next + this.#gapMs, now - 100);
    if (this.#next > now) await Bun.sleep(this.#next - now);
  }
}

/** Keeps all connections of the run busy until it is over; settles when the last has ended. */
export async function drive(home: PlayerHome, args: SoakArguments): Promise<void> {
  let number = 0;
  const lane = async (role: Role): Promise<void> => {
    while (!home.isOver) await playSession(home, planSession(args.seed, ++number, role));
  };
  const faults = async (list: readonly Fault[], gapMs: number, lane = 0): Promise<void> => {
    const random = new Random(args.seed, 0xfa01 + lane);
    while (!home.isOver) {
      for (const fault of random.shuffled(list)) {
        if (home.isOver) return;
        await playSession(home, planSession(args.seed, ++number, "fault", fault));
        await home.rest(random.between(gapMs >> 1, gapMs + (gapMs >> 1)));
      }
    }
  };
  const garbage = async (): Promise<void> => {
    const random = new Random(args.seed, 0x6a4b);
    while (!home.isOver) {
      await playGarbage(home, ++number, random);
      await home.rest(random.between(100, 900));
    }
  };
  const share = (part: number) => Math.max(1, Math.round(args.connections * part));
  const lanes = (count: number, role: Role) => Array.from({ length: count }, () => lane(role));
  const isHarsh = includesHandlers(args.faults);
  await Promise.all([
    ...lanes(share(isHarsh ? 0.6 : 0.8), "mail"),
    ...lanes(share(0.2), "idle"),
    ...(isHarsh ? [...lanes(share(0.1), "vanish"), garbage(), faults(faultsOf(false), HANDLER_FAULT_MS)] : []),
    ...(includesWorkers(args.faults)
      ? Array.from({ length: WORKER_FAULTS }, (_, lane) => faults(faultsOf(true), WORKER_FAULT_MS, lane))
      : []),
  ]);
}
