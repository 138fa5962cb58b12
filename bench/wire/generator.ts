/** The load generator, a process of its own: holds its connections under load until it is told to measure, then ends. */
import { onParentGone, tellParent } from "../support/child.ts";
import { cpuMicros, peakBytes } from "../support/process.ts";
import { type Traffic, trafficFor } from "../support/traffic.ts";
import { LoadClient, type LoadHome } from "./client.ts";
import { Latencies } from "./latency.ts";
import type { FromGenerator, LoadRequest, ToGenerator } from "./messages.ts";

/** How long the connections may take to end their messages. */
const END_MS = 3000;

function tell(message: FromGenerator): void {
  tellParent(message);
}

class Generator implements LoadHome {
  readonly request: LoadRequest;
  readonly latencies = new Latencies();
  isEnding = false;
  #completed = 0;
  /** Connections that are still to be begun, and that are on the way. */
  #wanted = 0;
  #opening = 0;
  #resting = 0;
  readonly #clients = new Set<LoadClient>();
  /** The first connections, until all are there; null from then on. */
  #gathered: LoadClient[] | null = [];
  #isFailed = false;
  readonly #traffic = new Map<string, readonly Traffic[]>();
  #nextMail = 0;

  constructor(request: LoadRequest) {
    this.request = request;
  }

  start(): void {
    this.#wanted = this.request.connections;
    this.#connect();
  }

  measure(ms: number): void {
    this.latencies.clear();
    this.#completed = -this.#underWay();
    const began = performance.now();
    const server = cpuMicros(this.request.pid);
    const own = process.cpuUsage();
    setTimeout(() => {
      const seconds = (performance.now() - began) / 1000;
      const serverCpuMicros = cpuMicros(this.request.pid) - server;
      const serverPeakBytes = peakBytes(this.request.pid);
      const { user, system } = process.cpuUsage(own);
      const completed = this.#completed + this.#underWay();
      this.isEnding = true;
      tell({
        kind: "result",
        result: {
          seconds,
          completed,
          latencies: this.latencies.counts(),
          serverCpuMicros,
          serverPeakBytes,
          ownCpuMicros: user + system,
        },
      });
      setTimeout(() => process.exit(0), END_MS);
    }, ms);
  }

  traffic(answer: Uint8Array): readonly Traffic[] {
    const key = Buffer.from(answer).toString("latin1");
    let traffic = this.#traffic.get(key);
    if (traffic === undefined) {
      traffic = this.request.mails.map((mail) => trafficFor(answer, mail));
      this.#traffic.set(key, traffic);
    }
    return traffic;
  }

  nextMail(): number {
    const at = this.#nextMail;
    this.#nextMail = (at + 1) % this.request.mails.length;
    return at;
  }

  /** The first ones begin together: thousands that were at work would keep the others from ever being taken. */
  negotiated(client: LoadClient): void {
    const { kind, connections, warmMs } = this.request;
    this.#opening -= 1;
    this.#connect();
    if (this.#gathered === null) {
      client.start();
      return;
    }
    this.#gathered.push(client);
    if (this.#gathered.length < connections) return;
    const gathered = this.#gathered;
    this.#gathered = null;
    for (const each of gathered) each.start();
    if (kind !== "idle") setTimeout(() => tell({ kind: "warm" }), warmMs);
  }

  completed(): void {
    this.#completed += 1;
  }

  closed(client: LoadClient): void {
    this.#clients.delete(client);
    if (!this.isEnding) {
      this.#wanted += 1;
      this.#connect();
    } else if (this.#clients.size === 0) process.exit(0);
  }

  rests(): void {
    this.#resting += 1;
    if (this.#resting === this.request.connections) tell({ kind: "warm" });
  }

  failed(message: string): void {
    if (this.#isFailed) return;
    this.#isFailed = true;
    tell({ kind: "failed", message });
  }

  /** Messages that have been sent in part. */
  #underWay(): number {
    let parts = 0;
    for (const client of this.#clients) parts += client.progress;
    return parts;
  }

  #connect(): void {
    while (this.#wanted > 0 && this.#opening < this.request.opening && !this.isEnding) {
      this.#wanted -= 1;
      this.#opening += 1;
      this.#clients.add(LoadClient.open(this));
    }
  }
}

let generator: Generator | null = null;

onParentGone(() => process.exit(0));
process.on("message", (message: ToGenerator) => {
  switch (message.kind) {
    case "start":
      generator = new Generator(message.request);
      generator.start();
      return;
    case "measure":
      generator?.measure(message.ms);
      return;
    default:
      message satisfies never;
  }
});
