/** pmilter stops and starts while Postfix runs: what mail gets meanwhile, and that open sessions are let finish. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { describeWith } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { type Postfix, postfixTool, startPostfix } from "../support/postfix.ts";
import { connectSmtp, sendMail, type SmtpClient } from "../support/smtp-client.ts";
import { type SmtpSink, startSmtpSink } from "../support/smtp-sink.ts";
import { freePort, type TempDir, tempDir } from "../support/temp.ts";
import { fieldsOf, FROM, MESSAGE, outcome, said, TO } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
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

describeWith(postfixTool, "stop and start", () => {
  let dir: TempDir;
  let sink: SmtpSink;
  let postfix: Postfix;
  let listen: Record<"unix" | "inet", string>;
  let stack: AsyncDisposableStack;

  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    dir = stack.use(await tempDir("lifecycle"));
    sink = stack.use(await startSmtpSink());
    listen = { unix: `unix:${join(dir.path, "p.sock")}`, inet: `inet:127.0.0.1:${await freePort()}` };
    postfix = stack.use(
      await startPostfix({
        sinkPort: sink.port,
        services: Object.entries(listen).flatMap(([name, address]) => [
          { name, milters: address },
          { name: `${name}-accept`, milters: `{ ${address}, default_action=accept }` },
          { name: `${name}-reject`, milters: `{ ${address}, default_action=reject }` },
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
    return outcome(await sendMail({ port: postfix.port(service), from: FROM, to: TO, message: MESSAGE }));
  }

  /** Sends through a service, and gives the headers of what was delivered. */
  async function passed(service: string): Promise<string[]> {
    expect(await send(service)).toBe("end: 250 2.0.0 Ok: queued");
    return fieldsOf(await sink.next()).slice(3);
  }

  /** A session with a message open, as far as RCPT. */
  async function openMessage(service: string, from: string = FROM): Promise<SmtpClient> {
    const client = await connectSmtp({ port: postfix.port(service) });
    await client.ehlo("a.test");
    await client.mail(from);
    expect((await client.rcpt(TO)).code).toBe(250);
    return client;
  }

  test.each(["unix", "inet"] as const)(
    "without pmilter Postfix does what it is told to, and mail flows again with it (%s)",
    async (kind) => {
      for (const run of [1, 2]) {
        expect(await send(kind)).toBe("mail: 451 4.7.1 Service unavailable - try again later");
        expect(await send(`${kind}-reject`)).toBe("greeting: 554 mx.example.test ESMTP not accepting connections");
        expect(await passed(`${kind}-accept`)).toEqual([]);
        await using pmilter = await start(kind, run);
        expect(await passed(kind)).toEqual([`X-Pass: ${run}`]);
        expect(await passed(`${kind}-accept`)).toEqual([`X-Pass: ${run}`]);
        expect(await pmilter.stop()).toBe(0);
      }
    },
  );

  test("SIGTERM with a message open: that SMTP session finishes, with its next message; new ones do not begin", async () => {
    await using pmilter = await start("unix", 3);
    await using client = await openMessage("unix");
    pmilter.process.kill("SIGTERM");
    await pmilter.log.next(/SIGTERM: stopping, 1 connections open/);
    expect(await send("unix")).toBe("mail: 451 4.7.1 Service unavailable - try again later");
    expect(said(await client.data(MESSAGE))).toBe("250 2.0.0 Ok: queued");
    expect(fieldsOf(await sink.next())).toContain("X-Pass: 3");
    await client.mail(FROM);
    await client.rcpt(TO);
    expect(said(await client.data(MESSAGE))).toBe("250 2.0.0 Ok: queued");
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
    await using client = await openMessage("unix", "slow@example.test");
    const reply = client.data(MESSAGE);
    await pmilter.prints.next(/^slow$/);
    pmilter.process.kill("SIGTERM");
    expect(said(await reply)).toBe("250 2.0.0 Ok: queued");
    expect(fieldsOf(await sink.next())).toContain("X-Pass: 4");
    await client.quit();
    expect(await pmilter.process.exited).toBe(0);
  });

  test("a session that outlasts stop_timeout is cut, and Postfix does what it is told to", async () => {
    await using pmilter = await start("unix", 5, { stop_timeout: 0.2 });
    await using client = await openMessage("unix");
    expect(await pmilter.stop()).toBe(0);
    expect(pmilter.log.text).toContain("1 sessions had not ended and are cut");
    expect(said(await client.data(MESSAGE))).toBe("451 4.7.1 Service unavailable - try again later");
    expect((await client.quit()).code).toBe(221);
  });
});
