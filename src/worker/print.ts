/**
 * What handlers print goes to the server's standard output by way of the main thread, which never blocks on it: a
 * direct write would block this worker whenever the reader of a pipe is slow. Text is that of Bun's own console.
 */
import { format } from "node:util";

/** Characters that are waited with for the end of their line. */
const MAX_LINE = 64 * 1024;

/** As deep as Bun's console shows objects. */
const DEPTH = 2;

/** Formats the arguments of `console.log` as Bun prints them without colours. */
export function formatLine(args: readonly unknown[]): string {
  const [first] = args;
  if (typeof first === "string" && first.includes("%") && args.length > 1) return format(...args);
  return args.map((arg) => (typeof arg === "string" ? arg : Bun.inspect(arg, { depth: DEPTH }))).join(" ");
}

/**
 * Sends what is printed in this thread to `print`, in whole lines: those of several workers must not mix.
 * @returns a function that sends what is left of an unfinished line
 */
export function capturePrints(print: (lines: string) => void): () => void {
  let unfinished = "";
  let indent = "";
  const decoder = new TextDecoder();
  const add = (text: string): void => {
    // What is unfinished has no line end; one that never comes is made.
    const end = text.lastIndexOf("\n") + 1;
    if (end > 0) {
      print(unfinished + text.slice(0, end));
      unfinished = text.slice(end);
    } else unfinished += text;
    if (unfinished.length <= MAX_LINE) return;
    print(`${unfinished}\n`);
    unfinished = "";
  };
  const line = (...args: unknown[]): void => add(`${indent}${formatLine(args).replaceAll("\n", `\n${indent}`)}\n`);
  const group = (...args: unknown[]): void => {
    if (args.length > 0) line(...args);
    indent += "  ";
  };
  Object.assign(console, {
    log: line,
    info: line,
    debug: line,
    warn: line,
    error: line,
    group,
    groupCollapsed: group,
    groupEnd() {
      indent = indent.slice(2);
    },
    trace(...args: unknown[]) {
      const stack = new Error().stack?.split("\n").slice(2).join("\n") ?? "";
      line(`Trace: ${formatLine(args)}\n${stack}`);
    },
    dir(value: unknown, options?: { depth?: number }) {
      line(typeof value === "string" ? value : Bun.inspect(value, { depth: options?.depth ?? DEPTH }));
    },
    table(value: unknown, properties?: string[]) {
      if (typeof value !== "object" || value === null) line(value);
      else add(properties === undefined ? Bun.inspect.table(value) : Bun.inspect.table(value, properties));
    },
  });
  const write = (chunk: string | Uint8Array, ...rest: unknown[]): boolean => {
    add(typeof chunk === "string" ? chunk : decoder.decode(chunk, { stream: true }));
    const done = rest.findLast((value) => typeof value === "function") as (() => void) | undefined;
    if (done !== undefined) queueMicrotask(done);
    return true;
  };
  process.stdout.write = write;
  process.stderr.write = write;
  return () => add(unfinished === "" ? "" : "\n");
}
