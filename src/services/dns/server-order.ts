/** In which order servers are asked: one that did not answer comes after the others for a while, so that not every question waits for it. */
import { type NameServer, nameOfServer } from "../../dns/servers.ts";

/** How long a server that did not answer is asked last, in milliseconds. Then one question tries it first. */
const LAST_MS = 30_000;
/** Questions in a row that a server leaves without an answer, until the log says so: a single one may be the name's fault. */
const SILENT_AFTER = 5;

interface Trouble {
  /** Until when it is asked last. */
  until: number;
  questions: number;
  isLogged: boolean;
}

export interface ServerNews {
  /** @param isBack it answers again */
  (server: NameServer, isBack: boolean, why: string): void;
}

export class ServerOrder {
  readonly #troubles = new Map<string, Trouble>();
  readonly #news: ServerNews;
  #turn = 0;

  /** @param news called when a server has not answered for some questions, and when it answers again */
  constructor(news: ServerNews) {
    this.#news = news;
  }

  /** @param rotates each question begins with another server (`options rotate` of resolv.conf) */
  of(servers: readonly NameServer[], rotates: boolean, now: number): readonly NameServer[] {
    if (servers.length < 2) return servers;
    const from = rotates ? this.#turn++ % servers.length : 0;
    const turned = [...servers.slice(from), ...servers.slice(0, from)];
    if (this.#troubles.size === 0) return turned;
    const isLast = (server: NameServer): boolean => (this.#troubles.get(nameOfServer(server))?.until ?? 0) > now;
    const last = turned.filter(isLast);
    const first = turned.filter((server) => !isLast(server));
    // Other questions do not wait for the server that this one tries.
    const tried = first[0] === undefined ? undefined : this.#troubles.get(nameOfServer(first[0]));
    if (tried !== undefined) tried.until = now + LAST_MS;
    return [...first, ...last];
  }

  silent(server: NameServer, now: number, why: string): void {
    const name = nameOfServer(server);
    const trouble = this.#troubles.get(name) ?? { until: 0, questions: 0, isLogged: false };
    this.#troubles.set(name, trouble);
    trouble.until = now + LAST_MS;
    trouble.questions += 1;
    if (trouble.isLogged || trouble.questions < SILENT_AFTER) return;
    trouble.isLogged = true;
    this.#news(server, false, why);
  }

  answered(server: NameServer): void {
    if (this.#troubles.size === 0) return;
    const name = nameOfServer(server);
    const trouble = this.#troubles.get(name);
    if (trouble === undefined) return;
    this.#troubles.delete(name);
    if (trouble.isLogged) this.#news(server, true, "");
  }

  /** As when other servers are asked from now on. */
  forget(): void {
    this.#troubles.clear();
  }
}
