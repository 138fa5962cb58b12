/**
 * The event poll of a thread: the epoll instance that its event loop waits on. Another thread needs its number: it has to
 * remove a descriptor from the event poll before it replaces the descriptor's file.
 *
 * Linux keeps an entry of an epoll instance by number and open file. As long as another descriptor of that file exists, the
 * entry outlives the closing or replacing of its number, and no call can remove it any more: the event loop of Bun 1.4.5
 * would get events of a socket whose memory it has freed, and the process would crash (docs/bun.md, "Sockets").
 */
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { adopt } from "./adopt.ts";
import { close, deadSocket } from "./libc.ts";

const NO_HANDLERS = { open() {}, data() {}, error() {} };
const FOLDER = "/proc/self";

/**
 * The descriptor of this thread's event poll, which the event loop keeps; null where it cannot be found (macOS, no /proc).
 */
export function findEventPoll(): number | null {
  if (process.platform !== "linux") return null;
  // Only the event loop of this thread waits for a socket that has just been given to it.
  const probe = deadSocket();
  let taken: Promise<Bun.Socket>;
  try {
    taken = adopt({ fd: probe, socket: NO_HANDLERS, data: undefined });
  } catch (error) {
    close(probe);
    throw error;
  }
  const found = pollOf(probe);
  taken.then(
    (socket) => socket.terminate(),
    // Bun has closed it: it is connected to nothing.
    () => {},
  );
  return found;
}

/** The event poll that has an entry for this number. */
function pollOf(descriptor: number): number | null {
  const entry = new RegExp(`^tfd: +${descriptor} `, "m");
  for (const name of list(`${FOLDER}/fd`)) {
    try {
      if (readlinkSync(`${FOLDER}/fd/${name}`) !== "anon_inode:[eventpoll]") continue;
      if (entry.test(readFileSync(`${FOLDER}/fdinfo/${name}`, "utf8"))) return Number(name);
    } catch {
      // Another thread has closed it meanwhile.
    }
  }
  return null;
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
