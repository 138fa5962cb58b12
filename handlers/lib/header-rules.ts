/** The rules that header-policy.ts knows, by name: the options that each takes, and how it judges a message. */
import { randomUUID } from "node:crypto";
import type { Session } from "pmilter";
import { nameEntry, NameTable, normalDomain } from "./access-names.ts";
import { NetworkTable } from "./access-networks.ts";
import { isHeaderName, type Options } from "./header-options.ts";
import { authservId, formatDate, isMessageId, parseDate } from "./header-syntax.ts";
import { fold, unfold } from "./header-text.ts";

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

const DAY_MS = 86_400_000;
const HOUR_MS = 3_600_000;

/** RFC 5322 3.6, RFC 2045: at most a single header of each name. */
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
];

export const RULES = {
  require(options: Options): Rule {
    const header = options.headerName("header");
    const value = options.text("value", "").trim();
    return {
      problem: `no ${header} header`,
      fixes: value !== "",
      check: ({ message }) =>
        message.headers.get(header) === undefined ? () => message.addHeader(header, fold(value, header.length)) : null,
    };
  },

  /** Too many headers of a name, or too long headers; `*` is all headers. */
  limit(options: Options): Rule {
    const header = options.text("header");
    if (header !== "*" && !isHeaderName(header)) options.fail("header", 'the name of a header, or "*"');
    const count = options.number("max_count", 0);
    const length = options.number("max_length", 0);
    if (count === null && length === null) options.fail("max_count", "a number here or in max_length");
    const most = count ?? Infinity;
    const longest = length ?? Infinity;
    const name = header.toLowerCase();
    return {
      problem: `too many or too long ${header === "*" ? "" : `${header} `}headers`,
      fixes: true,
      check({ message }) {
        const surplus = new Map<string, number[]>();
        const seen = new Map<string, number>();
        let kept = 0;
        for (const each of message.headers) {
          const key = each.name.toLowerCase();
          const index = (seen.get(key) ?? 0) + 1;
          seen.set(key, index);
          if (header !== "*" && key !== name) continue;
          if (kept < most && each.value.length <= longest) {
            kept += 1;
            continue;
          }
          const indexes = surplus.get(key);
          if (indexes === undefined) surplus.set(key, [index]);
          else indexes.push(index);
        }
        if (surplus.size === 0) return null;
        return () => {
          for (const [key, indexes] of surplus) deleteHeaders(message, key, indexes);
        };
      },
    };
  },

  /** `X-Spam-*` is every name that begins so. */
  remove(options: Options): Rule {
    const header = options.text("header");
    const start = header.endsWith("*") ? header.slice(0, -1).toLowerCase() : null;
    if (!isHeaderName(start ?? header)) options.fail("header", 'the name of a header, or its beginning and "*"');
    return {
      problem: `a ${header} header`,
      fixes: true,
      check({ message }) {
        const names = new Set<string>();
        for (const each of message.headers) {
          const name = each.name.toLowerCase();
          if (start === null ? name === header.toLowerCase() : name.startsWith(start)) names.add(name);
        }
        if (names.size === 0) return null;
        return () => {
          for (const name of names) if (isHeaderName(name)) message.deleteHeader(name);
        };
      },
    };
  },

  /** Headers of a name whose unfolded value matches a pattern. */
  rewrite(options: Options): Rule {
    const header = options.headerName("header");
    const pattern = patternOf(options);
    const replacement = options.has("replace") ? options.text("replace") : null;
    return {
      problem: `a ${header} header that is not allowed`,
      fixes: replacement !== null,
      check({ message }) {
        const values = message.headers.getAll(header).map(unfold);
        const found = values.map((value) => value.search(pattern) !== -1);
        if (!found.includes(true)) return null;
        return () => {
          // From the last header on: a header whose value becomes empty is deleted, and the headers behind it move up.
          for (let at = values.length - 1; at >= 0; at--) {
            if (!found[at]) continue;
            const value = values[at]!.replace(pattern, replacement ?? "");
            message.changeHeader(header, fold(unfold(value).trim(), header.length), at + 1);
          }
        };
      },
    };
  },

  /** A single header of that name, with that value. */
  set(options: Options): Rule {
    const header = options.headerName("header");
    const value = options.text("value").trim();
    if (value === "") options.fail("value", "some text");
    return {
      problem: `another ${header} header than expected`,
      fixes: true,
      check({ message }) {
        const values = message.headers.getAll(header);
        if (values.length === 1 && unfold(values[0]!).trim() === value) return null;
        return () => {
          deleteHeaders(message, header, indexesFrom(2, values.length));
          message.changeHeader(header, fold(value, header.length));
        };
      },
    };
  },

  message_id_missing: (): Rule => ({
    problem: "no Message-Id header",
    fixes: true,
    check: (session) =>
      session.message.headers.get("Message-Id") === undefined
        ? () => session.message.addHeader("Message-Id", newMessageId(session.myHostname))
        : null,
  }),

  message_id_malformed(options: Options): Rule {
    const allowsObsolete = options.flag("obsolete", true);
    return {
      problem: "a malformed Message-Id header",
      fixes: true,
      check(session) {
        const value = session.message.headers.get("Message-Id");
        if (value === undefined || isMessageId(value, allowsObsolete)) return null;
        return () => session.message.changeHeader("Message-Id", newMessageId(session.myHostname));
      },
    };
  },

  date_missing: (): Rule => ({
    problem: "no Date header",
    fixes: true,
    check: ({ message }) =>
      message.headers.get("Date") === undefined
        ? () => message.addHeader("Date", formatDate(message.receivedAt))
        : null,
  }),

  date_malformed(options: Options): Rule {
    const allowsObsolete = options.flag("obsolete", true);
    return dateRule("a malformed Date header", (value) => parseDate(value, allowsObsolete) === null);
  },

  date_past(options: Options): Rule {
    const most = (options.number("days", 0) ?? 365) * DAY_MS;
    return dateRule("a Date header too far in the past", (value, now) => now - (parseDate(value, true) ?? now) > most);
  },

  date_future(options: Options): Rule {
    const most = (options.number("hours", 0) ?? 24) * HOUR_MS;
    return dateRule(
      "a Date header too far in the future",
      (value, now) => (parseDate(value, true) ?? now) - now > most,
    );
  },

  /** More headers than one of a name that may be there once. */
  duplicates(options: Options): Rule {
    const given = options.list("headers");
    if (!given.every(isHeaderName)) options.fail("headers", "names of headers");
    const names = given.length > 0 ? given : SINGLE;
    const keepsLast = options.choice("keep", ["first", "last"], "first") === "last";
    return {
      problem: "a header twice that may be there once",
      fixes: true,
      check({ message }) {
        const many = names
          .map((name) => ({ name, count: message.headers.getAll(name).length }))
          .filter(({ count }) => count > 1);
        if (many.length === 0) return null;
        return () => {
          for (const { name, count } of many) {
            deleteHeaders(message, name, keepsLast ? indexesFrom(1, count - 1) : indexesFrom(2, count));
          }
        };
      },
    };
  },

  /** RFC 8601 5: a header from outside that has our name is forged. */
  authentication_results(options: Options): Rule {
    const ids = new NameTable<true>();
    for (const id of options.list("authserv_ids")) {
      const name = nameEntry(id);
      if (name === null) options.fail("authserv_ids", 'names such as "mx.example.com" or ".example.com"');
      ids.add(name, true);
    }
    const removesAll = options.flag("all", false);
    const trusted = new NetworkTable<true>();
    for (const network of options.list("trusted_networks")) {
      try {
        trusted.add(network, true);
      } catch (error) {
        options.fail("trusted_networks", `addresses and networks (${error instanceof Error ? error.message : ""})`);
      }
    }
    const HEADER = "authentication-results";
    return {
      problem: "a forged Authentication-Results header",
      fixes: true,
      check({ message, client, myHostname }) {
        if (trusted.find(client.address) === true) return null;
        const ours = myHostname === "" ? null : normalDomain(myHostname);
        const isForged = (value: string) => {
          const id = removesAll ? null : authservId(value);
          return id === null || id === ours || ids.find(id) === true;
        };
        const forged = message.headers.getAll(HEADER).flatMap((value, index) => (isForged(value) ? [index + 1] : []));
        return forged.length === 0 ? null : () => deleteHeaders(message, HEADER, forged);
      },
    };
  },
} satisfies Record<string, (options: Options) => Rule>;

function patternOf(options: Options): RegExp {
  const source = options.text("pattern");
  const flags = options.text("flags", "i");
  try {
    // Global in any case: all matches in a value are replaced.
    return new RegExp(source, [...new Set(`${flags}g`)].join(""));
  } catch (error) {
    return options.fail("pattern", `a regular expression (${error instanceof Error ? error.message : ""})`);
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

function indexesFrom(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index);
}

/** From the last header on, so that the indexes of headers before it stay right. */
function deleteHeaders(message: Session<"eom">["message"], name: string, indexes: readonly number[]): void {
  // The name may come from the message, and a header without a valid name cannot be changed.
  if (!isHeaderName(name)) return;
  for (const index of indexes.toReversed()) message.deleteHeader(name, index);
}
