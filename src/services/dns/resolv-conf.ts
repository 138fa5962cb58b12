/** The name servers that a machine uses (`resolv.conf(5)`). */
import { readFileSync, statSync } from "node:fs";
import { isIP } from "node:net";
import { DNS_PORT as PORT, type NameServer } from "../../dns/servers.ts";

/** What the C library asks if the file names none. */
const LOCAL: readonly NameServer[] = [{ address: "127.0.0.1", port: PORT }];
/** The C library takes three. */
const MAX_SERVERS = 3;
/** How often it is looked whether the file has changed, in milliseconds. */
const LOOK_MS = 1000;

/** The servers in the text of a `resolv.conf`. */
export function serversIn(text: string): readonly NameServer[] {
  const servers = text.split("\n").flatMap((line) => {
    const [, address] = /^nameserver[ \t]+(\S+)/.exec(line) ?? [];
    return address !== undefined && isIP(address.replace(/%.*/, "")) !== 0 ? [{ address, port: PORT }] : [];
  });
  return servers.length === 0 ? LOCAL : servers.slice(0, MAX_SERVERS);
}

/** The servers of a file, read again when it has changed. */
export class SystemServers {
  readonly #file: string;
  readonly #changed: () => void;
  readonly #now: () => number;
  #servers: readonly NameServer[] = LOCAL;
  #stamp = "";
  #lookedAt = -Infinity;

  /**
   * @param changed called when other servers are asked from now on
   * @param now milliseconds on a clock that never goes back
   */
  constructor(file: string, changed: () => void, now: () => number = () => performance.now()) {
    this.#file = file;
    this.#changed = changed;
    this.#now = now;
  }

  get servers(): readonly NameServer[] {
    const now = this.#now();
    if (now - this.#lookedAt >= LOOK_MS) {
      this.#lookedAt = now;
      this.#look();
    }
    return this.#servers;
  }

  #look(): void {
    // While the file is being replaced, or cannot be read, the servers before stay.
    const found = statSync(this.#file, { throwIfNoEntry: false });
    if (found === undefined) return;
    const stamp = `${found.ino} ${found.mtimeMs} ${found.size}`;
    if (stamp === this.#stamp) return;
    let text: string;
    try {
      text = readFileSync(this.#file, "utf8");
    } catch {
      return;
    }
    const isFirst = this.#stamp === "";
    this.#stamp = stamp;
    this.#servers = serversIn(text);
    if (!isFirst) this.#changed();
  }
}
