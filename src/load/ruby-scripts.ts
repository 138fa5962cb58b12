/** The Ruby files of a snapshot of sources, compiled. It loads Opal if there are any, and nothing otherwise. */
import { LoadError, type LoadFailure } from "../handler/load-failure.ts";
import type { SourceFile, Sources } from "./sources.ts";
import type { RubyScript } from "../ruby/compile.ts";

/**
 * @param isTolerant a file that does not load costs the events of its phase and no more: the original read its handlers
 *   at each event, and started without looking at them
 * @returns the same snapshot with the JavaScript of its Ruby files
 */
export async function compileScripts(sources: Sources, isTolerant: boolean): Promise<Sources> {
  const ruby = sources.files.filter((file) => file.loader === "ruby");
  const scripts: Record<string, RubyScript> = {};
  const library: RubyScript[] = [];
  const broken = { ...sources.broken };
  if (ruby.length > 0) await compileAll(ruby, scripts, broken, library);
  const problem = sources.problem ?? (isTolerant ? null : (Object.values(broken)[0] ?? null));
  return { ...sources, scripts, library, broken, problem };
}

async function compileAll(
  files: readonly SourceFile[],
  scripts: Record<string, RubyScript>,
  broken: Record<string, LoadFailure>,
  library: RubyScript[],
): Promise<void> {
  const { compileLibrary, compileRuby } = await import("../ruby/compile.ts");
  for (const { path, text } of files) {
    try {
      scripts[path] = await compileRuby(path, text);
    } catch (error) {
      if (!(error instanceof LoadError)) throw error;
      broken[path] = error.failure;
    }
  }
  const used = new Set(Object.values(scripts).flatMap(({ uses }) => uses));
  for (const script of await compileLibrary([...used])) library.push(script);
}
