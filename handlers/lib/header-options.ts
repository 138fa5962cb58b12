/**
 * Reads `[filter.options]`: each method gives an option, checked, or throws an error that names the option, the
 * expected and the given value. `end()` finds keys that no method read: most often typing errors.
 */
import { reject, tempfail, type Verdict } from "pmilter";

export type Refusal = Verdict<"reject" | "tempfail">;

/** Everything below space, DEL, C1 and Unicode's line ends: with these, a line of text could become two. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;

export class Options {
  readonly #table: Readonly<Record<string, unknown>>;
  readonly #path: string;
  readonly #known = new Set<string>();

  /** @param path the prefix of the options' names in errors: `rules[2].` */
  constructor(table: unknown, path = "") {
    this.#path = path;
    if (!isTable(table)) throw new Error(`[filter.options]: expected a table, got ${show(table)}`);
    this.#table = table;
  }

  has(key: string): boolean {
    return this.#get(key) !== undefined;
  }

  /** A single line of text; without `fallback` it must be there. */
  text(key: string, fallback?: string): string {
    const value = this.#get(key) ?? fallback;
    if (typeof value !== "string" || CONTROL.test(value)) this.fail(key, "one line of text");
    return value;
  }

  /** Some of a few words. */
  choice<T extends string>(key: string, choices: readonly T[], fallback?: T): T {
    const value = this.#get(key) ?? fallback;
    const found = choices.find((choice) => choice === value);
    if (found === undefined) this.fail(key, `one of ${choices.map((choice) => `"${choice}"`).join(", ")}`);
    return found;
  }

  flag(key: string, fallback: boolean): boolean {
    const value = this.#get(key) ?? fallback;
    if (typeof value !== "boolean") this.fail(key, "true or false");
    return value;
  }

  /** A number of at least `least`; null if it is not there. */
  number(key: string, least: number): number | null {
    const value = this.#get(key);
    if (value === undefined) return null;
    if (typeof value !== "number" || !Number.isFinite(value) || value < least) {
      this.fail(key, `a number, ${least} or more`);
    }
    return value;
  }

  /** A list of lines of text, by default empty. */
  list(key: string): readonly string[] {
    const value = this.#get(key) ?? [];
    const isText = (each: unknown): each is string => typeof each === "string" && each !== "" && !CONTROL.test(each);
    if (!Array.isArray(value) || !value.every(isText)) this.fail(key, "a list of texts");
    return value;
  }

  /** The tables of `[[filter.options.key]]`, at least one. */
  tables(key: string): readonly Options[] {
    const value = this.#get(key);
    if (!Array.isArray(value) || value.length === 0 || !value.every(isTable)) {
      this.fail(key, `at least one [[filter.options.${key}]]`);
    }
    return value.map((table: unknown, index) => new Options(table, `${this.#path}${key}[${index}].`));
  }

  /** The name of a header. */
  headerName(key: string): string {
    const name = this.text(key);
    if (!isHeaderName(name)) this.fail(key, "the name of a header, without colon");
    return name;
  }

  /** An SMTP reply as a verdict. */
  refusal(key: string, kind: "reject" | "tempfail", fallback: string): Refusal {
    const text = this.#get(key) ?? fallback;
    if (typeof text !== "string") this.fail(key, "an SMTP reply");
    try {
      return kind === "reject" ? reject(text) : tempfail(text);
    } catch (error) {
      return this.fail(key, `an SMTP reply (${error instanceof Error ? error.message : String(error)})`);
    }
  }

  /** Throws: for checks that only the filter knows. */
  fail(key: string, expected: string): never {
    throw new Error(`option "${this.#path}${key}": expected ${expected}, got ${show(this.#get(key))}`);
  }

  /** To be called last. */
  end(): void {
    for (const key of Object.keys(this.#table)) {
      if (this.#known.has(key)) continue;
      throw new Error(
        `option "${this.#path}${key}": there is no such option here, expected one of ${[...this.#known].join(", ")}`,
      );
    }
  }

  #get(key: string): unknown {
    this.#known.add(key);
    return Object.hasOwn(this.#table, key) ? this.#table[key] : undefined;
  }
}

/**
 * The result of a filter's `start`, by the table of its options: a file can be several filters, each with its own
 * options, and module variables would be shared by them.
 */
export class Prepared<T extends object> {
  readonly #values = new WeakMap<object, T>();
  readonly #read: (options: Options, folder: string) => T;

  constructor(read: (options: Options, folder: string) => T) {
    this.#read = read;
  }

  /**
   * For `start`.
   * @param folder the base of relative paths in options
   */
  start(table: object, folder: string): T {
    const options = new Options(table);
    const value = this.#read(options, folder);
    options.end();
    this.#values.set(table, value);
    return value;
  }

  /** For the phases, with `session.options`. */
  of(table: object): T {
    const value = this.#values.get(table);
    if (value === undefined) throw new Error("the filter was not started");
    return value;
  }
}

/** A name by which a header can be changed (RFC 5322 3.6.8). A header of a message need not have such a name. */
export function isHeaderName(name: string): boolean {
  return /^[!-9;-~]+$/.test(name);
}

function isTable(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function show(value: unknown): string {
  if (value === undefined) return "nothing";
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}
