/**
 * Runs scripts in a process of its own, for tests: Opal extends JavaScript's own objects, and tests of other things share
 * theirs. Takes a JSON list of scripts on standard input; writes one of what became of each.
 */
import { siteOf } from "../../src/handler/site.ts";
import { compileLibrary, compileRuby } from "../../src/ruby/compile.ts";
import { LoadError } from "../../src/handler/load-failure.ts";
import { RubyRuntime } from "../../src/ruby/run.ts";

/** What a script printed, and the error that ended it. */
export interface Ran {
  readonly printed: string;
  readonly error: string | null;
  /** The lines of the script that the error came through. */
  readonly lines: readonly number[];
}

async function run(texts: readonly string[]): Promise<Ran[]> {
  const compiled = [];
  for (const [index, text] of texts.entries()) {
    compiled.push(await compileRuby(fileOf(index), text).catch((error: unknown) => error as LoadError));
  }
  const uses = compiled.flatMap((script) => (script instanceof LoadError ? [] : script.uses));
  const library = await compileLibrary([...new Set(uses)]);
  const runtime = await RubyRuntime.start();
  runtime.loadForTask(library);
  const write = process.stdout.write.bind(process.stdout);
  const results: Ran[] = [];
  for (const [index, script] of compiled.entries()) {
    let printed = "";
    process.stdout.write = (chunk: string | Uint8Array) => {
      printed += String(chunk);
      return true;
    };
    try {
      if (script instanceof LoadError) throw script;
      runtime.task(script)();
      results.push({ printed, error: null, lines: [] });
    } catch (error) {
      const { name, message } = error as Error;
      results.push({ printed, error: `${name}: ${message}`.replace(fileOf(index), "FILE"), lines: linesOf(error) });
    }
  }
  process.stdout.write = write;
  return results;
}

const fileOf = (index: number) => `/scripts/a folder/${index}.rb`;

function linesOf(error: unknown): number[] {
  const lines: number[] = [];
  let rest = error as Error;
  // Each frame in turn, as the log would name it.
  for (let site = siteOf(rest); site !== null; site = siteOf(rest)) {
    lines.push(site.line);
    const frames = rest.stack!.split("\n");
    const next = frames.findIndex((line) => line.startsWith("    at "));
    rest = Object.assign(new Error(rest.message), { name: rest.name, stack: frames.toSpliced(next, 1).join("\n") });
  }
  return lines;
}

/** @throws Error the process did not end well */
export async function runScripts(
  texts: readonly string[],
  env: Record<string, string> = {},
  cwd = process.cwd(),
): Promise<Ran[]> {
  const child = Bun.spawn([process.execPath, import.meta.path], {
    stdin: new Blob([JSON.stringify(texts)]),
    stdout: "pipe",
    stderr: "pipe",
    cwd,
    env: { ...process.env, ...env },
  });
  const [stdout, stderr, exitCode] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  if (exitCode !== 0) throw new Error(`the scripts were not run: ${stderr}`);
  return JSON.parse(stdout) as Ran[];
}

if (import.meta.main) {
  const results = await run((await Bun.stdin.json()) as string[]);
  await Bun.write(Bun.stdout, JSON.stringify(results));
}
