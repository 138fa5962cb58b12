/**
 * Lines that a stream of connections or errors repeats. Of each kind the first lines of a minute are written and further
 * lines counted; the count is written at the end of the minute. So a kind that goes on costs a single line a minute.
 */
import type { LogLevel } from "./log-level.ts";

/** Lines of a kind that are written in a minute; further lines are only counted. */
export const MAX_LINES = 30;
export const WINDOW_MS = 60_000;

interface Kind {
  level: LogLevel;
  written: number;
  heldBack: number;
  cancel(): void;
}

export interface LineLimitHost {
  /** Writes how many lines of a kind were not written. */
  tell(level: LogLevel, kind: string, count: number): void;
  /** @returns a function that cancels it */
  after(ms: number, callback: () => void): () => void;
}

export class LineLimit {
  readonly #host: LineLimitHost;
  readonly #kinds = new Map<string, Kind>();

  constructor(host: LineLimitHost) {
    this.#host = host;
  }

  /** A line of this kind is about to be written. @returns false if it is to be left out, since it was counted */
  admits(kind: string, level: LogLevel): boolean {
    const known = this.#kinds.get(kind);
    if (known === undefined) {
      const made: Kind = { level, written: 1, heldBack: 0, cancel: () => undefined };
      this.#kinds.set(kind, made);
      this.#wait(kind, made);
      return true;
    }
    known.level = level;
    if (known.written < MAX_LINES) {
      known.written += 1;
      return true;
    }
    known.heldBack += 1;
    return false;
  }

  /** Writes all counts now, at the end of the server: there will be no end of the minute. */
  close(): void {
    for (const [kind, { cancel, heldBack, level }] of this.#kinds) {
      cancel();
      if (heldBack > 0) this.#host.tell(level, kind, heldBack);
    }
    this.#kinds.clear();
  }

  #wait(kind: string, state: Kind): void {
    state.cancel = this.#host.after(WINDOW_MS, () => {
      const { heldBack, level } = state;
      if (heldBack === 0) {
        this.#kinds.delete(kind);
        return;
      }
      // It goes on: from now on only counts are told, until a minute has passed without any.
      state.heldBack = 0;
      state.written = MAX_LINES;
      this.#wait(kind, state);
      this.#host.tell(level, kind, heldBack);
    });
  }
}
