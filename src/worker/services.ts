/**
 * The worker's side of the services: calls in lists with one on its way, each with its own end: a result, its time, its
 * signal, or the end of the thread. The worker never waits.
 */
import type { Answer, RecordType } from "../dns/answer.ts";
import type { FromServices, ServiceCall, ServiceResult, ServicesLine } from "../shared/service-messages.ts";
import type { Operation, Result } from "../store/operations.ts";

/** Calls that have no result yet; more are refused. */
const MAX_CALLS = 20_000;
/** Without a sign of life for so long, calls fail at once. */
const SILENT_MS = 10_000;

/** A call could not be done: what the store says, or that the services do not answer. */
export class ServiceProblem extends Error {
  override readonly name = "ServiceProblem";
}

interface Pending {
  resolve(value: Answer | Result): void;
  reject(error: unknown): void;
}

export class WorkerServices {
  readonly #ask: () => void;
  readonly #now: () => number;
  #port: MessagePort | null = null;
  #isAsking = false;
  /** When a list was sent that was not taken yet; null if none is on its way. */
  #sentAt: number | null = null;
  #queue: ServiceCall[] = [];
  #isScheduled = false;
  #lastId = 0;
  readonly #pending = new Map<number, Pending>();
  /** Calls that were refused. */
  refused = 0;

  /**
   * @param ask asks for a line: see {@link connect}
   * @param now milliseconds on a clock that never goes back
   */
  constructor(ask: () => void, now: () => number = () => performance.now()) {
    this.#ask = ask;
    this.#now = now;
  }

  connect(line: ServicesLine): void {
    this.#isAsking = false;
    if (line.port === null) {
      this.#failAll(line.problem);
      return;
    }
    const { port } = line;
    this.#port = port;
    this.#sentAt = null;
    port.onmessage = ({ data }: { readonly data: FromServices }) => this.#receive(data);
    port.addEventListener("close", () => {
      if (this.#port !== port) return;
      this.#port = null;
      this.#sentAt = null;
      this.#failAll("the services thread has ended");
    });
    this.#schedule();
  }

  /** @throws ServiceProblem, or the signal's reason */
  resolve(name: string, type: RecordType, signal: AbortSignal): Promise<Answer> {
    return this.#call((id) => ({ kind: "dns", id, name, type }), signal, null) as Promise<Answer>;
  }

  /** @throws ServiceProblem, or the signal's reason: then it is not known whether it was done */
  run(operation: Operation, signal: AbortSignal, timeoutMs: number): Promise<Result> {
    return this.#call((id) => ({ kind: "store", id, operation }), signal, timeoutMs) as Promise<Result>;
  }

  async #call(
    make: (id: number) => ServiceCall,
    signal: AbortSignal,
    timeoutMs: number | null,
  ): Promise<Answer | Result> {
    signal.throwIfAborted();
    this.#checkRoom();
    const id = ++this.#lastId;
    const { promise, reject, resolve } = Promise.withResolvers<Answer | Result>();
    this.#pending.set(id, { resolve, reject });
    const leave = (error: unknown): void => {
      if (!this.#pending.delete(id)) return;
      this.#send({ kind: "cancel", id });
      reject(error);
    };
    const timer =
      timeoutMs === null
        ? null
        : setTimeout(() => leave(new ServiceProblem(`no answer in ${timeoutMs} ms`)), timeoutMs);
    const abort = (): void => leave(signal.reason);
    signal.addEventListener("abort", abort);
    this.#send(make(id));
    try {
      return await promise;
    } finally {
      if (timer !== null) clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }

  #checkRoom(): void {
    if (this.#sentAt !== null && this.#now() - this.#sentAt > SILENT_MS) {
      this.refused += 1;
      throw new ServiceProblem(`the services thread has given no sign of life for ${SILENT_MS / 1000} s`);
    }
    if (this.#pending.size < MAX_CALLS) return;
    this.refused += 1;
    throw new ServiceProblem(`more than ${MAX_CALLS} calls wait for the services`);
  }

  #send(call: ServiceCall): void {
    if (call.kind === "cancel") {
      const at = this.#queue.findIndex((queued) => queued.id === call.id);
      if (at !== -1) {
        this.#queue.splice(at, 1);
        return;
      }
      if (this.#port === null) return;
    }
    this.#queue.push(call);
    if (this.#port !== null) this.#schedule();
    else if (!this.#isAsking) {
      this.#isAsking = true;
      this.#ask();
    }
  }

  /** Calls of one turn of the event loop go in one list. */
  #schedule(): void {
    if (this.#isScheduled || this.#sentAt !== null || this.#queue.length === 0) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      if (this.#port === null || this.#sentAt !== null || this.#queue.length === 0) return;
      this.#sentAt = this.#now();
      const calls = this.#queue;
      this.#queue = [];
      this.#port.postMessage(calls);
    });
  }

  #receive({ results, taken }: FromServices): void {
    if (taken) this.#sentAt = null;
    for (const result of results) this.#settle(result);
    this.#schedule();
  }

  #settle(result: ServiceResult): void {
    const pending = this.#pending.get(result.id);
    if (pending === undefined) return;
    this.#pending.delete(result.id);
    if ("problem" in result) pending.reject(new ServiceProblem(result.problem));
    else pending.resolve("answer" in result ? result.answer : result.result);
  }

  #failAll(problem: string): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    this.#queue = [];
    for (const { reject } of all) reject(new ServiceProblem(problem));
  }
}
