/** A filter that makes the changes of its options, each a list: the method of `session.message`, and its arguments. */
import { defineFilter, reject } from "pmilter";

interface Options {
  /** Where they are made: at `eom` by default. */
  readonly at?: "envfrom" | "eoh" | "eom";
  readonly changes: readonly (readonly [name: string, ...rest: unknown[]])[];
  /** Then the message is refused all the same. */
  readonly reject?: string;
}

type Methods = Readonly<Record<string, (...rest: unknown[]) => void>>;

function change(message: unknown, { changes, reject: text }: Options) {
  for (const [name, ...rest] of changes) (message as Methods)[name]!.apply(message, rest);
  if (text !== undefined) return reject(text);
}

export default defineFilter<object, Options>({
  envfrom: ({ message, options }) => (options.at === "envfrom" ? change(message, options) : undefined),
  eoh: ({ message, options }) => (options.at === "eoh" ? change(message, options) : undefined),
  eom: ({ message, options }) =>
    options.at === undefined || options.at === "eom" ? change(message, options) : undefined,
});
