/**
 * Makes stack traces whole. JavaScriptCore makes a proper tail call of `return reject("…")`: the handler's own frame is
 * gone before the verdict is made, and no log line could say where it was written. An option switches that off, but it
 * is read once, when a process starts, from its environment; so the server starts itself anew, in the same process
 * (docs/bun.md, "Threads").
 */
import { IS_COMPILED } from "../compiled.ts";
import { execve } from "../net/libc.ts";

const OPTION = "BUN_JSC_useTailCalls";

/**
 * Runs this program again with whole stack traces, unless it runs so already. It keeps its process id, arguments and
 * descriptors.
 * @returns null, or why it could not: then the log names a verdict's file and not its line
 */
export function keepFrames(): string | null {
  if (process.env[OPTION] === "0") {
    // Programs that handlers start are none of this option's business.
    delete process.env[OPTION];
    return null;
  }
  // A compiled binary is its own program.
  const program = IS_COMPILED ? [] : [...process.execArgv, Bun.main];
  const env: Record<string, string> = { [OPTION]: "0" };
  for (const [name, value] of Object.entries(process.env)) if (value !== undefined) env[name] = value;
  try {
    execve(process.execPath, [process.execPath, ...program, ...process.argv.slice(2)], env);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
