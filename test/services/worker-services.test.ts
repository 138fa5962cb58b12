/** The worker's side of the services, with a test as the other side: lists, their bounds, and the ends of a call. */
import { describe, expect, test } from "bun:test";
import type { FromServices, ServiceCall, StoreCall } from "../../src/shared/service-messages.ts";
import type { Operation } from "../../src/store/operations.ts";
import { WorkerServices } from "../../src/worker/services.ts";

const LONG_MS = 60_000;
const never = (): AbortSignal => new AbortController().signal;

const get = (key: string): Operation => ({ kind: "get", filter: "f", key });
const set = (key: string, bytes: number): Operation => ({
  kind: "set",
  filter: "f",
  key,
  value: "v".repeat(bytes),
  ttl: null,
});

/** The lists that come, and what is said to them. */
class OtherSide implements Disposable {
  readonly lists: (readonly ServiceCall[])[] = [];
  asked = 0;
  refused = 0;
  now = 0;
  readonly services: WorkerServices = new WorkerServices(
    () => {
      this.asked += 1;
    },
    () => this.now,
  );
  #port: MessagePort | null = null;
  #waiting: (() => void)[] = [];

  constructor() {
    this.services.onRefused = () => (this.refused += 1);
  }

  connect(): void {
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    port1.onmessage = ({ data }: { readonly data: readonly ServiceCall[] }) => {
      this.lists.push(data);
      for (const wake of this.#waiting.splice(0)) wake();
    };
    this.services.connect({ port: port2 });
  }

  /** The list with this number, from 0. */
  async list(at: number): Promise<readonly ServiceCall[]> {
    while (this.lists.length <= at) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    return this.lists[at]!;
  }

  /** Answers the calls of a list that are named by their keys. */
  say(message: FromServices): void {
    this.#port!.postMessage(message);
  }

  take(list: readonly ServiceCall[]): void {
    this.say({
      taken: true,
      results: list
        .filter((call): call is StoreCall => call.kind === "store")
        .map(({ id, operation }) => ({ id, result: "key" in operation ? operation.key : null })),
    });
  }

  close(): void {
    this.#port?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

const run = (services: WorkerServices, operation: Operation, timeoutMs = LONG_MS, signal = never()) =>
  services.run(operation, signal, timeoutMs);
/** What a call that fails says. */
const problem = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => "no problem",
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );

describe("lists of calls", () => {
  test("a line is asked for once, and the calls before it go in one list", async () => {
    using other = new OtherSide();
    const calls = ["a", "b"].map((key) => run(other.services, get(key)));
    expect(other.asked).toBe(1);
    other.connect();
    other.take(await other.list(0));
    expect(await Promise.all(calls)).toEqual(["a", "b"]);
    expect(other.asked).toBe(1);
  });

  test("one is on its way: the next goes when it was taken, results or not", async () => {
    using other = new OtherSide();
    other.connect();
    const first = run(other.services, get("a"));
    const [call] = await other.list(0);
    const others = ["b", "c"].map((key) => run(other.services, get(key)));
    // A result says nothing of the list.
    other.say({ taken: false, results: [{ id: call!.id, result: "late" }] });
    expect(await first).toBe("late");
    expect(other.lists).toHaveLength(1);
    other.say({ taken: true, results: [] });
    other.take(await other.list(1));
    expect(await Promise.all(others)).toEqual(["b", "c"]);
  });

  test("a list has at most 256 calls, in their order", async () => {
    using other = new OtherSide();
    const calls = Array.from({ length: 600 }, (_, at) => run(other.services, get(`k${at}`)));
    other.connect();
    for (const [at, length] of [256, 256, 88].entries()) {
      const list = await other.list(at);
      expect(list).toHaveLength(length);
      other.take(list);
    }
    expect(await Promise.all(calls)).toEqual(Array.from({ length: 600 }, (_, at) => `k${at}`));
  });

  test("a list has at most 1 MB, or one call", async () => {
    using other = new OtherSide();
    const calls = Array.from({ length: 40 }, (_, at) => run(other.services, set(`k${at}`, 64 * 1024 - 8)));
    other.connect();
    const list = await other.list(0);
    expect(list).toHaveLength(16);
    other.take(list);
    other.take(await other.list(1));
    other.take(await other.list(2));
    await Promise.all(calls);
  });
});

describe("a call ends", () => {
  test("after its time, and takes no place in a list that was not sent", async () => {
    using other = new OtherSide();
    expect(await problem(run(other.services, get("a"), 5))).toBe("no answer in 5 ms");
    const next = run(other.services, get("b"));
    other.connect();
    const list = await other.list(0);
    expect(list.map((call) => call.kind === "store" && "key" in call.operation && call.operation.key)).toEqual(["b"]);
    other.take(list);
    expect(await next).toBe("b");
  });

  test("with its signal, which is told to the thread if it has the call", async () => {
    using other = new OtherSide();
    other.connect();
    const controller = new AbortController();
    const call = run(other.services, get("a"), LONG_MS, controller.signal);
    const [sent] = await other.list(0);
    controller.abort(new Error("the phase is over"));
    expect(await problem(call)).toBe("the phase is over");
    other.say({ taken: true, results: [] });
    expect(await other.list(1)).toEqual([{ kind: "cancel", id: sent!.id }]);
    expect(await problem(run(other.services, get("a"), LONG_MS, controller.signal))).toBe("the phase is over");
  });

  test("with the thread; the next one asks for another", async () => {
    using other = new OtherSide();
    other.connect();
    const calls = [run(other.services, get("a")), other.services.resolve("example.com", "A", never())];
    await other.list(0);
    const queued = run(other.services, get("b"));
    other.close();
    for (const call of [...calls, queued]) expect(await problem(call)).toBe("the services thread has ended");
    const next = run(other.services, get("c"));
    expect(other.asked).toBe(1);
    other.connect();
    other.take(await other.list(1));
    expect(await next).toBe("c");
  });

  test("if the thread cannot be started", async () => {
    using other = new OtherSide();
    const call = run(other.services, get("a"));
    other.services.connect({ port: null, problem: "there is no folder" });
    expect(await problem(call)).toBe("there is no folder");
    const next = problem(run(other.services, get("a")));
    expect(other.asked).toBe(2);
    other.services.connect({ port: null, problem: "still none" });
    expect(await next).toBe("still none");
  });
});

describe("a call is refused, and counted", () => {
  test("after 10 s without a sign of life from a thread that has a list", async () => {
    using other = new OtherSide();
    other.connect();
    const first = run(other.services, get("a"));
    const [call] = await other.list(0);
    other.now = 10_001;
    expect(await problem(run(other.services, get("b")))).toBe("the services thread has given no sign of life for 10 s");
    expect(other.refused).toBe(1);
    // Any answer is a sign of life, for 10 s.
    other.say({ taken: false, results: [{ id: call!.id, result: "a" }] });
    expect(await first).toBe("a");
    other.now += 10_000;
    const second = run(other.services, get("c"));
    other.now += 1;
    expect(await problem(run(other.services, get("d")))).toContain("no sign of life");
    other.say({ taken: true, results: [] });
    other.take(await other.list(1));
    expect(await second).toBe("c");
    expect(other.refused).toBe(2);
  });

  test("nothing is known of a thread that has nothing to do", async () => {
    using other = new OtherSide();
    other.connect();
    other.now = 1e9;
    const call = run(other.services, get("a"));
    other.take(await other.list(0));
    expect(await call).toBe("a");
    expect(other.refused).toBe(0);
  });

  test("beyond 20,000 calls", async () => {
    using other = new OtherSide();
    const controller = new AbortController();
    const calls = Array.from({ length: 20_000 }, () =>
      problem(run(other.services, get("a"), LONG_MS, controller.signal)),
    );
    expect(await problem(run(other.services, get("b")))).toBe("more than 20000 calls wait for the services");
    expect(other.refused).toBe(1);
    controller.abort(new Error("over"));
    expect(new Set(await Promise.all(calls))).toEqual(new Set(["over"]));
    const call = run(other.services, get("c"));
    other.connect();
    other.take(await other.list(0));
    expect(await call).toBe("c");
  });

  test("beyond 64 MB of values", async () => {
    using other = new OtherSide();
    const controller = new AbortController();
    const MB = 1024 * 1024;
    const calls = Array.from({ length: 63 }, () =>
      problem(run(other.services, set("a", MB), LONG_MS, controller.signal)),
    );
    expect(await problem(run(other.services, set("b", 2 * MB)))).toBe(
      "calls with more than 64 MB wait for the services",
    );
    controller.abort(new Error("over"));
    await Promise.all(calls);
    const call = run(other.services, set("c", 2 * MB));
    other.connect();
    other.take(await other.list(0));
    expect(await call).toBe("c");
  });
});
