/**
 * What handlers print goes to the server's standard output by way of the main thread, which never blocks on it: a
 * direct write would block this worker whenever the reader of a pipe is slow. Text is that of Bun's own console.
 */
import { format } from "node:util";

/** Formats the arguments of `console.log` as Bun prints them without colours. */
export function formatLine(args: readonly unknown[]): string {
  const [first] = args;
  if (typeof first === "string" && first.includes("%") && args.length > 1) return format(...args);
  return args.map((arg) => (typeof arg === "string" ? arg : Bun.inspect(arg))).join(" ");
}

/** Sends what is printed in this thread to `print`, in whole lines. */
export function capturePrints(print: (text: string) => void): void {
  const line = (...args: unknown[]) => print(`${formatLine(args)}\n`);
  Object.assign(console, { log: line, info: line, debug: line, warn: line, error: line });
  console.trace = (...args: unknown[]) => {
    const stack = new Error().stack?.split("\n").slice(2).join("\n") ?? "";
    print(`Trace: ${formatLine(args)}\n${stack}\n`);
  };
  console.dir = (value: unknown) => line(value);
  console.table = (value: unknown, properties?: string[]) => {
    print(Bun.inspect.table(value as object[], properties ?? [], { colors: false }));
  };
  const write = (chunk: string | Uint8Array, ...rest: unknown[]): boolean => {
    print(typeof chunk === "string" ? chunk : Buffer.from(chunk).toString("utf8"));
    const done = rest.findLast((value) => typeof value === "function") as (() => void) | undefined;
    if (done !== undefined) queueMicrotask(done);
    return true;
  };
  process.stdout.write = write;
  process.stderr.write = write;
}
