/**
 * The locks of `Mutex`, for the Ruby threads of a worker. A lock is a key of the store that is claimed for a time: other
 * workers, and with Redis other machines, see it, and one whose worker is lost ends by itself. Within the worker the calls
 * wait in line, and a claim may be handed on to the next.
 */
import type { Store } from "../../store/types.ts";

/** Between two attempts to claim, in milliseconds: chosen by chance, so that no worker is always the second. */
const [MIN_WAIT_MS, MAX_WAIT_MS] = [1, 6];
/** A claim is handed on so often: then other workers have their turn. */
const MAX_HANDED = 8;

export interface LocksHost {
  readonly store: Store;
  /** The longest time that a call has a lock. */
  readonly holdMs: number;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
  /** A lock could not be given back: it ends with its time. */
  failed(error: unknown): void;
}

interface Waiter {
  readonly owner: object;
  resolve(isHad: boolean): void;
  reject(error: unknown): void;
}

class Lock {
  readonly #key: string;
  readonly #host: LocksHost;
  #owner: object | null = null;
  #waiters: Waiter[] = [];
  /** It is being claimed or given back. */
  #isBusy = false;
  #claimEnd = 0;
  #handed = 0;

  constructor(key: string, host: LocksHost) {
    this.#key = key;
    this.#host = host;
  }

  /** @param until on the host's clock; it is tried at least once unless others of this worker wait */
  async acquire(owner: object, until: number): Promise<boolean> {
    const { now } = this.#host;
    const isFree = this.#owner === null && this.#waiters.length === 0;
    if (now() >= until) {
      if (!isFree || this.#isBusy) return false;
      this.#isBusy = true;
      try {
        if (!(await this.#claim())) return false;
        this.#owner = owner;
        return true;
      } finally {
        this.#isBusy = false;
        void this.#advance();
      }
    }
    const { promise, reject, resolve } = Promise.withResolvers<boolean>();
    const waiter: Waiter = { owner, resolve, reject };
    this.#waiters.push(waiter);
    const timer = setTimeout(() => this.#leave(waiter), until - now());
    void this.#advance();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The owner gives it back, or waits no more. */
  release(owner: object): void {
    for (const waiter of this.#waiters.filter((one) => one.owner === owner)) this.#leave(waiter);
    if (this.#owner !== owner) return;
    this.#owner = null;
    const isLasting = this.#host.now() + this.#host.holdMs < this.#claimEnd;
    if (this.#waiters.length > 0 && isLasting && this.#handed < MAX_HANDED) {
      this.#handed += 1;
      this.#give();
      return;
    }
    void this.#giveBack();
  }

  async isHeld(): Promise<boolean> {
    return this.#owner !== null || (await this.#host.store.get(this.#key)) !== undefined;
  }

  #leave(waiter: Waiter): void {
    const at = this.#waiters.indexOf(waiter);
    if (at === -1) return;
    this.#waiters.splice(at, 1);
    waiter.resolve(false);
  }

  #give(): void {
    const { owner, resolve } = this.#waiters.shift()!;
    this.#owner = owner;
    resolve(true);
  }

  async #claim(): Promise<boolean> {
    const { holdMs, now, store } = this.#host;
    const leaseMs = 1.5 * holdMs;
    const end = now() + leaseMs;
    if (!(await store.claim(this.#key, { ttl: leaseMs / 1000 }))) return false;
    this.#claimEnd = end;
    this.#handed = 0;
    return true;
  }

  async #giveBack(): Promise<void> {
    const { failed, now, store } = this.#host;
    this.#isBusy = true;
    try {
      // After its end it may be another's.
      if (now() < this.#claimEnd) await store.delete(this.#key);
    } catch (error) {
      failed(error);
    } finally {
      this.#isBusy = false;
    }
    void this.#advance();
  }

  /** Claims it for the first that waits. */
  async #advance(): Promise<void> {
    if (this.#isBusy || this.#owner !== null || this.#waiters.length === 0) return;
    this.#isBusy = true;
    let isClaimed = false;
    try {
      while (this.#waiters.length > 0) {
        isClaimed = await this.#claim();
        if (isClaimed) break;
        await Bun.sleep(MIN_WAIT_MS + Math.random() * (MAX_WAIT_MS - MIN_WAIT_MS));
      }
    } catch (error) {
      this.#waiters.shift()?.reject(error);
    }
    this.#isBusy = false;
    if (!isClaimed) void this.#advance();
    else if (this.#waiters.length > 0) this.#give();
    else void this.#giveBack();
  }
}

/** All locks of a worker, each by its key in the store. */
export class Locks {
  readonly #host: LocksHost;
  readonly #locks = new Map<string, Lock>();

  constructor(host: LocksHost) {
    this.#host = host;
  }

  of(key: string): Lock {
    let lock = this.#locks.get(key);
    if (lock === undefined) this.#locks.set(key, (lock = new Lock(key, this.#host)));
    return lock;
  }
}
