/**
 * The kinds of value that pmilter.toml knows, each with the text of the expected value. No key and no default is named
 * here; schema.ts puts them together.
 */
import { parseServer } from "../dns/servers.ts";
import { isStoreUrl } from "../store/settings.ts";
import { TomlDate } from "smol-toml";
import * as v from "valibot";
import { AddressError, parseAddress, parseNetwork } from "./address.ts";
import { alternatives, show } from "./errors.ts";
import { ALL_DRAWS } from "../handler/conditions.ts";
import { parseClientPattern, parseHeloPattern, parseRecipientPattern, parseSenderPattern } from "./patterns.ts";
import { problemOfPattern } from "./include.ts";
import { nearestName } from "./nearest.ts";
import { SHIPPED_NAMES } from "../shipped.ts";
import { DURATION_EXAMPLES, durationHint, readDuration, readSize, SIZE_EXAMPLES, sizeHint } from "../quantity.ts";

/** Timers take 24.8 days (`MAX_TIMER_MS`); the rest is room for what the server adds to a time. */
export const MAX_SECONDS = 2_000_000;

interface Refused {
  readonly input: unknown;
}

/** A message of the form `expected …, got …`. */
export function expected(what: string, hint: (input: unknown) => string = () => ""): (issue: Refused) => string {
  return ({ input }) => `expected ${what}, got ${show(input)}${hint(input)}`;
}

export function isTable(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Date);
}

export function boolean() {
  return v.boolean(
    expected("true or false", (input) =>
      input === "true" || input === "false" ? `; write ${input}, without quotes` : "",
    ),
  );
}

export function oneOf<const T extends readonly string[]>(values: T) {
  const meant = (input: unknown) => {
    const given = typeof input === "string" ? input.trim().toLowerCase() : "";
    return given.length < 3 ? undefined : values.find((value) => given.startsWith(value) || value.startsWith(given));
  };
  return v.picklist(
    values,
    expected(alternatives(values), (input) => {
      const value = meant(input);
      return value === undefined ? "" : `; did you mean "${value}"?`;
    }),
  );
}

/** A whole number. */
export function whole(min: number, max: number) {
  return v.custom<number>(
    (value) => Number.isSafeInteger(value) && Number(value) >= min && Number(value) <= max,
    expected(`a whole number from ${min} to ${max}`, (input) =>
      typeof input === "string" && /^\d+$/.test(input) ? `; write ${input}, without quotes` : "",
    ),
  );
}

/** Bytes, as a whole number or as text with a unit: `"64KB"`. */
export function size(min: number, max: number) {
  const isInRange = (bytes: number) => bytes >= min && bytes <= max;
  return v.pipe(
    v.custom<number | string>(
      (value) => isInRange(readSize(value)),
      expected(`a size from ${min} to ${max} bytes, such as ${SIZE_EXAMPLES}`, sizeHint),
    ),
    v.transform((value) => readSize(value)),
  );
}

/** Seconds, fractions allowed, or text with a unit, `"500ms"`; as milliseconds. */
export function duration() {
  return milliseconds(1);
}

/** As `duration`, for a wait that may be left out. */
export function durationOrZero() {
  return milliseconds(0);
}

function milliseconds(min: number) {
  const isInRange = (ms: number) => ms >= min && ms <= MAX_SECONDS * 1000;
  return v.pipe(
    v.custom<number | string>(
      (value) => isInRange(readDuration(value)),
      expected(`a duration from ${min / 1000} to ${MAX_SECONDS} seconds, such as ${DURATION_EXAMPLES}`, durationHint),
    ),
    v.transform((value) => Math.round(readDuration(value))),
  );
}

const MAX_WORKERS = 1024;

export function workers() {
  return v.pipe(
    v.custom<number | "auto">(
      (value) => value === "auto" || (Number.isSafeInteger(value) && Number(value) >= 1),
      expected('a whole number of at least 1 or "auto"'),
    ),
    v.check((value) => value === "auto" || value <= MAX_WORKERS, expected(`at most ${MAX_WORKERS} workers`)),
  );
}

/** Text of a single line, without spaces around it. */
export function text(what: string) {
  return v.custom<string>(
    (value) => typeof value === "string" && /^\S(?:.*\S)?$/u.test(value) && !/\p{Cc}/u.test(value),
    expected(what),
  );
}

/** The permissions of a file, as a number. */
export function mode() {
  return v.pipe(
    v.custom<string>(
      (value) => typeof value === "string" && /^0?[0-7]{3}$/.test(value),
      expected('octal digits in quotes, such as "0660"', (input) =>
        typeof input === "number" && /^[0-7]{3}$/.test(String(input)) ? `; write "0${input}"` : "",
      ),
    ),
    v.transform((digits) => parseInt(digits, 8)),
  );
}

/** A value, or a list of at least one; always a list in the result. */
function oneOrMore<I, O>(one: v.GenericSchema<I, O>, what: string) {
  // `lazy`, since a union would say "neither" and lose which entry of a list is wrong.
  const each = v.pipe(
    v.array(one),
    v.check((list) => list.length > 0, expected(what)),
  );
  return v.pipe(
    v.lazy((input) => (Array.isArray(input) ? each : one)),
    v.transform((value) => (Array.isArray(value) ? value : [value])),
  );
}

export function networks() {
  const what = 'an address or network such as "192.0.2.0/24"';
  return v.array(
    parsed(parseNetwork, what),
    expected(`a list of addresses and networks such as ["192.0.2.0/24", "::1"]`),
  );
}

/** A listen address or a list; always a list in the result. */
export function listenAddresses() {
  const what = 'a listen address such as "inet:127.0.0.1:8891", or a list of them';
  return oneOrMore(parsed(parseAddress, what), what);
}

/** A name server of `dns.servers`. */
export function nameServers() {
  const what = 'a name server such as "192.0.2.1", "127.0.0.1:5353" or "[::1]:53"';
  return v.array(
    v.pipe(
      v.custom<string>((value) => typeof value === "string" && parseServer(value) !== null, expected(what)),
      v.transform((value) => parseServer(value)!),
    ),
    expected('a list of name servers such as ["192.0.2.1", "127.0.0.1:5353"]'),
  );
}

export function storeUrl() {
  return v.custom<string>(
    (value) => typeof value === "string" && isStoreUrl(value),
    expected('"sqlite:PATH", "redis://HOST", "rediss://HOST" or "valkey://HOST"'),
  );
}

export function clients() {
  const what = 'a client such as "192.0.2.0/24" or "mail.example.com", or a list of them';
  return oneOrMore(parsed(parseClientPattern, what), what);
}

export function helos() {
  const what = 'a name such as "mail.example.com" or ".example.com", or a list of them';
  return oneOrMore(parsed(parseHeloPattern, what), what);
}

export function senders() {
  const what = 'a sender such as "example.com", "user@example.com" or "<>", or a list of them';
  return oneOrMore(parsed(parseSenderPattern, what), what);
}

export function recipients() {
  const what = 'a recipient such as "example.com" or "user@example.com", or a list of them';
  return oneOrMore(
    parsed((pattern) => parseRecipientPattern(pattern), what),
    what,
  );
}

export function users() {
  const what = "a login name, or a list of them";
  return oneOrMore(text(what), what);
}

/** A share of sessions in percent, `"10%"`; in parts of {@link ALL_DRAWS}. */
export function share() {
  const read = (value: string) =>
    Math.round((Number(/^(\d+(?:\.\d{1,3})?)%$/.exec(value)?.[1] ?? NaN) / 100) * ALL_DRAWS);
  return v.pipe(
    v.custom<string>(
      (value) => typeof value === "string" && read(value) >= 1 && read(value) <= ALL_DRAWS,
      expected('a share from "0.001%" to "100%", such as "10%" or "0.5%"', (input) =>
        /^\d+(?:\.\d+)?$/.test(String(input)) && typeof input !== "object" ? `; write "${String(input)}%"` : "",
      ),
    ),
    v.transform(read),
  );
}

/** Text that `parse` reads or refuses with an AddressError, whose message is then the issue's. */
function parsed<T>(parse: (text: string) => T, what: string) {
  return v.pipe(
    v.string(expected(what)),
    v.rawTransform<string, T>(({ dataset, addIssue, NEVER }) => {
      try {
        return parse(dataset.value);
      } catch (error) {
        if (!(error instanceof AddressError)) throw error;
        addIssue({ message: error.message });
        return NEVER;
      }
    }),
  );
}

/** The path of a socket file, without the `unix:` of a listen address. */
export function socketPath() {
  return v.pipe(
    text("the path of a socket file"),
    v.check(
      (path) => !/^(?:unix|local|inet6?|fd):/i.test(path) && !path.endsWith("/"),
      expected("the path of a unix socket, without a prefix"),
    ),
  );
}

/** A path whose file name may be a pattern, or a list of them; always a list in the result. */
export function filePatterns() {
  const what = 'the path of a file such as "rules.d/*.toml", or a list of them';
  const one = v.pipe(
    text(what),
    v.rawCheck<string>(({ dataset, addIssue }) => {
      const problem = dataset.typed ? problemOfPattern(dataset.value) : null;
      if (problem !== null) addIssue({ message: `${show(dataset.value)} cannot be used: ${problem}` });
    }),
  );
  return oneOrMore(one, what);
}

export function folderPath() {
  return text("the path of a folder");
}

/** The path of a TypeScript module or a Ruby script. That it exists and loads is for the loader to find out. */
export function handlerPath() {
  return text("the path of a .ts or .rb file");
}

/** The path of a TypeScript module. */
export function modulePath() {
  return v.pipe(
    text("the path of a .ts file"),
    v.check(
      (path) => !/\.rb$/i.test(path),
      ({ input }: Refused) => `a filter is a .ts file; Ruby files belong in [handler.session]; got ${show(input)}`,
    ),
  );
}

/** The name of a filter that comes with pmilter. */
export function shippedName() {
  return v.picklist(
    SHIPPED_NAMES,
    expected(`a shipped filter, ${alternatives(SHIPPED_NAMES)}`, (input) => {
      const meant = typeof input === "string" ? nearestName(input, SHIPPED_NAMES) : undefined;
      if (meant !== undefined) return `; did you mean "${meant}"?`;
      return typeof input === "string" && input.includes("/") ? '; a file of yours belongs in "path"' : "";
    }),
  );
}

/** Any table, as plain objects that can be posted to a worker. */
export function anyTable() {
  return v.pipe(
    v.custom<Record<string, unknown>>(isTable, expected("a table")),
    v.transform((table) => plain(table) as Record<string, unknown>),
  );
}

/**
 * A TOML value without smol-toml's own types: structured cloning keeps neither null prototypes nor TomlDate. A time
 * with an offset is a Date; a local date or time names no instant and stays text.
 */
function plain(value: unknown): unknown {
  if (value instanceof TomlDate) return value.isLocal() ? value.toISOString() : new Date(value.getTime());
  if (Array.isArray(value)) return value.map(plain);
  if (isTable(value)) return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]));
  return value;
}
