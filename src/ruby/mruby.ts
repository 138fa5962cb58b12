/** Prints as mruby prints, where Opal's Ruby is another: handlers were written with that output in view. */
import { encodeText } from "../protocol/bytes.ts";
import type { Opal, RubyObject } from "./opal.ts";

/** Makes `puts`, `print`, `p`, `printf` and their output as in mruby 1.4 without UTF-8, which the original had. */
export function printLikeMruby(opal: Opal): void {
  const { Kernel, nil, String: RubyString, Time } = opal;
  const text = (value: unknown) => (value as RubyObject)["$to_s"]!() as string;
  const write = (line: string) => void process.stdout.write(line);

  // An array is a single line, as `to_s` makes it; a string that ends with a line end gets no second line end.
  opal.defn(Kernel, "$puts", (...values: unknown[]) => {
    const lines = values.map(text).map((line) => (line.endsWith("\n") ? line : `${line}\n`));
    write(lines.length === 0 ? "\n" : lines.join(""));
    return nil;
  });
  opal.defn(Kernel, "$print", (...values: unknown[]) => {
    write(values.map(text).join(""));
    return nil;
  });
  opal.defn(Kernel, "$p", (...values: unknown[]) => {
    write(values.map((value) => `${(value as RubyObject)["$inspect"]!() as string}\n`).join(""));
    return values[0] ?? nil;
  });
  opal.defn(Kernel, "$printf", function (this: RubyObject, ...values: unknown[]) {
    write(this["$sprintf"]!(...values) as string);
    return nil;
  });

  opal.defn(RubyString, "$inspect", function (this: string) {
    return inspectString(String(this));
  });
  for (const name of ["$to_s", "$inspect", "$asctime", "$ctime"]) {
    opal.defn(Time, name, function (this: RubyObject) {
      const zone = this["$utc?"]!() === true ? "UTC " : "";
      return this["$strftime"]!(`%a %b %d %H:%M:%S ${zone}%Y`);
    });
  }
}

/** A time of Opal is a date of JavaScript; without a time zone of its own it is in local time. */
type RubyTime = Date & { timezone?: unknown };

/** The methods of mruby's Time that Opal's has not. */
export function completeTime({ defn, Time }: Opal): void {
  defn(Time, "$localtime", function (this: RubyTime) {
    delete this.timezone;
    return this;
  });
  defn(Time, "$getlocal", function (this: RubyTime) {
    return new Date(this.getTime());
  });
  defn(Time, "$nsec", function (this: RubyTime) {
    return this.getMilliseconds() * 1_000_000;
  });
}

const ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  "\\": "\\\\",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
  "\f": "\\f",
  "\v": "\\v",
  "\b": "\\b",
  "\x07": "\\a",
  "\x1b": "\\e",
};

/** In quotes; `#` is escaped where it would begin an interpolation, bytes beyond ASCII are octal. */
export function inspectString(text: string): string {
  const shown = text.replace(/#(?=[{$@])|[^ !#-[\]-~]/gu, (char) => {
    if (char === "#") return "\\#";
    const known = ESCAPES[char];
    if (known !== undefined) return known;
    return [...encodeText(char)].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");
  });
  return `"${shown}"`;
}
