/**
 * A thread that looks at files several times a second, by blocking calls. They cost a fraction of asynchronous calls, and
 * may hang on a network file system: then only this thread hangs.
 */
import { Looker } from "./look.ts";
import { WATCH_MS, WATCHED_A_SECOND } from "../policy.ts";

/** The side of the thread that the main thread talks to: paths come in, and a `true` goes out for a change. */
interface WatchScope {
  postMessage(hasChanged: true): void;
  onmessage: (event: { readonly data: readonly string[] }) => void;
}
declare const self: WatchScope;

let looker: Looker | null = null;
let timer: ReturnType<typeof setTimeout> | undefined;

self.onmessage = ({ data: paths }) => {
  looker?.close();
  looker = paths.length === 0 ? null : new Looker(paths);
  schedule();
};

function schedule(): void {
  clearTimeout(timer);
  if (looker === null) return;
  timer = setTimeout(look, Math.max(WATCH_MS, (looker.filesPerLook / WATCHED_A_SECOND) * 1000));
}

function look(): void {
  if (looker?.look() === true) self.postMessage(true);
  schedule();
}
