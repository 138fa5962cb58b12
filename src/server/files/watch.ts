/**
 * Watches files and tells when one has changed and all have been quiet. They are looked at now and then, in a thread of its
 * own, instead of asking the system for events: a folder that is replaced, a link that is turned, a file that is yet to be
 * made, and network file systems give none that can be relied on.
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
   * Watches these files from now on, and no others. Whether they have changed before this call is not known here: the
   * first look may tell of a change that is none.
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
