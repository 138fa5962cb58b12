/** Has Bun load modules from a snapshot of sources, in this thread. */
import { dataModule } from "./data-module.ts";
import { isCode, type SourceFile, type Sources } from "./sources.ts";

/**
 * From now on, in this thread, the files of the snapshot are loaded from it. Call it before the first import.
 *
 * They are virtual modules under their real paths: for these Bun neither looks at the disk nor follows links. By `onLoad`
 * it would: Bun 1.4.5 gives the path that it finds itself, and remembers for the life of the process where links led
 * (docs/bun.md, "Modules").
 */
export function serveSources({ files, imports, targets }: Sources): void {
  if (files.length === 0) return;
  const aliases = new Map(files.map(({ path }) => [path, aliasesOf([...(imports.get(path)?.keys() ?? [])])]));
  const specifiers = new Map(
    aliases
      .entries()
      .map(([path, of]) => [path, new Map(of.entries().map(([specifier, alias]) => [alias, specifier]))]),
  );
  Bun.plugin({
    name: "pmilter-sources",
    setup(build) {
      build.onResolve({ filter: /./ }, ({ path, importer }) => {
        const specifier = specifiers.get(importer)?.get(path) ?? path;
        const led = imports.get(importer)?.get(specifier);
        if (led === null) {
          const message = `Cannot find module '${specifier}' imported from ${importer}`;
          throw Object.assign(new Error(message), { code: "ERR_MODULE_NOT_FOUND" });
        }
        const target = led ?? targets.get(path);
        return target === undefined ? undefined : { path: target };
      });
      for (const file of files) build.module(file.path, () => moduleOf(file, aliases.get(file.path)!));
    },
  });
}

function moduleOf({ path, loader, text }: SourceFile, aliases: ReadonlyMap<string, string>) {
  if (loader === "ruby") throw new SyntaxError("a Ruby file cannot be imported");
  if (isCode(loader)) return { contents: withAliases(text, aliases), loader };
  return { exports: dataModule(path, loader, text), loader: "object" as const };
}

/** Bun 1.4.5 asks plugins about a specifier only if it has an extension or a colon (docs/bun.md, "Modules"). */
const IS_ASKED = /\.[A-Za-z\u0080-\uffff][^.]*$|:/;

/**
 * Gives each specifier that Bun would not ask about another name that it does ask about, of the same length, so that
 * the columns of a stack trace stay right. If no such name is left, the specifier is left to Bun.
 */
function aliasesOf(specifiers: readonly string[]): Map<string, string> {
  const aliases = new Map<string, string>();
  const counts = new Map<number, number>();
  for (const specifier of specifiers) {
    if (IS_ASKED.test(specifier)) continue;
    const digits = specifier.length - 1;
    const count = counts.get(digits) ?? 0;
    if (count >= 36 ** digits) continue;
    counts.set(digits, count + 1);
    aliases.set(specifier, `:${digits === 0 ? "" : count.toString(36).padStart(digits, "0")}`);
  }
  return aliases;
}

function withAliases(text: string, aliases: ReadonlyMap<string, string>): string {
  let aliased = text;
  for (const [specifier, alias] of aliases) {
    const quoted = new RegExp(
      `(\\b(?:from|import|require)\\s*\\(?\\s*(["'\`]))${RegExp.escape(specifier)}(?=\\2)`,
      "g",
    );
    aliased = aliased.replace(quoted, `$1${alias}`);
  }
  return aliased;
}
