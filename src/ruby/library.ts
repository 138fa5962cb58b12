/** Classes of the original's gems: written in Ruby, on a few methods of our own. */
import cache from "./library/cache.rb" with { type: "text" };
import file from "./library/file.rb" with { type: "text" };
import mutex from "./library/mutex.rb" with { type: "text" };
import type { RubyFiles } from "./files.ts";
import { isText, type Opal } from "./opal.ts";
import type { ServiceQuestions } from "./threads/questions.ts";

/** Each class with the source that defines it. */
const SOURCES = {
  Mutex: ["mutex", mutex],
  Cache: ["cache", cache],
  File: ["file", file],
  IO: ["file", file],
} as const;

/** A class of the library that a script uses. */
export type LibraryClass = keyof typeof SOURCES;

export const LIBRARY_CLASSES = Object.keys(SOURCES) as readonly LibraryClass[];

/** The classes that work on the store, which the start and the end of a server have not. */
export const STORE_CLASSES: ReadonlySet<LibraryClass> = new Set(["Mutex", "Cache"]);

/** The sources that define classes, by their paths. */
export function librarySources(names: readonly LibraryClass[]): ReadonlyMap<string, string> {
  return new Map(
    names.map((name) => {
      const [source, text] = SOURCES[name];
      return [`/pmilter/ruby/${source}.rb`, text];
    }),
  );
}

/** Defines `Pmilter::Services`, which the sources call. */
export function definePrimitives(
  opal: Opal,
  files: RubyFiles,
  ask: (operation: keyof ServiceQuestions, args: readonly unknown[]) => unknown,
): void {
  const { nil, Object: top } = opal;
  const Services = opal.klass(top.$$const["Pmilter"]!, top, "Services");
  const plain = (value: unknown): unknown => {
    if (value === nil) return null;
    if (Array.isArray(value)) return value.map(plain);
    return isText(value) ? String(value) : value;
  };
  const shown = (value: unknown): unknown => {
    if (value === null) return nil;
    return Array.isArray(value) ? value.map(shown) : value;
  };
  const still = new Int32Array(new SharedArrayBuffer(4));
  opal.defs(Services, "$pause", (ms: number) => {
    Atomics.wait(still, 0, 0, Math.max(0, ms));
    return nil;
  });
  opal.defs(Services, "$file", (operation: string, ...args: unknown[]) =>
    shown(files.call(String(operation), args.map(plain))),
  );
  let lastId = 0;
  opal.defs(Services, "$next_id", () => ++lastId);
  opal.defs(Services, "$ask", (operation: string, ...args: unknown[]) =>
    shown(ask(String(operation) as keyof ServiceQuestions, args.map(plain))),
  );
}
