/**
 * Content verdicts given at the end of the message and at once: the clients of a real mail server see no difference. A
 * chain of filters does what the sender's address says, and neither what the SMTP client is told nor what is delivered may
 * depend on `server.defer_content`. A case is what it does: `first.header2.reject+second.body.discard` means that the
 * filter `first` rejects at the second header, and `second` discards at the first chunk of the body.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { statusOf } from "../recovery/support.ts";
import type { PmilterOptions } from "../support/pmilter.ts";
import type { Reply } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach, type MailServer } from "./mail-servers.ts";
import { type MailSite, TO } from "./site.ts";
import { parts, said } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const SOURCE = `import { accept, defineFilter, discard, reject, skip, tempfail } from "pmilter";
const ways = {
  accept: () => accept(),
  discard: () => discard(),
  skip: () => skip(),
  reject: () => reject(),
  tempfail: () => tempfail(),
  text: () => reject("554 5.7.7 Not you, 100%\\nnot at all"),
  later: () => tempfail("450 4.2.0 Not now\\nlater"),
  close: () => tempfail("421 4.3.2 Not here"),
  promise: () => Bun.sleep(1).then(() => reject("550 5.7.2 Promised")),
  throw() { throw new Error("on purpose"); },
  never: () => new Promise(() => {}),
  mark: ({ message, options, phase }) => message.addHeader("X-" + options.name + "-" + phase, "1"),
  strip: ({ message }) => message.deleteHeader("X-Strip"),
  from: ({ message }) => message.changeFrom("changed@example.test"),
  to: ({ message }) => message.addRecipient("added@example.org"),
  replace: ({ message }) => message.replaceBody("replaced\\n"),
};
function step(session) {
  const { message, options, phase, state } = session;
  if (phase === "envfrom") Object.assign(state, { steps: message.sender.address.split("@")[0].split("+"), calls: {} });
  const call = (state.calls[phase] = (state.calls[phase] ?? 0) + 1);
  let verdict;
  for (const each of state.steps) {
    const [filter, at, way] = each.split(".");
    if ((filter !== options.name && filter !== "all") || (at !== phase + call && at + "1" !== phase + call)) continue;
    verdict = ways[way](session);
  }
  return verdict;
}
export default defineFilter({ envfrom: step, header: step, eoh: step, body: step, eom: step });
`;

const FALLBACKS = ["tempfail", "reject", "accept", "continue"] as const;
/** In the order of the chain; those that are named so have that fallback. */
const FILTERS = ["first", ...FALLBACKS, "second"];

/** A server with the chain, its packets traced. */
function contentFilters(defersContent: boolean): PmilterOptions {
  const config = FILTERS.map((name) => {
    const fallback = FALLBACKS.some((each) => each === name) ? name : "tempfail";
    return `[[filter]]\npath = "step.ts"\nname = "${name}"\non_error = "${fallback}"\non_timeout = "${fallback}"\noptions = { name = "${name}" }\n`;
  });
  return {
    server: { workers: 1, defer_content: defersContent, handler_timeout: 0.5, debug: 1, log_level: "debug" },
    config: config.join(""),
    files: { "step.ts": SOURCE },
  };
}

interface ContentCase {
  readonly steps: string;
  /** What becomes of the message, as {@link ending} tells it. */
  readonly ending: string;
}

const PASSES = "delivered with From Subject X-Strip";
const REFUSED = "refused by 55x";
const TRY_LATER = "refused by 451";
const GONE = "taken and not delivered";

const VERDICTS: Readonly<Record<string, string>> = {
  accept: PASSES,
  reject: REFUSED,
  tempfail: TRY_LATER,
  discard: GONE,
  text: "refused: 554 5.7.7 Not you, 100% | 5.7.7 not at all",
  later: "refused: 450 4.2.0 Not now | 4.2.0 later",
  close: "refused: 421 4.3.2 Not here",
  promise: "refused: 550 5.7.2 Promised",
};
const ENDS = { tempfail: TRY_LATER, reject: REFUSED, accept: PASSES, continue: PASSES } as const;

type Row = [steps: string, ending: string];
const PHASES = ["header2", "eoh", "body"];
const DECIDED = PHASES.flatMap((phase) =>
  Object.entries(VERDICTS).map(([way, end]): Row => [`first.${phase}.${way}`, end]),
);
// Nobody has anything left to do: the wire's ACCEPT.
const ACCEPTED = PHASES.map((phase): Row => [`all.${phase}.accept`, PASSES]);
const FAILED = PHASES.flatMap((phase) =>
  ["throw", "never"].flatMap((way) =>
    FALLBACKS.map((name): Row => [`${name}.envfrom.mark+${name}.${phase}.${way}`, ENDS[name]]),
  ),
);

const TOGETHER: readonly Row[] = [
  // The first decides, in the chain and in time, and the other would.
  ["first.header.reject+second.header.tempfail", REFUSED],
  ["first.header.tempfail+second.header.reject", TRY_LATER],
  ["first.body.reject+second.header2.tempfail", TRY_LATER],
  ["first.eoh.discard+second.body.reject", GONE],
  ["first.eoh.reject+second.eom.tempfail", REFUSED],
  ["first.header3.text+second.eoh.accept", VERDICTS["text"]!],
  // What decides nothing leaves it to the other.
  ["first.header.accept+second.body.reject", REFUSED],
  ["continue.header.throw+second.header.later", VERDICTS["later"]!],
  ["accept.eoh.never+second.body.discard", GONE],
  ["first.body.skip+second.body2.text", VERDICTS["text"]!],
  // After skip() a filter gets no chunk; where all of them say so, the mail server may be told.
  ["first.body.skip", PASSES],
  ["first.body.skip+first.body2.reject", PASSES],
  ["all.body.skip+all.body2.reject", PASSES],
  ["all.body.skip+first.eom.tempfail", TRY_LATER],
  ["first.body2.reject", REFUSED],
];

const CHANGED: readonly Row[] = [
  ["first.envfrom.mark+first.header.mark+first.eoh.accept", `${PASSES} X-first-envfrom X-first-header`],
  ["first.header.mark+second.eoh.strip+all.body.accept", "delivered with From Subject X-first-header"],
  ["first.header.from+first.eoh.to+first.body.replace+all.body2.accept", `${PASSES}, changed and added, replaced`],
  ["first.header.mark+second.body.reject", REFUSED],
  ["first.header.mark+first.body.discard", GONE],
  ["first.header.from+first.eoh.to+second.body.text", VERDICTS["text"]!],
  ["first.header.mark+accept.header.mark+accept.body.throw", `${PASSES} X-first-header`],
  ["first.header.mark+continue.header.mark+continue.eoh.never", `${PASSES} X-first-header`],
];

const CASES: readonly ContentCase[] = [DECIDED, ACCEPTED, FAILED, TOGETHER, CHANGED]
  .flat()
  .map(([steps, ending]) => ({ steps, ending }));

interface Outcome {
  /** The reply to the end of the message, without queue ids. */
  readonly reply: string;
  /** What came out, a word for what the mail server itself put in. */
  readonly delivered: readonly Delivery[];
}

interface Delivery {
  readonly from: string;
  readonly to: readonly string[];
  readonly fields: readonly string[];
  readonly body: string;
}

type Service = "deferred" | "immediate";

/** Sessions at once: a handler that never settles holds up its own alone. */
const LANES = 6;
const HEADERS = "From: <alice@example.test>\r\nSubject: one\r\nX-Strip: 1\r\n\r\n";
/** Three chunks, whatever the mail server makes of 64 KB. */
const LONG_BODY = `${"x".repeat(70)}\r\n`.repeat(2000);

/** Plays all cases to a service, many in one SMTP session: what each of them came to. */
async function playCases(server: MailServer, site: MailSite, service: Service): Promise<Map<string, Outcome>> {
  const replies = new Map<string, Reply>();
  const lane = async (first: number): Promise<void> => {
    let client = await site.connect(undefined, { service });
    for (let at = first; at < CASES.length; at += LANES) {
      const { steps } = CASES[at]!;
      expectTaken(steps, await client.mail(`${steps}@example.test`));
      expectTaken(steps, await client.rcpt(TO));
      const reply = await client.data(`${HEADERS}${/body\d/.test(steps) ? LONG_BODY : "body\r\n"}`);
      replies.set(steps, reply);
      if (reply.code !== 421) continue;
      await client.close();
      client = await site.connect(undefined, { service });
    }
    await client.quit();
  };
  await Promise.all(Array.from({ length: LANES }, (_, first) => lane(first)));
  await waitFor(async () => (await site.queueIds()).length === 0, { what: "an empty queue" });
  return new Map([...replies].map(([steps, reply]) => [steps, outcomeOf(server, site, reply)]));
}

function expectTaken(steps: string, reply: Reply): void {
  if (reply.code !== 250) throw new Error(`${steps}: expected 250, got ${said(reply)}`);
}

function outcomeOf(server: MailServer, site: MailSite, reply: Reply): Outcome {
  if (reply.code !== 250) return { reply: said(reply), delivered: [] };
  const id = server.queueIdOf(reply);
  const delivered = site.deliveriesOf(id).map((message) => ({
    from: message.from,
    to: message.to.map(({ address }) => address).toSorted(),
    fields: server.fieldsOf(message),
    body: parts(message.text).body,
  }));
  return { reply: said(reply).replace(id, "ID"), delivered };
}

/** The outcome in the words of {@link ContentCase.ending}. */
function ending({ reply, delivered }: Outcome): string {
  if (!reply.startsWith("250 ")) {
    if (/^(?:450|421|554 5\.7\.7|550 5\.7\.2) /.test(reply)) return `refused: ${reply}`;
    return `refused by ${reply.slice(0, 3).replace(/^55[04]$/, "55x")}`;
  }
  const [first, ...more] = delivered;
  if (first === undefined) return GONE;
  const names = first.fields
    .filter((field) => !/^[A-Z-]+$/.test(field))
    .map((field) => field.split(":")[0])
    .toSorted();
  const envelope = [
    first.from.startsWith("changed@") ? "changed" : "",
    [first, ...more].some(({ to }) => to.includes("added@example.org")) ? "added" : "",
  ].filter((word) => word !== "");
  return [
    `delivered with ${names.join(" ")}`,
    ...(envelope.length > 0 ? [envelope.join(" and ")] : []),
    ...(first.body.startsWith("replaced") ? ["replaced"] : []),
  ].join(", ");
}

describeBehindEach("content verdicts, deferred and at once", (server) => {
  let site: MailSite;
  let deferred: Map<string, Outcome>;
  let atOnce: Map<string, Outcome>;
  beforeAll(async () => {
    site = await server.startSite({ deferred: contentFilters(true), immediate: contentFilters(false) });
    [deferred, atOnce] = await Promise.all([playCases(server, site, "deferred"), playCases(server, site, "immediate")]);
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each([...CASES])("$steps: $ending", ({ steps, ending: expected }) => {
    expect(deferred.get(steps)).toEqual(atOnce.get(steps)!);
    expect(ending(deferred.get(steps)!)).toBe(expected);
  });

  test("no reply to content with deferral, one to each without", () => {
    const answers = (service: Service) =>
      site.pmilter(service).log.all.filter((line) => / < CONTINUE 0 bytes/.test(line)).length;
    // Two at the envelope for each message.
    expect(answers("immediate")).toBeGreaterThan(answers("deferred") + CASES.length);
  });

  test("both have counted the same", async () => {
    const counted = async (service: Service) => {
      const { counters } = await statusOf(site.pmilter(service));
      const { messages, accepted, rejected, tempfailed, discarded, fallbacks, errors, timeouts, late } = counters;
      return { messages, accepted, rejected, tempfailed, discarded, fallbacks, errors, timeouts, late };
    };
    const counts = await counted("deferred");
    expect(counts).toEqual(await counted("immediate"));
    expect(counts).toMatchObject({ messages: CASES.length, late: 0 });
  });
});
