/**
 * Handlers that throw, reject or never settle, at each phase and with each fallback: what the SMTP client gets, what the
 * message becomes, and what the log says. Nobody else notices. And the mail server's patience with slow ones: the time for
 * a reply, which only progress at the end of the message extends.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { NO_COMMAND, REJECTED, startSite as startSendmailSite } from "../sendmail/support.ts";
import { describeBehindEach, type MailServer } from "./mail-servers.ts";
import { FROM, type MailSite, MESSAGE, type SiteFilters, TO } from "./site.ts";
import { clientName, oneFilter, outcome, said, startSite as startPostfixSite } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const SOURCE = `import { defineFilter } from "pmilter";
const ways = {
  throw() { throw new Error("thrown on purpose"); },
  async reject() { await Promise.resolve(); throw new Error("rejected on purpose"); },
  never: () => new Promise(() => {}),
  text() { throw "no error"; },
  late: () => new Promise((_, reject) => setTimeout(() => reject(new Error("late on purpose")), 600)),
  timer() { setTimeout(() => { throw new Error("stray on purpose"); }, 0); },
};
function step(session) {
  const [phase, way, fallback] = session.client.hostname.split(".")[0].split("-");
  if (fallback !== session.options.name) return;
  if (phase === session.phase) return ways[way]();
  if (session.phase === "envfrom") session.message.addHeader("X-Early", "1");
  if (session.phase === "eom") session.message.addHeader("X-Later", "1");
}
export default defineFilter({
  connect: step, helo: step, envfrom: step, envrcpt: step, data: step, header: step, eoh: step, body: step, eom: step,
  unknown: step, abort: step, close: step,
});
`;
const lineOf = (text: string) => SOURCE.slice(0, SOURCE.indexOf(text)).split("\n").length;

/** Lines are there when the client has its reply, or a moment later. */

const FALLBACKS = ["tempfail", "reject", "accept", "continue"] as const;
type Fallback = (typeof FALLBACKS)[number];
const PMILTER = {
  server: { workers: 2, handler_timeout: 0.5, eom_timeout: 0.5 },
  files: { "broken.ts": SOURCE },
  config: FALLBACKS.map(
    (name) =>
      `[[filter]]\npath = "broken.ts"\nname = "${name}"\non_error = "${name}"\non_timeout = "${name}"\noptions = { name = "${name}" }\n`,
  ).join(""),
};

const STEPS = {
  connect: "mail",
  helo: "mail",
  envfrom: "mail",
  envrcpt: "rcpt",
  data: "data",
  header: "end",
  eoh: "end",
  body: "end",
  eom: "end",
} as const;
type Phase = keyof typeof STEPS;
const PHASES = Object.keys(STEPS) as Phase[];

/** Where Sendmail refuses in words of its own. */
const SENDMAIL_REFUSALS: Partial<Record<Phase, string>> = { helo: `mail: ${NO_COMMAND}`, data: `data: ${REJECTED}` };

function refusal(server: MailServer, phase: Phase): string {
  const step = STEPS[phase];
  // XCLIENT, which names the client behind Postfix, greets anew.
  if (phase === "connect") return `${server.name === "Postfix" ? "xclient" : "greeting"}: ${server.noGreeting}`;
  if (step === "end") return `${step}: ${server.rejectedAtEnd}`;
  const own = server.name === "Sendmail" ? SENDMAIL_REFUSALS[phase] : undefined;
  return own ?? `${step}: ${server.rejected(step === "rcpt" ? TO : FROM)}`;
}

/** The outcome, or for an accepted message the headers it was delivered with. */
function expected(server: MailServer, phase: Phase, fallback: Fallback): string {
  switch (fallback) {
    case "tempfail":
      return `${STEPS[phase]}: ${server.tryLater}`;
    case "reject":
      return refusal(server, phase);
    case "accept":
      return "delivered with Subject From";
    case "continue": {
      // Before envfrom there is nothing to drop.
      const kept = phase === "connect" || phase === "helo" ? ["X-Early"] : [];
      return `delivered with ${["Subject", "From", ...kept, ...(phase === "eom" ? [] : ["X-Later"])].join(" ")}`;
    }
  }
}

describeBehindEach("handlers that fail", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({ broken: PMILTER });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  async function run(as: string): Promise<string> {
    const result = await site.send({ as, message: MESSAGE });
    if (!result.accepted) return outcome(result);
    const fields = server.fieldsOf(await site.delivered(result.last));
    return `delivered with ${fields
      .slice(server.ownFields.length)
      .map((field) => field.split(":")[0])
      .join(" ")}`;
  }

  const table = (["throw", "reject", "never", "text"] as const).flatMap((way) =>
    FALLBACKS.map((fallback) => ({ way, fallback })),
  );
  test.each(table)("$way with fallback $fallback at each phase", async ({ way, fallback }) => {
    const names = PHASES.map((phase) => `${phase}-${way}-${fallback}`);
    const got = await Promise.all(names.map(run));
    expect(Object.fromEntries(PHASES.map((phase, index) => [phase, got[index]]))).toEqual(
      Object.fromEntries(PHASES.map((phase) => [phase, expected(server, phase, fallback)])),
    );

    const { log } = site.pmilter("broken");
    const at = { throw: `:${lineOf("throw()")}`, reject: `:${lineOf("async reject()")}`, never: "", text: "" }[way];
    const error = {
      throw: '"Error: thrown on purpose"',
      reject: '"Error: rejected on purpose"',
      never: '"Error: not settled after 0.5 s"',
      text: '"thrown: no error"',
    }[way];
    for (const [index, phase] of PHASES.entries()) {
      // pmilter asks for the queue id at connect, and Sendmail has one by then; Postfix has one with a recipient.
      const hasQueueId = server.name === "Sendmail" || index >= PHASES.indexOf("data");
      await log.next(
        new RegExp(
          `\\]: handler ${way === "never" ? "too slow" : "failed"}: ${hasQueueId ? "queue_id=\\w+ " : ""}client="${clientName(names[index]!)} .*` +
            ` filter=${fallback} phase=${phase} at=broken\\.ts${at} error=${error} fallback=${fallback}$`,
        ),
      );
      if (fallback === "reject" || fallback === "tempfail") {
        await log.next(
          new RegExp(
            `\\[notice\\]: ${fallback}.*="${clientName(names[index]!)} .* filter=${fallback} phase=${phase} .*fallback=true$`,
          ),
        );
      }
    }
  });

  test("each of these failures was logged once, and its verdict once", () => {
    const { log } = site.pmilter("broken");
    for (const { way, fallback } of table) {
      for (const phase of PHASES) {
        const lines = log.all.filter((line) => line.includes(`="${clientName(`${phase}-${way}-${fallback}`)} `));
        const levels = lines.map((line) => /\]\[(\w+)\]: /.exec(line)?.[1]);
        const isRefused = fallback === "reject" || fallback === "tempfail";
        // The message has two header fields.
        const errors = phase === "header" && fallback === "continue" ? ["error", "error"] : ["error"];
        expect([phase, way, ...levels]).toEqual([phase, way, ...errors, ...(isRefused ? ["notice"] : [])]);
      }
    }
  });

  test.each(FALLBACKS)(
    "at unknown, abort and close a failure is logged, and nothing else (fallback %s)",
    async (fallback) => {
      for (const way of ["throw", "reject"]) {
        const { log } = site.pmilter("broken");
        const logged = (phase: string) =>
          log.next(
            new RegExp(
              `handler failed: .*="${clientName(`${phase}-${way}-${fallback}`)} .* phase=${phase} at=broken\\.ts:\\d+ error=".* on purpose"$`,
            ),
          );
        for (const phase of ["unknown", "abort", "close"]) {
          await using client = await site.connect(`${phase}-${way}-${fallback}`);
          expect(said(await client.command("FROBNICATE"))).toBe(server.unrecognized);
          await client.mail(FROM);
          await client.rset();
          await client.mail(FROM);
          await client.rcpt(TO);
          expect((await client.data(MESSAGE)).code).toBe(250);
          await client.quit();
          await logged(phase);
        }
      }
    },
  );

  test("after a handler that never settles the same SMTP session goes on with the next message", async () => {
    await using client = await site.connect("envrcpt-never-tempfail");
    for (let message = 0; message < 2; message++) {
      expect((await client.mail(FROM)).code).toBe(250);
      expect((await client.rcpt(TO)).code).toBe(451);
      expect((await client.rset()).code).toBe(250);
    }
    expect((await client.quit()).code).toBe(221);
  });

  test("what a handler throws after its verdict is logged, with its place, and changes nothing", async () => {
    const { log } = site.pmilter("broken");
    expect(await run("envfrom-late-accept")).toBe("delivered with Subject From");
    const late = await log.next(/failed after its verdict: .*late on purpose/);
    expect(late).toContain(`phase=envfrom at=broken.ts:${lineOf("late:")} error="Error: late on purpose"`);
    expect(await run("data-timer-reject")).toBe("delivered with Subject From X-Early X-Later");
    expect(await log.next(/stray on purpose/)).toContain(`broken.ts:${lineOf("timer()")}`);
    expect(await run("none-none-none")).toBe("delivered with Subject From");
    expect(log.text).not.toContain("[crit]");
  });

  test("what a handler throws after its verdict is logged with the message it was about", async () => {
    const { log } = site.pmilter("broken");
    const from = log.all.length;
    await using client = await site.connect("envfrom-late-continue");
    expect((await client.mail("first@example.test")).code).toBe(250);
    await client.rset();
    // The handler of the first message rejects while that of the second is awaited.
    expect((await client.mail("second@example.test")).code).toBe(250);
    expect(await log.next(/failed after its verdict/, { from })).toMatch(
      /client="envfrom-late-continue\.client\.test .* from=<first@example\.test> ms=\d+ version=\w+ filter=continue phase=envfrom /,
    );
  });
});

/** Takes its time at the phase that the client's name says. */
const SLOW = `
const wait = (session) => session.client.hostname.startsWith(session.phase) ? Bun.sleep(7000) : undefined;
export default {
  envfrom: wait,
  async eom(session) { await wait(session); session.message.addHeader("X-Slow", "1"); },
};
`;

/** Takes its time for each header, while the mail server sends on: seven seconds for those of MESSAGE and one more. */
const LAGGING = `export default { async header() { await Bun.sleep(2500); }, body() {} };`;

/** Services that wait for a reply 5 seconds, and for the stubborn one 2. */
const IMPATIENT: Readonly<Record<MailServer["name"], (filters: SiteFilters) => Promise<MailSite>>> = {
  Postfix: (filters) =>
    startPostfixSite({
      filters,
      postfix: ({ slow, stubborn, lagging }) => ({
        services: [
          { name: "queueing", milters: `{ ${lagging!}, command_timeout=5s, content_timeout=5s }` },
          { name: "impatient", milters: `{ ${slow!}, command_timeout=5s, content_timeout=5s }` },
          { name: "stubborn-tempfail", milters: `{ ${stubborn!}, command_timeout=2s }` },
          { name: "stubborn-accept", milters: `{ ${stubborn!}, command_timeout=2s, default_action=accept }` },
        ],
      }),
    }),
  Sendmail: (filters) =>
    startSendmailSite({
      filters,
      sendmail: ({ slow, stubborn, lagging }) => ({
        services: [
          { name: "queueing", milters: { address: lagging!, failure: "T", timeouts: { R: 5 } } },
          { name: "impatient", milters: { address: slow!, failure: "T", timeouts: { R: 5 } } },
          { name: "stubborn-tempfail", milters: { address: stubborn!, failure: "T", timeouts: { R: 2 } } },
          { name: "stubborn-accept", milters: { address: stubborn!, timeouts: { R: 2 } } },
        ],
      }),
    }),
};

describeBehindEach("handlers that take longer than the mail server waits for a reply", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    const traced = { debug: 1, log_level: "debug", on_timeout: "reject" };
    site = await IMPATIENT[server.name]({
      slow: oneFilter(SLOW, { ...traced, handler_timeout: 1 }),
      stubborn: oneFilter(SLOW, { handler_timeout: 60 }),
      lagging: oneFilter(LAGGING, { ...traced, handler_timeout: 4 }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("at eom: they send progress, and the message passes", async () => {
    const { log } = site.pmilter("slow");
    const from = log.all.length;
    const delivered = await site.deliver({ service: "impatient", as: "eom" });
    expect(server.fieldsOf(delivered)).toEqual([
      ...server.ownFields,
      "Subject: hello",
      "From: <alice@example.test>",
      "X-Slow: 1",
    ]);
    expect(log.all.slice(from).filter((line) => / < PROGRESS 0 bytes/.test(line))).toHaveLength(2);
  });

  test("content handlers still queued at the end of the message send progress, too; not where that end is unread", async () => {
    const { log } = site.pmilter("lagging");
    const progress = () => log.all.filter((line) => / < PROGRESS 0 bytes/.test(line)).length;
    const message = `X-Third: 1\r\n${MESSAGE}`;
    expect((await site.send({ service: "queueing", message })).accepted).toBe(true);
    expect(progress()).toBe(2);
    // So much lies before the end that pmilter has stopped reading before it (some 100 kB may be read at once): nobody can
    // tell whether the mail server waits already.
    const long = `${message}${`${"x".repeat(70)}\r\n`.repeat(30_000)}`;
    expect(outcome(await site.send({ service: "queueing", message: long }))).toBe(`end: ${server.rejectedAtEnd}`);
    await log.next(/handler too slow: .*phase=header .*fallback=reject/);
    expect(progress()).toBe(2);
  });

  test("before eom nothing extends it: the fallback comes at handler_timeout, before the mail server gives up", async () => {
    const { log } = site.pmilter("slow");
    const from = log.all.length;
    await using client = await site.connect("envfrom", { service: "impatient" });
    expect(said(await client.mail(FROM))).toBe(server.rejected(FROM));
    // The filter is still asked.
    expect(said(await client.mail(""))).toBe(server.rejected(""));
    await client.quit();
    const lines = log.all.slice(from);
    expect(lines.filter((line) => / < PROGRESS /.test(line))).toEqual([]);
    expect(lines.filter((line) => line.includes('error="Error: not settled after 1 s"'))).toHaveLength(2);
  });

  test("a longer handler_timeout: the mail server drops the filter, and does what it is told to (tempfail)", async () => {
    const refused = await site.send({ service: "stubborn-tempfail", as: "envfrom" });
    expect(outcome(refused)).toBe(`mail: ${server.tryLater}`);
  });

  test("a longer handler_timeout: the mail server drops the filter, and does what it is told to (accept)", async () => {
    const delivered = await site.deliver({ service: "stubborn-accept", as: "envfrom" });
    expect(server.fieldsOf(delivered)).not.toContain("X-Slow: 1");
  });
});
