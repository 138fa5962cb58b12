/** The kinds of options that the filters have, each with its words. The meaning of an option is a row of its filter's page. */
import { reject, tempfail, type Verdict } from "pmilter";
import * as o from "pmilter/options";
import { DomainList, MailboxList, nameEntry } from "./access-names.ts";
import { NetworkTable } from "./access-networks.ts";

export type Refusal = Verdict<"reject" | "tempfail">;

/** An option that must be given. */
export function required<const S extends o.GenericSchema>(schema: S, meaning: string) {
  return o.pipe(schema, o.description(meaning), o.metadata({ unset: "required" }));
}

/** An option with a default, written as it would be in the configuration. */
export function option<const S extends o.GenericSchema, const D extends o.InferInput<S>>(
  schema: S,
  fallback: D,
  meaning: string,
) {
  return o.pipe(o.optional(schema, fallback), o.description(meaning));
}

/** An option that may be left out. @param unset what then holds, in words */
export function unset<const S extends o.GenericSchema>(schema: S, unset: string, meaning: string) {
  return o.pipe(o.optional(schema), o.description(meaning), o.metadata({ unset }));
}

/** Refuses an option for the sake of another. */
export type Fail<T> = (key: keyof T & string, expected: string) => never;

class Refused {
  readonly key: string;
  readonly expected: string;

  constructor(key: string, expected: string) {
    this.key = key;
    this.expected = expected;
  }
}

/** A table, and what the filter makes of it. */
export function made<const S extends o.GenericSchema<unknown, object>, T>(
  schema: S,
  make: (options: o.InferOutput<S>, fail: Fail<o.InferOutput<S>>) => T,
) {
  return o.pipe(
    schema,
    o.rawTransform<o.InferOutput<S>, T>(({ addIssue, dataset: { value: input }, NEVER }) => {
      try {
        return make(input, (key, expected) => {
          throw new Refused(key, expected);
        });
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        const { key } = error;
        const value = (input as Readonly<Record<string, unknown>>)[key];
        const message = o.expected(error.expected)({ input: value });
        addIssue({ message, path: [{ type: "unknown", origin: "value", input, key, value }] });
        return NEVER;
      }
    }),
  );
}

/** Everything below space, DEL, C1 and Unicode's line ends: with these, a line of text could become two. */
// oxlint-disable-next-line no-control-regex
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/;

/** The bits of a prefix of addresses: `/24`. */
export function prefixLength(width: 32 | 128) {
  return o.custom<number>(
    (value) => Number.isSafeInteger(value) && Number(value) >= 8 && Number(value) <= width,
    o.expected(`a whole number from 8 to ${width}`),
  );
}

/** The networks that clients are taken together in. */
export const PREFIX_OPTIONS = {
  ipv4_prefix: option(prefixLength(32), 24, "the length of the prefix that makes a client's network, for IPv4"),
  ipv6_prefix: option(prefixLength(128), 64, "the same for IPv6"),
};

/** A single line of text. */
export function line() {
  return o.custom<string>((value) => typeof value === "string" && !CONTROL.test(value), o.expected("one line of text"));
}

/** A single line with something in it. */
export function someText() {
  return o.pipe(
    line(),
    o.check((text) => text.trim() !== "", o.expected("some text")),
  );
}

/** A list of lines with something in each. */
export function lines() {
  return o.array(someText());
}

/** A whole number. */
export function count(least: number) {
  return o.custom<number>(
    (value) => Number.isSafeInteger(value) && Number(value) >= least,
    o.expected(`a whole number, ${least} or more`),
  );
}

/** A number that need not be whole. */
export function amount() {
  return o.custom<number>(
    (value) => typeof value === "number" && Number.isFinite(value) && value >= 0,
    o.expected("a number, 0 or more"),
  );
}

/** A name by which a header can be changed (RFC 5322 3.6.8). A header of a message need not have such a name. */
export function isHeaderName(name: string): boolean {
  return /^[!-9;-~]+$/.test(name);
}

export function headerName() {
  return o.custom<string>(
    (value) => typeof value === "string" && isHeaderName(value),
    o.expected("the name of a header, without colon"),
  );
}

/** Names of hosts and domains, and with a dot in front all names below one. */
export function names(what: string) {
  return o.array(
    o.pipe(
      line(),
      o.check((name) => nameEntry(name) !== null, o.expected(what)),
    ),
  );
}

/** Domains to look the domain of an address up in. */
export function domains() {
  return o.pipe(
    names('a domain such as "example.com" or ".example.com"'),
    o.transform((entries) => new DomainList(entries)),
  );
}

/** Addresses and networks, to look a client's address up in. */
export function networks() {
  return o.pipe(
    lines(),
    o.rawTransform<string[], NetworkTable<true>>(({ addIssue, dataset: { value: entries }, NEVER }) => {
      const table = new NetworkTable<true>();
      for (const [key, entry] of entries.entries()) {
        try {
          table.add(entry, true);
        } catch (error) {
          const what = `an address or a network (${error instanceof Error ? error.message : String(error)})`;
          const path = [{ type: "array" as const, origin: "value" as const, input: entries, key, value: entry }];
          addIssue({ message: o.expected(what)({ input: entry }), path: path as [(typeof path)[0]] });
          return NEVER;
        }
      }
      return table;
    }),
  );
}

/** Mailboxes and domains, to look an address up in. */
export function mailboxes() {
  return o.pipe(
    lines(),
    o.rawTransform<string[], MailboxList>(({ addIssue, dataset: { value: entries }, NEVER }) => {
      try {
        return new MailboxList(entries);
      } catch (error) {
        const what = `mailboxes and domains (${error instanceof Error ? error.message : String(error)})`;
        addIssue({ message: o.expected(what)({ input: entries }) });
        return NEVER;
      }
    }),
  );
}

/** An SMTP reply, as a verdict. */
export function refusal(kind: "reject" | "tempfail") {
  return o.pipe(
    o.string(),
    o.rawTransform<string, Refusal>(({ addIssue, dataset: { value }, NEVER }) => {
      const result = refusalOf(kind, value);
      if (typeof result !== "string") return result;
      addIssue({ message: o.expected(result)({ input: value }) });
      return NEVER;
    }),
  );
}

/** The verdict with that reply, or what was expected in the place of the text. */
export function refusalOf(kind: "reject" | "tempfail", text: string): Refusal | string {
  try {
    return kind === "reject" ? reject(text) : tempfail(text);
  } catch (error) {
    return `an SMTP reply (${error instanceof Error ? error.message : String(error)})`;
  }
}
