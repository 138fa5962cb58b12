/**
 * Handlers that throw, reject or never settle, at each phase and with each fallback: what the SMTP client gets, what the
 * message becomes, and what the log says. Nobody else notices.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { connectSmtp } from "../support/smtp-client.ts";
import { clientName, fieldsOf, FROM, oneFilter, outcome, said, type Site, startSite, TO } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(30_000);

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

const MESSAGE = "Subject: one\r\n\r\nbody\r\n";
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
const PHASES = Object.keys(STEPS) as (keyof typeof STEPS)[];

/** The outcome, or for an accepted message the headers it was delivered with. */
function expected(phase: keyof typeof STEPS, fallback: Fallback): string {
  switch (fallback) {
    case "tempfail":
      return `${STEPS[phase]}: 451 4.7.1 Service unavailable - try again later`;
    case "reject":
      return phase === "connect"
        ? "xclient: 554 mx.example.test ESMTP not accepting connections"
        : `${STEPS[phase]}: 550 5.7.1 Command rejected`;
    case "accept":
      return "delivered with Subject";
    case "continue": {
      // Before envfrom there is nothing to drop.
      const kept = phase === "connect" || phase === "helo" ? ["X-Early"] : [];
      return `delivered with ${["Subject", ...kept, ...(phase === "eom" ? [] : ["X-Later"])].join(" ")}`;
    }
  }
}

describeWith(postfixTool, "handlers that fail", () => {
  let site: Site;
  beforeAll(async () => {
    const slow = `export default { async eom({ message }) { await Bun.sleep(4400); message.addHeader("X-Slow", "1"); } };`;
    site = await startSite({
      filters: { broken: PMILTER, slow: oneFilter(slow, { debug: 1, log_level: "debug" }) },
      postfix: ({ slow: address }) => ({
        services: [{ name: "impatient", milters: `{ ${address!}, content_timeout=4s }` }],
      }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  async function run(as: string): Promise<string> {
    const result = await site.send({ as, message: MESSAGE });
    if (!result.accepted) return outcome(result);
    const fields = fieldsOf(await site.delivered(result.last));
    return `delivered with ${fields
      .slice(1)
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
      Object.fromEntries(PHASES.map((phase) => [phase, expected(phase, fallback)])),
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
      const queueId = index < PHASES.indexOf("data") ? "" : "queue_id=\\w+ ";
      await log.next(
        new RegExp(
          `\\]: handler ${way === "never" ? "too slow" : "failed"}: ${queueId}client="${clientName(names[index]!)} .*` +
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
        expect([phase, way, ...levels]).toEqual([phase, way, "error", ...(isRefused ? ["notice"] : [])]);
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
          await using client = await connectSmtp({ port: site.port() });
          await client.ehlo("a.test");
          await client.xclient({ name: clientName(`${phase}-${way}-${fallback}`) });
          await client.ehlo("a.test");
          expect(said(await client.command("FROBNICATE"))).toBe("500 5.5.2 Error: command not recognized");
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
    await using client = await connectSmtp({ port: site.port() });
    await client.ehlo("a.test");
    await client.xclient({ name: clientName("envrcpt-never-tempfail") });
    await client.ehlo("a.test");
    for (let message = 0; message < 2; message++) {
      expect((await client.mail(FROM)).code).toBe(250);
      expect((await client.rcpt(TO)).code).toBe(451);
      expect((await client.rset()).code).toBe(250);
    }
    expect((await client.quit()).code).toBe(221);
  });

  test("what a handler throws after its verdict is logged, with its place, and changes nothing", async () => {
    const { log } = site.pmilter("broken");
    expect(await run("envfrom-late-accept")).toBe("delivered with Subject");
    const late = await log.next(/failed after its verdict: .*late on purpose/);
    expect(late).toContain(`phase=envfrom at=broken.ts:${lineOf("late:")} error="Error: late on purpose"`);
    expect(await run("data-timer-reject")).toBe("delivered with Subject X-Early X-Later");
    expect(await log.next(/stray on purpose/)).toContain(`broken.ts:${lineOf("timer()")}`);
    expect(await run("none-none-none")).toBe("delivered with Subject");
    expect(log.text).not.toContain("[crit]");
  });

  test("what a handler throws after its verdict is logged with the message it was about", async () => {
    const { log } = site.pmilter("broken");
    const from = log.all.length;
    await using client = await connectSmtp({ port: site.port() });
    await client.ehlo("a.test");
    await client.xclient({ name: clientName("envfrom-late-continue") });
    await client.ehlo("a.test");
    expect((await client.mail("first@example.test")).code).toBe(250);
    await client.rset();
    // The handler of the first message rejects while that of the second is awaited.
    expect((await client.mail("second@example.test")).code).toBe(250);
    expect(await log.next(/failed after its verdict/, { from })).toMatch(
      /client="envfrom-late-continue\.client\.test .* from=<first@example\.test> filter=continue phase=envfrom /,
    );
  });

  test("an eom handler that takes longer than Postfix waits for a reply sends progress, and passes", async () => {
    const { log } = site.pmilter("slow");
    const delivered = await site.deliver({ service: "impatient", message: MESSAGE });
    expect(fieldsOf(delivered)).toEqual(["RECEIVED", "Subject: one", "X-Slow: 1"]);
    expect(log.all.filter((line) => / < PROGRESS 0 bytes/.test(line))).toHaveLength(1);
  });
});
