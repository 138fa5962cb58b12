/**
 * What handlers print goes to the server's standard output by way of the main thread, which never blocks on it: a
 * direct write would block this worker whenever the reader of a pipe is slow. Text is that of Bun's own console.
 */
import { format } from "node:util";

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
    unfinished += text;
    const end = unfinished.lastIndexOf("\n") + 1;
    if (end === 0) return;
    print(unfinished.slice(0, end));
    unfinished = unfinished.slice(end);
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
