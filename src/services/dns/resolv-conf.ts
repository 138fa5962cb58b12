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

/** What a `resolv.conf` says of servers; names are asked for as they are, so `search` and `ndots` do not matter. */
export interface SystemSettings {
  readonly servers: readonly NameServer[];
  /** `options rotate`: each question begins with another server. */
  readonly rotates: boolean;
}

const NONE: SystemSettings = { servers: LOCAL, rotates: false };

export function readResolvConf(text: string): SystemSettings {
  return { servers: serversIn(text), rotates: /^options[ \t](?:.*[ \t])?rotate(?:\s|$)/m.test(text) };
}

function serversIn(text: string): readonly NameServer[] {
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
  #settings = NONE;
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

  get settings(): SystemSettings {
    const now = this.#now();
    if (now - this.#lookedAt >= LOOK_MS) {
      this.#lookedAt = now;
      this.#look();
    }
    return this.#settings;
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
    this.#settings = readResolvConf(text);
    if (!isFirst) this.#changed();
  }
}
