/** A Ruby thread: runs scripts that may wait, one call at a time. Their sessions are in the worker. */
import { RubyFiles } from "../files.ts";
import { definePrimitives } from "../library.ts";
import type { Call } from "../interface.ts";
import type { RubyObject } from "../opal.ts";
import { RubyRuntime } from "../run.ts";
import type { SessionOperation, VerdictName } from "../session-calls.ts";
import { Asking } from "./asking.ts";
import type { FromRubyThread, PlacedVerdict, ToRubyThread } from "./messages.ts";

interface ThreadScope {
  onmessage: (event: { readonly data: ToRubyThread }) => void;
  postMessage(message: FromRubyThread): void;
}
declare const self: ThreadScope;

/** The scripts of a connection have their variables by it. */
class ConnectionState {
  message: number | null = null;
  messageState: RubyObject | null = null;
  /** Files that its scripts left open. */
  readonly files: number[] = [];
}

class RemoteCall implements Call {
  verdict: PlacedVerdict | null = null;
  readonly #asking: Asking;
  readonly #state: ConnectionState;

  constructor(asking: Asking, state: ConnectionState) {
    this.#asking = asking;
    this.#state = state;
  }

  decide(kind: VerdictName): void {
    this.verdict = kind === null ? null : { kind, stack: new Error().stack ?? "" };
  }

  perform(operation: SessionOperation, ...args: unknown[]): unknown {
    return this.#asking.ask({ operation, args });
  }

  messageState(make: () => RubyObject): RubyObject | null {
    return this.#state.message === null ? null : (this.#state.messageState ??= make());
  }
}

class RubyThread {
  readonly #runtime: RubyRuntime;
  readonly #asking: Asking;
  readonly #scripts: ReadonlyMap<string, (connection: object, call: Call) => void>;
  readonly #files = new RubyFiles();
  readonly #connections = new Map<number, ConnectionState>();

  constructor(runtime: RubyRuntime, { library, port, replies, scripts }: Extract<ToRubyThread, { kind: "load" }>) {
    this.#runtime = runtime;
    this.#asking = new Asking(port, replies, (message) => runtime.raise(message));
    definePrimitives(runtime.opal, this.#files, (operation, args) => this.#asking.ask({ operation, args }));
    for (const script of library) runtime.load(script);
    this.#scripts = new Map(scripts.map((script) => [script.path, runtime.runner(script)]));
  }

  call({ connection, message, path }: Extract<ToRubyThread, { kind: "call" }>): FromRubyThread {
    let state = this.#connections.get(connection);
    if (state === undefined) this.#connections.set(connection, (state = new ConnectionState()));
    if (state.message !== message) {
      state.message = message;
      state.messageState = null;
    }
    const before = new Set(this.#files.numbers);
    const call = new RemoteCall(this.#asking, state);
    let raised: Error | null = null;
    try {
      this.#scripts.get(path)!(state, call);
    } catch (error) {
      raised = error instanceof Error ? error : new Error(String(error));
    }
    const keeps = this.#runtime.hasVariables(state) || state.messageState !== null;
    // Files that a script left open; its variables may hold them.
    if (keeps) state.files.push(...this.#files.numbers.filter((number) => !before.has(number)));
    else {
      this.#files.close(this.#files.numbers.filter((number) => !before.has(number)));
      this.forget(connection);
    }
    if (raised === null) return { kind: "done", verdict: call.verdict, keeps };
    const { message: text, name, stack } = raised;
    return { kind: "raised", error: { name, message: text, stack: stack ?? "" }, keeps };
  }

  forget(connection: number): void {
    this.#files.close(this.#connections.get(connection)?.files ?? []);
    this.#connections.delete(connection);
  }
}

let thread: RubyThread | null = null;

self.onmessage = ({ data }) => {
  switch (data.kind) {
    case "load":
      void RubyRuntime.start().then((runtime) => {
        thread = new RubyThread(runtime, data);
        self.postMessage({ kind: "loaded" });
      });
      return;
    case "call":
      self.postMessage(thread!.call(data));
      return;
    case "forget":
      thread!.forget(data.connection);
      return;
    default:
      data satisfies never;
  }
};

// In the order of the calls, and from a script that goes on as well.
process.stdout.write = (text: string | Uint8Array) => {
  self.postMessage({ kind: "print", text: typeof text === "string" ? text : new TextDecoder().decode(text) });
  return true;
};
