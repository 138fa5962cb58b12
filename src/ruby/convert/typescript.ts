/** Pieces of TypeScript, as a person would write them. */
import type { Value } from "./names.ts";

/** As the text of a template. */
export function templateText(text: string): string {
  return JSON.stringify(text)
    .slice(1, -1)
    .replaceAll('\\"', '"')
    .replace(/`|\$\{/g, "\\$&");
}

/** Without parentheses around the whole. */
export function unwrapped(code: string): string {
  return /^\([^()]*(?:\([^()]*\)[^()]*)*\)$/.test(code) ? code.slice(1, -1) : code;
}

/** Names that a local variable of Ruby cannot keep: words of TypeScript, and names of the handler's own. */
const TAKEN: ReadonlySet<string> = new Set(
  [
    "arguments await const default delete enum eval export extends finally function implements import instanceof",
    "interface let new null package private protected public static switch this throw try typeof var void with",
    "session sender recipient hostname name value chunk verdict puts ctime integer lock accept discard reject skip tempfail",
  ].flatMap((line) => line.split(" ")),
);

export function localName(name: string): string {
  return TAKEN.has(name) ? `${name}_` : name;
}

/** A string that is known. */
export const isLiteral = ({ code }: Value) => code.startsWith('"');

/** The opposite of a condition, as a person would write it. */
export function negated(code: string): string {
  const comparison = /^([^&|]*) ([=!])== ([^&|]*)$/.exec(code);
  if (comparison !== null) return `${comparison[1]} ${comparison[2] === "=" ? "!" : "="}== ${comparison[3]}`;
  return /^[\w.]+\([^()]*\)$/.test(code) ? `!${code}` : `!(${code})`;
}

/** Helpers that the handler needs for some expressions of Ruby. */
export const HELPERS: Readonly<Record<string, string>> = {
  puts: `/** Prints a line; a line end that is there is not doubled. */
function puts(text: string): void {
  console.log(text.endsWith("\\n") ? text.slice(0, -1) : text);
}`,
  integer: `/** The number at the beginning of a text, 0 if there is none. */
function integer(value: unknown): number {
  return Number.parseInt(String(value ?? ""), 10) || 0;
}`,
  lock: `/** Waits for the lock of this handler, at most so many milliseconds. It ends by itself if its worker is lost. */
async function lock({ store }: Session, ms: number): Promise<boolean> {
  const end = Date.now() + ms;
  while (!(await store.claim("lock", { ttl: "10s" }))) {
    if (Date.now() >= end) return false;
    await new Promise((resolve) => setTimeout(resolve, 2 + Math.random() * 8));
  }
  return true;
}`,
  ctime: `/** \`Wed Nov 02 21:02:15 2016\`, in local time. */
function ctime(date: Date): string {
  const [weekday, month, day, year] = date.toDateString().split(" ");
  return \`\${weekday} \${month} \${day} \${date.toTimeString().slice(0, 8)} \${year}\`;
}`,
};
