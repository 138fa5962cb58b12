/**
 * Watches files and reports changes, once the files have stopped changing. A thread of its own looks at them several times a
 * second. Events of the system cannot be relied on: for a replaced folder, a turned link, a file that does not exist yet, and
 * network file systems they may not come.
 */
export interface WatchEvents {
  /** A file looks different, or may do so. */
  changed(): void;
  /** The thread has ended by itself: nothing is watched until the next {@link FileWatcher.set}. */
  failed(reason: string): void;
}

export class FileWatcher {
  readonly #url: URL;
  readonly #events: WatchEvents;
  /** Started when there is something to watch. */
  #thread: Worker | null = null;
  #isClosed = false;

  /** @param url of `watch-entry.ts` */
  constructor(url: URL, events: WatchEvents) {
    this.#url = url;
    this.#events = events;
  }

  /**
   * Watches exactly these files from now on. Whether they have changed before this call is not known here: the first look
   * may report a change where there is none.
   */
  set(paths: readonly string[]): void {
    if (this.#isClosed || (this.#thread === null && paths.length === 0)) return;
    this.#thread ??= this.#start();
    this.#thread.postMessage(paths);
  }

  close(): void {
    this.#isClosed = true;
    this.#thread?.terminate();
  }

  #start(): Worker {
    const thread = new Worker(this.#url.href, { name: "watch", smol: true });
    let reason = "it ended by itself";
    thread.onmessage = () => {
      if (!this.#isClosed) this.#events.changed();
    };
    thread.onerror = (event) => {
      event.preventDefault();
      // Lines of the source may stand in front of it.
      reason = event.message.split("\n").find((line) => /^\w*error: /i.test(line)) ?? "an error";
    };
    thread.addEventListener("close", () => {
      this.#thread = null;
      if (!this.#isClosed) this.#events.failed(reason);
    });
    // Watching alone keeps no process alive.
    thread.unref();
    return thread;
  }
}
