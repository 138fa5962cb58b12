/**
 * pmilter stops and starts while Sendmail runs: what mail gets meanwhile, and that open sessions are let finish. Without
 * an F= Sendmail goes on without the filter.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { FROM, MESSAGE, outcome, TO } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { type Sendmail, sendmailTool, startSendmail } from "../support/sendmail.ts";
import { connectSmtp, sendMail, type SmtpClient } from "../support/smtp-client.ts";
import { type SmtpSink, startSmtpSink } from "../support/smtp-sink.ts";
import { freePort, type TempDir, tempDir } from "../support/temp.ts";
import { fieldsOf, NO_GREETING, OWN_FIELDS, TRY_LATER } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(30_000);

const FILTER = `
import { defineFilter } from "pmilter";
export default defineFilter({
  async eom(session) {
    if (session.message.sender.address.startsWith("slow")) { console.log("slow"); await Bun.sleep(300); }
    session.message.addHeader("X-Pass", String(session.options.run));
  },
  stop() { console.log("filter stopped"); },
});
`;

const ACCEPTED = "end: 250 2.0.0 ID Message accepted for delivery";

describeWith(sendmailTool, "Sendmail: stop and start", () => {
  let dir: TempDir;
  let sink: SmtpSink;
  let sendmail: Sendmail;
  let listen: Record<"unix" | "inet", string>;
  let stack: AsyncDisposableStack;

  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    dir = stack.use(await tempDir("lifecycle"));
    sink = stack.use(await startSmtpSink());
    listen = { unix: `unix:${join(dir.path, "p.sock")}`, inet: `inet:127.0.0.1:${await freePort()}` };
    sendmail = stack.use(
      await startSendmail({
        sinkPort: sink.port,
        services: Object.entries(listen).flatMap(([name, address]) => [
          { name: `${name}-on`, milters: address },
          { name: `${name}-T`, milters: { address, failure: "T" as const } },
          { name: `${name}-R`, milters: { address, failure: "R" as const } },
          { name: `${name}-4`, milters: { address, failure: "4" as const } },
        ]),
      }),
    );
  });
  afterAll(async () => await stack?.disposeAsync());

  async function start(kind: "unix" | "inet", run: number, server: Record<string, unknown> = {}): Promise<Pmilter> {
    return await startPmilter({
      listen: listen[kind],
      server: { workers: 2, ...server },
      config: `[[filter]]\npath = "filter.ts"\noptions = { run = ${run} }\n`,
      files: { "filter.ts": FILTER },
    });
  }

  async function send(service: string): Promise<string> {
    const result = await sendMail({ port: sendmail.port(service), from: FROM, to: TO, message: MESSAGE });
    return outcome(result).replace(/2\.0\.0 \w+ Message/, "2.0.0 ID Message");
  }

  /** Sends through a service, and gives the headers of what was delivered. */
  async function passed(service: string): Promise<string[]> {
    expect(await send(service)).toBe(ACCEPTED);
    return fieldsOf(await sink.next()).slice(OWN_FIELDS.length + 2);
  }

  /** A session with a message open, as far as RCPT. */
  async function openMessage(service: string, from: string = FROM): Promise<SmtpClient> {
    const client = await connectSmtp({ port: sendmail.port(service) });
    await client.ehlo("a.test");
    await client.mail(from);
    expect((await client.rcpt(TO)).code).toBe(250);
    return client;
  }

  test.each(["unix", "inet"] as const)(
    "without pmilter Sendmail does what it is told to, and mail flows again with it (%s)",
    async (kind) => {
      for (const run of [1, 2]) {
        expect(await passed(`${kind}-on`)).toEqual([]);
        expect(await send(`${kind}-T`)).toBe(`mail: ${TRY_LATER}`);
        expect(await send(`${kind}-R`)).toBe(`greeting: ${NO_GREETING}`);
        expect(await send(`${kind}-4`)).toStartWith("greeting: 421 ");
        await using pmilter = await start(kind, run);
        for (const failure of ["on", "T", "R", "4"]) {
          expect(await passed(`${kind}-${failure}`)).toEqual([`X-Pass: ${run}`]);
        }
        expect(await pmilter.stop()).toBe(0);
      }
    },
  );

  test("SIGTERM with a message open: that SMTP session finishes, with its next message; new ones do not begin", async () => {
    await using pmilter = await start("unix", 3);
    await using client = await openMessage("unix-T");
    pmilter.process.kill("SIGTERM");
    await pmilter.log.next(/SIGTERM: stopping, 1 connections open/);
    expect(await send("unix-T")).toBe(`mail: ${TRY_LATER}`);
    expect((await client.data(MESSAGE)).code).toBe(250);
    expect(fieldsOf(await sink.next())).toContain("X-Pass: 3");
    await client.mail(FROM);
    await client.rcpt(TO);
    expect((await client.data(MESSAGE)).code).toBe(250);
    expect(fieldsOf(await sink.next())).toContain("X-Pass: 3");
    const quit = performance.now();
    await client.quit();
    expect(await pmilter.process.exited).toBe(0);
    // Far below stop_timeout, 20 s: its end is the session's.
    expect(performance.now() - quit).toBeLessThan(3000);
    expect(pmilter.prints.all.filter((line) => line === "filter stopped")).toHaveLength(2);
    expect(pmilter.log.text).not.toMatch(/\[(error|crit|warn)\]: (?!running as root|server\.max_connections)/);
  });

  test("SIGTERM while an eom handler works: its changes are made", async () => {
    await using pmilter = await start("unix", 4);
    await using client = await openMessage("unix-T", "slow@example.test");
    const reply = client.data(MESSAGE);
    await pmilter.prints.next(/^slow$/);
    pmilter.process.kill("SIGTERM");
    expect((await reply).code).toBe(250);
    expect(fieldsOf(await sink.next())).toContain("X-Pass: 4");
    await client.quit();
    expect(await pmilter.process.exited).toBe(0);
  });

  test.each([
    ["on", 250],
    ["T", 451],
    ["R", 554],
    ["4", 421],
  ])(
    "a session that outlasts stop_timeout is cut, and Sendmail does what it is told to (%s)",
    async (failure, code) => {
      await using pmilter = await start("unix", 5, { stop_timeout: 0.2 });
      await using client = await openMessage(`unix-${failure}`);
      expect(await pmilter.stop()).toBe(0);
      expect(pmilter.log.text).toContain("1 sessions had not ended and are cut");
      expect((await client.data(MESSAGE)).code).toBe(code);
      if (code === 250) expect(fieldsOf(await sink.next()).filter((field) => field.startsWith("X-"))).toEqual([]);
      // For the rest of the session.
      if (failure === "on") {
        await client.mail(FROM);
        await client.rcpt(TO);
        expect((await client.data(MESSAGE)).code).toBe(250);
        expect(fieldsOf(await sink.next()).filter((field) => field.startsWith("X-"))).toEqual([]);
      }
    },
  );
});
