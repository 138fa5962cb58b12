/** The rules that header-policy.ts knows, by name: the options that each takes, and how it judges a message. */
import { randomUUID } from "node:crypto";
import { encodeWords, foldHeader, type Header, type Session } from "pmilter";
import {
  array,
  boolean,
  check,
  expected,
  type GenericSchema,
  type InferOutput,
  type ObjectEntries,
  optional,
  picklist,
  pipe,
  type StrictObjectSchema,
  string,
  table,
  trim,
} from "pmilter/options";
import { nameEntry, NameTable, normalDomain } from "./access-names.ts";
import { authservId, formatDate, isMessageId, parseDate, unfold } from "./header-syntax.ts";
import {
  amount,
  count,
  type Fail,
  headerName,
  isHeaderName,
  line,
  made,
  names,
  networks,
  option,
  type Refusal,
  refusalOf,
  required,
  someText,
  unset,
} from "./options.ts";

/** The finding of a rule: a way to repair it, which is used if the action is `fix`. */
export type Fix = () => void;

export interface Rule {
  /** The fault that `check` finds, for replies and logs. */
  readonly problem: string;
  /** Whether it can repair some of its findings. */
  readonly fixes: boolean;
  /** Null if nothing is wrong. */
  check(session: Session<"eom">): Fix | null;
}

const ACTIONS = ["reject", "tempfail", "quarantine", "fix", "observe"] as const;

/** A rule, and the action that its findings have. */
export interface Step {
  readonly rule: Rule;
  readonly action: (typeof ACTIONS)[number];
  /** For `reject` and `tempfail`. */
  readonly refusal: Refusal | null;
}

/** The options that every rule has. */
export const COMMON = {
  rule: required(string(), "a rule of the table below"),
  action: required(
    picklist(ACTIONS),
    "`reject`, `tempfail`, `quarantine`, `fix` (next table), `observe` (the log, at `warn`)",
  ),
  text: unset(
    string(),
    '`"550 5.6.0 Message refused: …"`, or 451',
    "the reply of `reject` and `tempfail`; `…` is the rule's finding",
  ),
};

/** The options of a table with these entries. */
type OptionsOf<E extends ObjectEntries> = InferOutput<StrictObjectSchema<E, undefined>>;

type Common = OptionsOf<typeof COMMON>;

const REFUSED = { reject: "550 5.6.0 Message refused", tempfail: "451 4.6.0 Message refused for now" };

function stepOf({ action, text }: Common, rule: Rule, fail: Fail<Common>): Step {
  if (action === "fix" && !rule.fixes) fail("action", 'another action: there is no "value" or "replace"');
  if (action !== "reject" && action !== "tempfail") {
    return text === undefined ? { rule, action, refusal: null } : fail("text", `no text, as the action is "${action}"`);
  }
  const refusal = refusalOf(action, text ?? `${REFUSED[action]}: ${rule.problem}`);
  return typeof refusal === "string" ? fail("text", refusal) : { rule, action, refusal };
}

/** A kind of rule: its own options, and what they make. */
function kind<const E extends ObjectEntries>(
  entries: E,
  make: (options: Common & OptionsOf<E>, fail: Fail<OptionsOf<E>>) => Rule,
) {
  const all = table({ ...COMMON, ...entries }) as unknown as GenericSchema<unknown, Common & OptionsOf<E>>;
  return { entries, schema: made(all, (options, fail) => stepOf(options, make(options, fail), fail)) };
}

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

/** RFC 5322 3.6, RFC 2045, RFC 2183: at most a single header of each name. */
const SINGLE = [
  "Date",
  "From",
  "Sender",
  "Reply-To",
  "To",
  "Cc",
  "Bcc",
  "Message-Id",
  "In-Reply-To",
  "References",
  "Subject",
  "MIME-Version",
  "Content-Type",
  "Content-Transfer-Encoding",
  "Content-Id",
  "Content-Description",
  "Content-Disposition",
];

const namesOfHeaders = pipe(
  line(),
  check((name) => name === "*" || isHeaderName(name), expected('the name of a header, or "*"')),
);

const nameOrBeginning = pipe(
  line(),
  check((name) => isHeaderName(name.replace(/\*$/, "")), expected('the name of a header, or its beginning and "*"')),
);

const ADDRESS_HEADER = /^(?:resent-)?(?:from|sender|reply-to|to|cc|bcc)$/i;

const REWRITE = {
  header: headerName(),
  pattern: line(),
  flags: optional(line(), "i"),
  replace: optional(line()),
};

const DUPLICATES = {
  headers: optional(array(headerName()), []),
  keep: optional(picklist(["first", "last"]), "first"),
};

export const AUTHENTICATION = {
  authserv_ids: option(
    names('a name such as "mx.example.com" or ".example.com"'),
    [],
    'further names, such as those of your other mail servers; `".example.com"` is all names below `example.com`',
  ),
  all: option(boolean(), false, "find all Authentication-Results, of any name"),
  trusted_networks: option(
    networks(),
    [],
    "clients whose headers stay: your own relays, a content filter on `127.0.0.1`",
  ),
};

export const RULES = {
  require: kind({ header: headerName(), value: optional(pipe(line(), trim()), "") }, ({ header, value }) => {
    return {
      problem: `no ${header} header`,
      fixes: value !== "",
      check: ({ message }) =>
        message.headers.get(header) === undefined ? () => message.addHeader(header, foldHeader(header, value)) : null,
    };
  }),

  /** Too many headers of a name, or too long headers; `*` is all headers. */
  limit: kind(
    { header: namesOfHeaders, max_count: optional(count(0)), max_length: optional(count(0)) },
    (options, fail) => {
      const { header, max_count: most = Infinity, max_length: longest = Infinity } = options;
      if (most === Infinity && longest === Infinity) fail("max_count", "a number here or in max_length");
      return {
        problem: `too many or too long ${header === "*" ? "" : `${header} `}headers`,
        fixes: true,
        check({ message }) {
          const surplus: Header[] = [];
          let kept = 0;
          for (const each of header === "*" ? message.headers : message.headers.all(header)) {
            if (kept < most && each.value.length <= longest) kept += 1;
            else surplus.push(each);
          }
          return deletion(message, surplus);
        },
      };
    },
  ),

  /** `X-Spam-*` is every name that begins so. */
  remove: kind({ header: nameOrBeginning }, ({ header }) => {
    const start = header.endsWith("*") ? header.slice(0, -1).toLowerCase() : null;
    return {
      problem: `a ${header} header`,
      fixes: true,
      check({ message }) {
        if (start === null) return deletion(message, message.headers.all(header));
        return deletion(
          message,
          [...message.headers].filter(({ name }) => name.toLowerCase().startsWith(start)),
        );
      },
    };
  }),

  /** Headers of a name whose text, or unfolded value, matches a pattern. */
  rewrite: kind(REWRITE, ({ action, flags, header, pattern: source, replace }, fail) => {
    const pattern = patternOf(source, flags, (expected) => fail("pattern", expected));
    const matches = (text: string) => text.search(pattern) !== -1;
    // The text of a header with addresses cannot be written back: a name in it may need quotes.
    const readsWords = action !== "fix" || !ADDRESS_HEADER.test(header);
    /** The value to match: as people see it, if encoded words hide the match. */
    const read = ({ text, value }: Header) => {
      const line = unfold(value);
      const isText = readsWords && text !== line.trim() && matches(text);
      return { line: isText ? text : line, write: isText ? encodeWords : (line: string) => foldHeader(header, line) };
    };
    return {
      problem: `a ${header} header that is not allowed`,
      fixes: replace !== undefined,
      check({ message }) {
        const found = message.headers.all(header).filter((each) => matches(read(each).line));
        if (found.length === 0) return null;
        return () => {
          for (const each of found) {
            const { line, write } = read(each);
            message.changeHeader(each, write(line.replace(pattern, replace ?? "").trim()));
          }
        };
      },
    };
  }),

  /** A single header of that name, with that value. */
  set: kind({ header: headerName(), value: pipe(someText(), trim()) }, ({ header, value }) => {
    return {
      problem: `another ${header} header than expected`,
      fixes: true,
      check({ message }) {
        const [first, ...others] = message.headers.all(header);
        if (first !== undefined && others.length === 0 && unfold(first.value).trim() === value) return null;
        return () => {
          deletion(message, others)?.();
          message.changeHeader(header, foldHeader(header, value));
        };
      },
    };
  }),

  message_id_missing: kind({}, () => ({
    problem: "no Message-Id header",
    fixes: true,
    check: (session) =>
      session.message.headers.get("Message-Id") === undefined
        ? () => session.message.addHeader("Message-Id", newMessageId(session.myHostname))
        : null,
  })),

  message_id_malformed: kind({ obsolete: optional(boolean(), true) }, ({ obsolete }) => {
    return {
      problem: "a malformed Message-Id header",
      fixes: true,
      check(session) {
        const value = session.message.headers.get("Message-Id");
        if (value === undefined || isMessageId(value, obsolete)) return null;
        return () => session.message.changeHeader("Message-Id", newMessageId(session.myHostname));
      },
    };
  }),

  date_missing: kind({}, () => ({
    problem: "no Date header",
    fixes: true,
    check: ({ message }) =>
      message.headers.get("Date") === undefined
        ? () => message.addHeader("Date", formatDate(message.receivedAt))
        : null,
  })),

  date_malformed: kind({ obsolete: optional(boolean(), true) }, ({ obsolete }) =>
    dateRule("a malformed Date header", (value) => parseDate(value, obsolete) === null),
  ),

  date_past: kind({ days: optional(amount(), 365) }, ({ days }) => {
    const most = days * DAY_MS;
    return dateRule("a Date header too far in the past", (value, now) => now - (parseDate(value, true) ?? now) > most);
  }),

  date_future: kind({ hours: optional(amount(), 24) }, ({ hours }) => {
    const most = hours * HOUR_MS;
    return dateRule(
      "a Date header too far in the future",
      (value, now) => (parseDate(value, true) ?? now) - now > most,
    );
  }),

  /** More headers than one of a name that may be there once. */
  duplicates: kind(DUPLICATES, ({ headers, keep }) => {
    const names = headers.length > 0 ? headers : SINGLE;
    const keepsLast = keep === "last";
    return {
      problem: "a header twice that may be there once",
      fixes: true,
      check({ message }) {
        const all = names.map((name) => message.headers.all(name));
        return deletion(
          message,
          all.flatMap((each) => (keepsLast ? each.slice(0, -1) : each.slice(1))),
        );
      },
    };
  }),

  /** RFC 8601 5: a header from outside that has our name is forged. */
  authentication_results: kind(AUTHENTICATION, ({ all: removesAll, authserv_ids, trusted_networks }) => {
    const ids = new NameTable<true>();
    for (const id of authserv_ids) ids.add(nameEntry(id)!, true);
    return {
      problem: "a forged Authentication-Results header",
      fixes: true,
      check({ message, client, myHostname }) {
        if (trusted_networks.find(client.address) === true) return null;
        const ours = myHostname === "" ? null : normalDomain(myHostname);
        const isForged = (value: string) => {
          const id = removesAll ? null : authservId(value);
          return id === null || id === ours || ids.find(id) === true;
        };
        return deletion(
          message,
          message.headers.all("Authentication-Results").filter(({ value }) => isForged(value)),
        );
      },
    };
  }),
};

function patternOf(source: string, flags: string, fail: (expected: string) => never): RegExp {
  try {
    // Global in any case: all matches in a value are replaced.
    return new RegExp(source, [...new Set(`${flags}g`)].join(""));
  } catch (error) {
    return fail(`a regular expression (${error instanceof Error ? error.message : ""})`);
  }
}

function dateRule(problem: string, isWrong: (value: string, now: number) => boolean): Rule {
  return {
    problem,
    fixes: true,
    check({ message }) {
      const value = message.headers.get("Date");
      if (value === undefined || !isWrong(value, message.receivedAt.getTime())) return null;
      return () => message.changeHeader("Date", formatDate(message.receivedAt));
    },
  };
}

function newMessageId(host: string): string {
  return `<${randomUUID()}@${/^[\w-]+(?:\.[\w-]+)*$/.test(host) ? host : "localhost"}>`;
}

/** A finding that is repaired by deleting headers; null if there are none. */
function deletion(message: Session<"eom">["message"], headers: readonly Header[]): Fix | null {
  if (headers.length === 0) return null;
  return () => {
    for (const header of headers) message.deleteHeader(header);
  };
}
