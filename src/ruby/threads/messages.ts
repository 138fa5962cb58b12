/** What a worker and its Ruby threads say to each other. */
import type { RubyScript } from "../compile.ts";
import type { VerdictName } from "../session-calls.ts";
import type { RaisedError } from "./questions.ts";

export type ToRubyThread =
  /** First: what it runs, and the line for questions. */
  | {
      readonly kind: "load";
      readonly library: readonly RubyScript[];
      readonly scripts: readonly RubyScript[];
      readonly port: MessagePort;
      /** The number in it grows with each reply. */
      readonly replies: SharedArrayBuffer;
    }
  | {
      readonly kind: "call";
      readonly path: string;
      /** Numbers of the connection and of its message; a phase without a message has null. */
      readonly connection: number;
      readonly message: number | null;
    }
  /** The connection is over. */
  | { readonly kind: "forget"; readonly connection: number };

/** A verdict, and the stack of where the script set it. */
export interface PlacedVerdict {
  readonly kind: Exclude<VerdictName, null>;
  readonly stack: string;
}

export type FromRubyThread =
  | { readonly kind: "loaded" }
  | { readonly kind: "print"; readonly text: string }
  /** @param keeps whether the connection has variables, or the message a state, in this thread */
  | { readonly kind: "done"; readonly verdict: PlacedVerdict | null; readonly keeps: boolean }
  | { readonly kind: "raised"; readonly error: RaisedError; readonly keeps: boolean };
