/**
 * The worker's side of the services: calls in lists with one on its way, each with its own end: a result, its time, its
 * signal, or the end of the thread. The worker never waits.
 */
import type { Answer, RecordType } from "../dns/answer.ts";
import type { FromServices, ServiceCall, ServiceResult, ServicesLine } from "../shared/service-messages.ts";
import type { Operation, Result } from "../store/operations.ts";

/** Calls that have no result yet, and the bytes of their keys and values; more are refused. */
const MAX_CALLS = 20_000;
const MAX_BYTES = 64 * 1024 * 1024;
/** Calls of a list, and their bytes unless it has one call: the lists of all workers take turns. */
const MAX_LIST = 256;
const MAX_LIST_BYTES = 1024 * 1024;
/** Without a sign of life for so long, calls fail at once. */
const SILENT_MS = 10_000;

/** A call could not be done: what the store says, or that the services do not answer. */
export class ServiceProblem extends Error {
  override readonly name = "ServiceProblem";
}

interface Pending {
  readonly bytes: number;
  resolve(value: Answer | Result): void;
  reject(error: unknown): void;
}

export class WorkerServices {
  readonly #ask: () => void;
  readonly #now: () => number;
  #port: MessagePort | null = null;
  #isAsking = false;
  #isListOut = false;
  /** When the list that is on its way was sent, or the thread last said something. */
  #signAt = 0;
  /** What was not sent yet, by number; a cancellation by the negative number. */
  readonly #queue = new Map<number, ServiceCall>();
  #isScheduled = false;
  #lastId = 0;
  readonly #pending = new Map<number, Pending>();
  #pendingBytes = 0;
  /** Called for each call that is refused. */
  onRefused: () => void = () => {};

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
    this.#isListOut = false;
    port.onmessage = ({ data }: { readonly data: FromServices }) => this.#receive(data);
    port.addEventListener("close", () => {
      if (this.#port !== port) return;
      this.#port = null;
      this.#isListOut = false;
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
    const id = ++this.#lastId;
    const call = make(id);
    const bytes = sizeOf(call);
    this.#checkRoom(bytes);
    const { promise, reject, resolve } = Promise.withResolvers<Answer | Result>();
    this.#pending.set(id, { bytes, resolve, reject });
    this.#pendingBytes += bytes;
    const leave = (error: unknown): void => {
      if (this.#leaves(id) === null) return;
      this.#send({ kind: "cancel", id });
      reject(error);
    };
    const timer =
      timeoutMs === null
        ? null
        : setTimeout(() => leave(new ServiceProblem(`no answer in ${timeoutMs} ms`)), timeoutMs);
    const abort = (): void => leave(signal.reason);
    signal.addEventListener("abort", abort);
    this.#send(call);
    try {
      return await promise;
    } finally {
      if (timer !== null) clearTimeout(timer);
      signal.removeEventListener("abort", abort);
    }
  }

  /** @returns the call, which has no result yet; null if it has */
  #leaves(id: number): Pending | null {
    const pending = this.#pending.get(id);
    if (pending === undefined) return null;
    this.#pending.delete(id);
    this.#pendingBytes -= pending.bytes;
    return pending;
  }

  #checkRoom(bytes: number): void {
    if (this.#isListOut && this.#now() - this.#signAt > SILENT_MS) {
      this.#refuse(`the services thread has given no sign of life for ${SILENT_MS / 1000} s`);
    }
    if (this.#pending.size >= MAX_CALLS) this.#refuse(`more than ${MAX_CALLS} calls wait for the services`);
    if (this.#pendingBytes + bytes > MAX_BYTES) {
      this.#refuse(`calls with more than ${MAX_BYTES / 1024 / 1024} MB wait for the services`);
    }
  }

  #refuse(problem: string): never {
    this.onRefused();
    throw new ServiceProblem(problem);
  }

  #send(call: ServiceCall): void {
    if (call.kind === "cancel") {
      if (this.#queue.delete(call.id) || this.#port === null) return;
      this.#queue.set(-call.id, call);
    } else this.#queue.set(call.id, call);
    if (this.#port !== null) this.#schedule();
    else if (!this.#isAsking) {
      this.#isAsking = true;
      this.#ask();
    }
  }

  /** Calls of one turn of the event loop go in one list. */
  #schedule(): void {
    if (this.#isScheduled || this.#isListOut || this.#queue.size === 0) return;
    this.#isScheduled = true;
    queueMicrotask(() => {
      this.#isScheduled = false;
      if (this.#port === null || this.#isListOut || this.#queue.size === 0) return;
      this.#isListOut = true;
      this.#signAt = this.#now();
      this.#port.postMessage(this.#nextList());
    });
  }

  #nextList(): ServiceCall[] {
    const list: ServiceCall[] = [];
    let bytes = 0;
    for (const [at, call] of this.#queue) {
      bytes += sizeOf(call);
      if (list.length === MAX_LIST || (list.length > 0 && bytes > MAX_LIST_BYTES)) break;
      list.push(call);
      this.#queue.delete(at);
    }
    return list;
  }

  #receive({ results, taken }: FromServices): void {
    this.#signAt = this.#now();
    if (taken) this.#isListOut = false;
    for (const result of results) this.#settle(result);
    this.#schedule();
  }

  #settle(result: ServiceResult): void {
    const pending = this.#leaves(result.id);
    if (pending === null) return;
    if ("problem" in result) pending.reject(new ServiceProblem(result.problem));
    else pending.resolve("answer" in result ? result.answer : result.result);
  }

  #failAll(problem: string): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    this.#pendingBytes = 0;
    this.#queue.clear();
    for (const { reject } of all) reject(new ServiceProblem(problem));
  }
}

/** About the memory that the text of a call takes. */
function sizeOf(call: ServiceCall): number {
  if (call.kind === "cancel") return 0;
  if (call.kind === "dns") return call.name.length;
  const { operation } = call;
  if (operation.kind === "entries") return operation.prefix.length;
  return operation.key.length + (operation.kind === "set" ? operation.value.length : 0);
}
