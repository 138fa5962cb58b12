/** The load generator, a process of its own: holds its connections under load, and measures it when told to. */
import { onParentGone, tellParent } from "../support/child.ts";
import { cpuMicros, peakBytes } from "../support/process.ts";
import { type Traffic, trafficFor } from "../support/traffic.ts";
import { LoadClient, type LoadHome } from "./client.ts";
import { Latencies } from "./latency.ts";
import type { FromGenerator, LoadRequest, ToGenerator } from "./messages.ts";

/** How often messages are begun, where they are begun at a pace. */
const TICK_MS = 1;

function tell(message: FromGenerator): void {
  tellParent(message);
}

class Generator implements LoadHome {
  readonly request: LoadRequest;
  readonly latencies = new Latencies();
  #completed = 0;
  /** Connections that are still to be begun, and that are on the way. */
  #wanted = 0;
  #opening = 0;
  /** At rest: of `idle` until a round, else until a message is due. */
  readonly #resting: LoadClient[] = [];
  /** Connections that are still to have their message of a round. */
  #inRound = 0;
  /** Messages that no connection was free for, by when they were due. */
  readonly #due: number[] = [];
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

  /** A message on each connection: all rest now. */
  round(): void {
    this.#inRound = this.#resting.length;
    for (let count = 0; count < this.request.opening; count++) this.#goOnInRound();
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

  /** The first connections begin together: thousands of busy connections would keep the rest from ever being accepted. */
  negotiated(client: LoadClient): void {
    const { kind, connections, perSecond, warmMs } = this.request;
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
    if (perSecond !== null) this.#pace(perSecond);
  }

  completed(): void {
    this.#completed += 1;
  }

  closed(client: LoadClient): void {
    this.#clients.delete(client);
    this.#wanted += 1;
    this.#connect();
  }

  rests(client: LoadClient): void {
    const due = this.#due.shift();
    if (due !== undefined) {
      client.begin(due);
      return;
    }
    this.#resting.push(client);
    if (this.request.kind !== "idle") return;
    this.#goOnInRound();
    if (this.#resting.length === this.request.connections) tell({ kind: "warm" });
  }

  /** The connections that have rested longest go first, and then rest last. */
  #goOnInRound(): void {
    if (this.#inRound === 0) return;
    this.#inRound -= 1;
    this.#resting.shift()!.begin(performance.now());
  }

  /** A message that is late, since no connection is free, is late from the moment it was due. */
  #pace(perSecond: number): void {
    const began = performance.now();
    let begun = 0;
    setInterval(() => {
      const now = performance.now();
      for (; begun < ((now - began) / 1000) * perSecond; begun++) {
        const client = this.#resting.pop();
        if (client === undefined) this.#due.push(now);
        else client.begin(now);
      }
    }, TICK_MS);
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
    while (this.#wanted > 0 && this.#opening < this.request.opening) {
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
    case "round":
      generator?.round();
      return;
    default:
      message satisfies never;
  }
});
