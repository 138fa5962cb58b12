/**
 * The states of a worker's thread, of a worker, and of a generation, and for each a table of the legal transitions. Code
 * that asks for an illegal transition is wrong, and gets an internal error. Pure.
 */

/** The states that may follow each state. */
type Transitions<S extends string> = Readonly<Record<S, readonly S[]>>;

/**
 * - `running`: its code runs.
 * - `ending`: it was told to end.
 * - `stuck`: it has not ended within the time limit: it is in a native call that does not return.
 * - `gone`: it has ended.
 */
export type ThreadState = "running" | "ending" | "stuck" | "gone";
export const THREAD_TRANSITIONS: Transitions<ThreadState> = {
  running: ["ending", "gone"],
  ending: ["stuck", "gone"],
  stuck: ["gone"],
  gone: [],
};

/**
 * - `loading`: it loads its handlers and starts its filters.
 * - `ready`: it takes sessions that it is given.
 * - `accepting`: it also accepts connections, or has been told to.
 * - `leaving`: it finishes its sessions and takes no more: it holds too much memory, or is not needed any more.
 * - `ending`: its connections were taken from it, and its thread is being ended.
 * - `over`: its sessions have been passed on; its thread may still run.
 */
export type WorkerState = "loading" | "ready" | "accepting" | "leaving" | "ending" | "over";
export const WORKER_TRANSITIONS: Transitions<WorkerState> = {
  loading: ["ready", "ending", "over"],
  ready: ["accepting", "leaving", "ending"],
  accepting: ["ready", "ending"],
  leaving: ["ending"],
  ending: ["over"],
  over: [],
};

/**
 * - `loading`: its first workers load.
 * - `serving`: all have loaded. A worker that is lost is replaced, as in `loading`.
 * - `draining`: it takes no new sessions and finishes those that it has. A lost worker is replaced only for sessions that
 *   the current generation cannot take.
 * - `stopping`: the server stops. Sessions finish, and no worker is started.
 * - `cut`: sessions are ended, or it could not be loaded. No worker is started.
 * - `ended`: all workers are over.
 */
export type GenerationState = "loading" | "serving" | "draining" | "stopping" | "cut" | "ended";
export const GENERATION_TRANSITIONS: Transitions<GenerationState> = {
  // A stand-in may be dismissed in the moment that it is ready.
  loading: ["serving", "draining", "stopping", "cut"],
  serving: ["draining", "stopping", "cut"],
  draining: ["stopping", "cut", "ended"],
  stopping: ["cut", "ended"],
  cut: ["ended"],
  ended: [],
};

/** The state of a thread, a worker or a generation. */
export class Life<S extends string> {
  readonly #name: string;
  readonly #transitions: Transitions<S>;
  #state: S;

  /** @param name of the thing, for errors */
  constructor(name: string, transitions: Transitions<S>, first: S) {
    this.#name = name;
    this.#transitions = transitions;
    this.#state = first;
  }

  get state(): S {
    return this.#state;
  }

  /** Whether its state is among these. */
  is(...states: readonly S[]): boolean {
    return states.includes(this.#state);
  }

  /** Whether this state may follow. */
  can(next: S): boolean {
    return this.#transitions[this.#state].includes(next);
  }

  /** @throws Error if this state may not follow: a mistake of this program */
  to(next: S): void {
    if (!this.can(next)) throw new Error(`internal error: ${this.#name} is ${this.#state} and cannot become ${next}`);
    this.#state = next;
  }
}
