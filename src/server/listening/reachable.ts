/**
 * Keeps a listener with few, short connections reachable when handlers or mail have used up all descriptors: some are
 * kept back for a client that connects then. Where even those are used up it does not accept, since trying would take a core.
 */
import { openSync } from "node:fs";
import { devNull } from "node:os";
import { canOpen } from "./descriptors.ts";
import { close, dup } from "../../net/libc.ts";
import type { Listener } from "./listener.ts";

const LOOK_MS = 200;
/** Descriptors of a connection: the accepted descriptor, and a duplicate that is read. */
const OF_CONNECTION = 2;
/** Accepting again after a pause takes a further descriptor. */
const KEPT_BACK = OF_CONNECTION + 1;
/** With so many free besides, they are kept back again. */
const ENOUGH = 16;

export class Reachable {
  readonly #source = openSync(devNull, "r");
  readonly #reserve: number[] = [];
  #isPaused = false;

  constructor() {
    this.#keep();
  }

  /** A duplicate, if need be by a descriptor that was kept back. Throws LibcError. */
  dup(fd: number): number {
    try {
      return dup(fd);
    } catch {
      this.#release();
      return dup(fd);
    }
  }

  /** The same listener, looked after until it is closed. */
  watch(listener: Listener): Listener {
    const timer = setInterval(() => this.#look(listener), LOOK_MS);
    // Looking alone keeps no process alive.
    timer.unref();
    return {
      address: listener.address,
      isAlive: () => listener.isAlive(),
      isReachable: () => listener.isReachable(),
      pause: () => listener.pause(),
      resume: () => listener.resume(),
      close: (options) => {
        clearInterval(timer);
        this.close();
        listener.close(options);
      },
    };
  }

  /** Nothing is kept back any more. */
  close(): void {
    this.#release();
    close(this.#source);
  }

  #look(listener: Listener): void {
    if (!canOpen(this.#source, OF_CONNECTION)) this.#release();
    else if (this.#reserve.length === 0 && canOpen(this.#source, KEPT_BACK + ENOUGH)) this.#keep();
    const mayAccept = canOpen(this.#source, this.#isPaused ? KEPT_BACK : OF_CONNECTION);
    if (mayAccept !== this.#isPaused) return;
    try {
      if (mayAccept) listener.resume();
      else listener.pause();
      this.#isPaused = !mayAccept;
    } catch {
      // Other code has taken the descriptors: the next look tries again.
    }
  }

  #keep(): void {
    try {
      while (this.#reserve.length < KEPT_BACK) this.#reserve.push(dup(this.#source));
    } catch {
      // Fewer are better than none.
    }
  }

  #release(): void {
    for (const descriptor of this.#reserve.splice(0)) close(descriptor);
  }
}
