/** The options of dns-lists.ts, and the sources that they make. */
import {
  array,
  boolean,
  check,
  custom,
  duration,
  expected,
  type InferOutput,
  maxLength,
  picklist,
  pipe,
  record,
  table,
} from "pmilter/options";
import { nameEntry, normalDomain } from "../access-names.ts";
import {
  amount,
  count,
  domains,
  headerName,
  line,
  made,
  option,
  refusalOf,
  required,
  someText,
  unset,
} from "../options.ts";
import { OWN_NETWORKS } from "../origin.ts";
import { type CodeTest, codeTest } from "./codes.ts";
import { type DnsList, type Source, SUBJECTS } from "./sources.ts";
import { unknownPlaceholder } from "../words.ts";

/** Of a list's `text`. */
const IN_REASON = ["what", "list", "text", "client"];
/** Of the replies. */
const IN_REPLY = ["reason", "client", "sum"];

const REASON = "{what} is listed by {list}: {text}";

/** With all questions at once, a message asks each of them. */
const MAX_LISTS = 50;

const CODE = 'a code such as "127.0.0.2", "127.0.0.4/30" or "&8"';

function code() {
  return pipe(
    line(),
    check((text) => codeTest(text) !== null, expected(CODE)),
  );
}

/** Points that change something. */
function points() {
  return custom<number>(
    (value) => typeof value === "number" && Number.isFinite(value) && value !== 0,
    expected("a number that is not 0"),
  );
}

function isZone(name: string): boolean {
  return nameEntry(name) !== null && !name.startsWith(".") && name.includes(".") && name.length <= 180;
}

function words(known: readonly string[]) {
  const names = known.map((name) => `{${name}}`).join(", ");
  return pipe(
    line(),
    check(
      (text) => unknownPlaceholder(text, known) === null,
      expected(`text with no other placeholders than ${names}`),
    ),
  );
}

/** A reply that is one whatever stands for its placeholders. */
function reply(kind: "reject" | "tempfail") {
  return pipe(
    words(IN_REPLY),
    check(
      (text) => typeof refusalOf(kind, text.replaceAll(/\{\w+\}/g, "x")) !== "string",
      expected(`an SMTP reply such as "${kind === "reject" ? "550 5.7.1" : "451 4.7.1"} {reason}"`),
    ),
  );
}

const list = made(
  table({
    zone: required(
      pipe(line(), check(isZone, expected('the name of a list such as "zen.spamhaus.org"'))),
      "the name of the list in the DNS",
    ),
    name: unset(
      someText(),
      "the zone",
      "its name in replies, the header and the log: give one if the zone has a key of yours in it",
    ),
    of: option(
      picklist(SUBJECTS),
      "client",
      "what it is asked about: `client`, the client's address; `name`, the client's confirmed name; `helo`; `sender`, the domain of the envelope's sender; `from`, the domains in From; `links`, the hosts of links",
    ),
    score: unset(points(), "`1`", "what a listing adds to the sum; below 0 for a list of good ones"),
    codes: unset(array(code()), "all", "the answers that count: `127.0.0.2`, `127.0.0.4/30`, `&8` (that bit is set)"),
    scores: unset(
      record(code(), points()),
      "none",
      'in place of `score` and `codes`: what each answer adds, as in `{ "127.0.0.2" = 5, "&8" = 2 }`',
    ),
    allow: option(boolean(), false, "a listing lets the message pass, whatever the sum is"),
    addresses: option(
      boolean(),
      true,
      "whether it is asked about links to addresses, too; false for lists that have only names",
    ),
    text: option(words(IN_REASON), REASON, "the reason in replies"),
  }),
  ({ addresses, allow, codes, name, of, score, scores, text, zone }, fail): DnsList => {
    if (scores !== undefined && score !== undefined) fail("score", 'no "score" beside "scores"');
    if (scores !== undefined && codes !== undefined) fail("codes", 'no "codes" beside "scores"');
    if (scores !== undefined && Object.keys(scores).length === 0) fail("scores", "at least one code");
    if (allow && (score !== undefined || scores !== undefined)) {
      fail(score === undefined ? "scores" : "score", "none beside allow = true");
    }
    const rules = rulesOf(scores, codes, allow ? 0 : (score ?? 1));
    return {
      name: name ?? normalDomain(zone),
      zone: normalDomain(zone),
      of,
      allow,
      addresses,
      text,
      lowest: rules.reduce((sum, rule) => sum + Math.min(0, rule.score), 0),
      highest: rules.reduce((sum, rule) => sum + Math.max(0, rule.score), 0),
      score: (given) => scoreOf(rules, given),
    };
  },
);

interface Rule {
  readonly tests: readonly CodeTest[];
  readonly score: number;
}

function rulesOf(
  scores: Readonly<Record<string, number>> | undefined,
  codes: readonly string[] | undefined,
  score: number,
): readonly Rule[] {
  if (scores !== undefined) {
    return Object.entries(scores).map(([pattern, each]) => ({ tests: [codeTest(pattern)!], score: each }));
  }
  return [{ tests: codes === undefined ? [() => true] : codes.map((pattern) => codeTest(pattern)!), score }];
}

/** Each rule counts once, however many codes it has. */
function scoreOf(rules: readonly Rule[], codes: readonly string[]): number | null {
  const hit = rules.filter(({ tests }) => codes.some((each) => tests.some((test) => test(each))));
  return hit.length === 0 ? null : hit.reduce((sum, { score }) => sum + score, 0);
}

const REJECT_TEXT = "550 5.7.1 Service unavailable; {reason}";
const TEMPFAIL_TEXT = "451 4.7.1 Service unavailable for now; {reason}";

export const options = made(
  table({
    lists: option(
      pipe(array(list), maxLength(MAX_LISTS, expected(`at most ${MAX_LISTS} lists`))),
      [],
      "the lists, all asked at once",
    ),
    reject_at: option(
      pipe(
        amount(),
        check((at) => at > 0, expected("a number above 0")),
      ),
      1,
      "the sum from which on a message is refused",
    ),
    action: option(
      picklist(["reject", "tempfail", "mark"]),
      "reject",
      "what happens at that sum; `mark`: nothing, the header and the log say it",
    ),
    at: option(
      picklist(["recipient", "end"]),
      "recipient",
      "when a message is refused: `recipient`, as soon as it is certain, at RCPT if the lists on client, HELO and sender suffice; `end`, at the end of the message",
    ),
    early: option(
      boolean(),
      false,
      "ask about the client when it connects and not at MAIL: quicker, but also asks about clients that then log in",
    ),
    timeout: option(duration(), "4s", "how long a list may take; then it counts as failed"),
    unconfirmed_score: option(
      custom<number>((value) => Number.isFinite(value), expected("a number")),
      0,
      "what a client adds whose address has no name that leads back to it",
    ),
    allow_names: option(
      domains(),
      [],
      "clients whose confirmed name is one of these pass: `mail.example.net`, `.example.net`",
    ),
    own_networks: OWN_NETWORKS,
    except_domains: option(
      domains(),
      [],
      "domains that no list is asked about: `example.com`, `.example.com` for those below it",
    ),
    max_links: option(count(1), 20, "hosts of links that are asked about in one message"),
    header: unset(headerName(), "none", "a header that has the sum and the lists"),
    reject_text: option(reply("reject"), REJECT_TEXT, "the reply of `reject`"),
    tempfail_text: option(
      reply("tempfail"),
      TEMPFAIL_TEXT,
      "the reply of `tempfail`, and the one where a list of good ones has failed that could have let the message pass",
    ),
  }),
  ({ allow_names, lists, unconfirmed_score, ...rest }, fail) => {
    if (lists.length === 0 && unconfirmed_score === 0 && allow_names.isEmpty) {
      fail("lists", "at least one list, unconfirmed_score or allow_names");
    }
    const rules = {
      unconfirmed: unconfirmed_score === 0 ? null : nameRule(unconfirmed_score, "{what} has no confirmed name"),
      allowed: allow_names.isEmpty ? null : { ...nameRule(0, ""), allow: true },
      isAllowed: (name: string) => allow_names.has(normalDomain(name)),
    };
    const sources: Source[] = [...lists, ...[rules.unconfirmed, rules.allowed].filter((rule) => rule !== null)];
    return { ...rest, lists, rules, sources };
  },
);

function nameRule(score: number, text: string): Source {
  return { name: "reverse DNS", zone: "", of: "client", allow: false, lowest: score, highest: score, text };
}

export type Options = InferOutput<typeof options>;
