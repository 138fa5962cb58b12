/**
 * Runs scripts as handlers. The original gave every connection an interpreter of its own. Here all connections share Opal:
 * the global variables, constants and instance variables of `self` that a connection's scripts have set are put in place for
 * each call, and taken out again.
 */
import { Script } from "node:vm";
import type { AnyHandler } from "../handler/filter.ts";
import { UsageError } from "../usage-error.ts";
import { placeCompiled } from "../handler/site.ts";
import type { Phase } from "../protocol/phases.ts";
import { type Call, definePmilter } from "./interface.ts";
import type { RubyScript } from "./compile.ts";
import { RubyFiles } from "./files.ts";
import { definePrimitives } from "./library.ts";
import { locate } from "./line-map.ts";
import { completeTime, printLikeMruby } from "./mruby.ts";
import { loadRuntime, type Opal, type RubyObject } from "./opal.ts";
import {
  type AnySession,
  isHeard,
  MESSAGE_PHASES,
  perform,
  type SessionCall,
  type SessionOperation,
  type VerdictName,
  verdictOf,
} from "./session-calls.ts";
import { refuseMutation } from "./unsupported.ts";

/** Special variables that Ruby itself sets. */
const SPECIAL = ["~", "!", "_"];

/** The variables and constants that a connection's scripts have set. */
interface Slate {
  readonly self: object;
  readonly globals: Map<string, unknown>;
  readonly constants: Map<string, unknown>;
}

/** A call in the thread of the session. */
class LocalCall implements Call, SessionCall {
  sender: string | null = null;
  verdict: unknown = undefined;
  readonly session: AnySession;
  readonly phase: Phase;
  readonly values: readonly unknown[];

  constructor(session: AnySession, phase: Phase, values: readonly unknown[]) {
    this.session = session;
    this.phase = phase;
    this.values = values;
  }

  decide(verdict: VerdictName): void {
    this.verdict = verdictOf(verdict);
  }

  perform(operation: SessionOperation, ...args: unknown[]): unknown {
    return perform(this, operation, args);
  }

  messageState(make: () => RubyObject): RubyObject | null {
    if (!MESSAGE_PHASES.has(this.phase)) return null;
    return (this.session.message.state["ruby"] ??= make()) as RubyObject;
  }
}

/** A mistake in a call of the session, which is in another thread: as that thread has it. */
export class SessionMistake extends Error {
  constructor({ message, name, stack }: Pick<Error, "message" | "name" | "stack">) {
    super(message);
    this.name = name;
    this.stack = stack ?? "";
  }
}

/** All errors are that in Opal, its own and JavaScript's. */
interface RubyException {
  $class(): { $name(): string };
  $message(): unknown;
}

/** An exception of a script, with the places of the Ruby source. */
class RubyError extends Error {
  constructor(name: string, message: string, frames: readonly string[], cause: unknown) {
    super(message, { cause });
    this.name = name;
    this.stack = [`${name}: ${message}`, ...frames.map((frame) => `    at ${frame}`)].join("\n");
  }
}

/** The scripts of a generation in this thread. */
export class RubyRuntime {
  readonly #opal: Opal;
  readonly #slates = new WeakMap<object, Slate>();
  readonly #globals = new Map<string, unknown>();
  readonly #constants = new Set<string>();
  readonly #files = new Set<string>();
  #call: Call | null = null;

  private constructor(opal: Opal) {
    this.#opal = opal;
    definePmilter(opal, () => this.#call);
    printLikeMruby(opal);
    completeTime(opal);
    refuseMutation(opal);
    for (const name of SPECIAL) this.#globals.set(name, opal.gvars[name]);
  }

  get opal(): Opal {
    return this.#opal;
  }

  /** Defines what a source of the library defines. */
  load({ calls, code, path }: RubyScript): void {
    if (calls !== "") this.#opal.add_stubs(calls);
    const run = new Script(code, { filename: path }).runInThisContext() as (opal: Opal, self: object) => unknown;
    run(this.#opal, this.#opal.top);
  }

  /** The library, where there are no sessions. */
  loadForTask(library: readonly RubyScript[]): void {
    definePrimitives(this.#opal, new RubyFiles(), () => this.raise("there is no store here"));
    for (const script of library) this.load(script);
  }

  /** Throws an exception that scripts can rescue. */
  raise(message: string): never {
    throw this.#opal.Object.$$const["RuntimeError"]!.$new(message);
  }

  static async start(): Promise<RubyRuntime> {
    return new RubyRuntime(await loadRuntime());
  }

  /** A phase's handler. */
  handler(script: RubyScript, phase: Phase): AnyHandler {
    const run = this.runner(script);
    return (session, ...values) => {
      const call = new LocalCall(session as AnySession, phase, values);
      run(session as object, call);
      return isHeard(phase) ? call.verdict : undefined;
    };
  }

  /** Runs a script for a call. Connections are told apart by an object. */
  runner(script: RubyScript): (connection: object, call: Call) => void {
    const run = this.#prepare(script);
    return (connection, call) => {
      this.#call = call;
      try {
        run(this.#slateOf(connection));
      } finally {
        this.#call = null;
      }
    };
  }

  /** Whether the scripts of a connection have set variables or constants. */
  hasVariables(connection: object): boolean {
    const slate = this.#slates.get(connection);
    if (slate === undefined) return false;
    return slate.globals.size > 0 || slate.constants.size > 0 || Object.keys(slate.self).length > 0;
  }

  /** A script that runs without a session. */
  task(script: RubyScript): () => void {
    const run = this.#prepare(script);
    return () => run(this.#newSlate());
  }

  #prepare({ calls, code, constants, globals, map, path }: RubyScript): (slate: Slate) => void {
    const opal = this.#opal;
    this.#files.add(path);
    placeCompiled(path, (line, column) => ({ file: path, ...locate(map, line, column) }));
    if (calls !== "") opal.add_stubs(calls);
    for (const global of globals) if (!this.#globals.has(global)) this.#globals.set(global, opal.gvars[global]);
    for (const constant of constants) if (!(constant in opal.Object.$$const)) this.#constants.add(constant);
    const run = new Script(code, { filename: path }).runInThisContext() as (opal: Opal, self: object) => unknown;
    return (slate) => {
      this.#enter(slate);
      try {
        run(opal, slate.self);
      } catch (error) {
        if (error !== opal.t_eval_return) throw this.#shown(error);
      } finally {
        this.#leave(slate);
      }
    };
  }

  #slateOf(session: object): Slate {
    let slate = this.#slates.get(session);
    if (slate === undefined) this.#slates.set(session, (slate = this.#newSlate()));
    return slate;
  }

  #newSlate(): Slate {
    return { self: Object.create(this.#opal.top) as object, globals: new Map(), constants: new Map() };
  }

  #enter({ constants, globals, self }: Slate): void {
    const opal = this.#opal;
    for (const [name, value] of globals) opal.gvars[name] = value;
    for (const [name, value] of constants) opal.const_set(opal.Object, name, value);
    opal.top = self;
  }

  /** Classes stay: they are code, and the same for all connections. */
  #leave({ constants, globals, self }: Slate): void {
    const opal = this.#opal;
    for (const [name, initial] of this.#globals) {
      const value = opal.gvars[name];
      if (value === initial) globals.delete(name);
      else {
        globals.set(name, value);
        opal.gvars[name] = initial;
      }
    }
    for (const name of this.#constants) {
      const value = opal.Object.$$const[name];
      if (value === undefined || value.$$is_a_module === true) continue;
      constants.set(name, value);
      opal.const_remove(opal.Object, name);
    }
    opal.top = Object.getPrototypeOf(self) as object;
  }

  /** An exception under the name of its class, with the frames of scripts alone. */
  #shown(error: unknown): unknown {
    if (!(error instanceof Error) || error instanceof UsageError || error instanceof SessionMistake) return error;
    const exception = error as unknown as RubyException;
    // The message may stand in front of the frames, and hold text of a client's.
    const frames = [
      ...String(error.stack)
        .replace(error.message, "")
        .matchAll(/(\/[^:\n()]*\.rb):\d+:\d+/gi),
    ]
      .filter(([, file]) => this.#files.has(file!))
      .map(([frame]) => frame);
    return new RubyError(exception.$class().$name(), String(exception.$message()), frames, error);
  }
}
