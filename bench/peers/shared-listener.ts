/**
 * The server as it would be if its workers only accepted from a shared listening socket: no second descriptor of a
 * connection, no even share, no way to outlive a worker. The workers run the same chain through the same
 * `src/worker/connection.ts`. For `bun run bench hold` only: nothing here is fit for use.
 *
 * Arguments: the socket's path, the set of handlers, the number of workers or `auto`.
 */
import { TIMERS } from "../../src/testing/in-memory.ts";
import { testServices } from "../../src/testing/services.ts";
import { RunningOutcomes } from "../../src/handler/outcomes.ts";
import { renameSync } from "node:fs";
import { availableParallelism } from "node:os";
import type { Socket } from "bun";
import { parseConfig } from "../../src/config/load.ts";
import { SessionRecords, type SessionRecordsLayout } from "../../src/shared/session-records.ts";
import { WorkerRows, type WorkerRowsLayout } from "../../src/shared/worker-rows.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { dup } from "../../src/net/libc.ts";
import { Connection, type ConnectionHome } from "../../src/worker/connection.ts";
import { loadChain } from "../../src/load/loader.ts";
import { HANDLER_SETS, type HandlerSet, handlerConfig } from "../support/servers.ts";

/** Room for connections in each worker: the kernel may give all of them to a single worker. */
const SLOTS = 10_000;
const WRITER_BYTES = 64 * 1024;

interface Assignment {
  readonly worker: number;
  readonly descriptor: number;
  readonly handlers: HandlerSet;
  readonly workerRows: WorkerRowsLayout;
  readonly records: SessionRecordsLayout;
}

/** The side of the thread that the main thread talks to. */
declare const self: {
  postMessage(message: "ready"): void;
  onmessage: (event: { readonly data: Assignment }) => void;
};

/** The types of Bun 1.4.5 lack it (docs/bun.md, "Types"). */
type ByDescriptor = (options: { fd: number; socket: object }) => { readonly fd: number; stop(): void };
const listenOn = Bun.listen as unknown as ByDescriptor;

async function main(path: string, handlers: HandlerSet, workers: number): Promise<void> {
  // `stop` removes the file at the path that was bound.
  const temporary = `${path}.new`;
  const bound = Bun.listen({ unix: temporary, socket: { data() {} } }) as unknown as { fd: number; stop(): void };
  const descriptors = Array.from({ length: workers }, () => dup(bound.fd));
  renameSync(temporary, path);
  bound.stop();
  const workerRows = WorkerRows.create(workers).layout;
  const records = SessionRecords.create(workers * SLOTS).layout;
  await Promise.all(
    descriptors.map((descriptor, worker) => {
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      const thread = new Worker(import.meta.url);
      thread.onmessage = () => resolve();
      thread.onerror = (event) => reject(new Error(event.message));
      thread.postMessage({ worker, descriptor, handlers, workerRows, records } satisfies Assignment);
      return promise;
    }),
  );
}

async function serve({ worker, descriptor, handlers, workerRows, records }: Assignment): Promise<void> {
  const chain = await loadChain(parseConfig(handlerConfig(handlers), "/bench/pmilter.toml"));
  let nextSlot = worker * SLOTS;
  const freeSlots: number[] = [];
  const home: ConnectionHome = {
    row: worker,
    chainOf: () => chain,
    wantsFor: () => chain.wants,
    services: testServices(TIMERS),
    spool: null,
    writer: new ReplyWriter(WRITER_BYTES),
    workerRows: new WorkerRows(workerRows),
    records: new SessionRecords(records),
    reportsAccepted: false,
    outcomes: new RunningOutcomes(),
    logs: () => false,
    isTrial: false,
    tracesPackets: false,
    now: () => Math.round(performance.now()),
    report: (report) => fail(`a message was not simply accepted: ${JSON.stringify(report)}`),
    log: (_, text) => fail(text),
    closed: (connection) => freeSlots.push(connection.slot),
    releaseFor: null,
    isStandIn: false,
    released: () => fail("a connection was released, and there is nowhere to go"),
  };
  listenOn({
    fd: descriptor,
    socket: {
      open(socket: Socket<Connection>) {
        const slot = freeSlots.pop() ?? nextSlot++;
        home.records.offer(slot);
        const connection = new Connection(home, slot, "shared", null);
        socket.data = connection;
        connection.opened(socket);
      },
      data: (socket: Socket<Connection>, chunk: Uint8Array) => socket.data.data(chunk),
      drain: (socket: Socket<Connection>) => socket.data.drained(),
      close: (socket: Socket<Connection>) => socket.data.disconnected(),
      error: (socket: Socket<Connection>) => socket.data.disconnected(),
    },
  });
}

function fail(text: string): void {
  console.error(`shared-listener: ${text}`);
}

if (Bun.isMainThread) {
  const [path, name, workers] = process.argv.slice(2);
  const handlers = HANDLER_SETS.find((known) => known === name);
  if (path === undefined || handlers === undefined || workers === undefined) {
    console.error(`usage: bun bench/peers/shared-listener.ts SOCKET ${HANDLER_SETS.join("|")} WORKERS|auto`);
    process.exit(2);
  }
  process.on("disconnect", () => process.exit(0));
  await main(path, handlers, workers === "auto" ? availableParallelism() : Number(workers));
  process.send?.("ready");
} else {
  self.onmessage = ({ data }) => {
    serve(data).then(
      () => self.postMessage("ready"),
      (error: unknown) => {
        throw error;
      },
    );
  };
}
