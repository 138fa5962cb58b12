/** pmilter stops and starts while a mail server runs: what mail gets meanwhile, and that open sessions are let finish. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { spawnServer } from "../server/spawned.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { startPostfix } from "../support/postfix.ts";
import { startSendmail } from "../support/sendmail.ts";
import { connectSmtp, type Reply, sendMail, type SendMailResult, type SmtpClient } from "../support/smtp-client.ts";
import { type SmtpSink, startSmtpSink } from "../support/smtp-sink.ts";
import { freePort, type TempDir, tempDir, waitFor } from "../support/temp.ts";
import { describeBehindEach, type MailServer, type Services } from "./mail-servers.ts";
import { FROM, MESSAGE, TO } from "./site.ts";
import { outcome, said } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

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

type Kind = "unix" | "inet";

/** What a mail server can be told to do without pmilter. */
interface Way {
  readonly name: string;
  /** How mail ends while pmilter is not there; without this, mail passes without the filter. */
  readonly absent?: string;
  /** The reply to the message that is open when pmilter ends the connection; without this, the same. */
  readonly cut?: string;
}

interface Told {
  ways(server: MailServer): readonly Way[];
  /** With the services `unix-WAY` and `inet-WAY` for each of the ways. */
  start(listen: Readonly<Record<Kind, string>>, sinkPort: number): Promise<Services>;
}

const TOLD: Readonly<Record<MailServer["name"], Told>> = {
  // Without a default_action Postfix takes it for tempfail.
  Postfix: {
    ways: ({ noGreeting, tryLater }) => [
      { name: "tempfail", absent: `mail: ${tryLater}`, cut: tryLater },
      { name: "accept" },
      { name: "reject", absent: `greeting: ${noGreeting}`, cut: "550 5.5.0 Service unavailable" },
    ],
    start: (listen, sinkPort) =>
      startPostfix({
        sinkPort,
        services: Object.entries(listen).flatMap(([kind, address]) => [
          { name: `${kind}-tempfail`, milters: address },
          { name: `${kind}-accept`, milters: `{ ${address}, default_action=accept }` },
          { name: `${kind}-reject`, milters: `{ ${address}, default_action=reject }` },
        ]),
      }),
  },
  // Without an F= Sendmail goes on without the filter.
  Sendmail: {
    ways: ({ closing, noGreeting, rejectedAtEnd, tryLater }) => [
      { name: "accept" },
      { name: "tempfail", absent: `mail: ${tryLater}`, cut: tryLater },
      { name: "reject", absent: `greeting: ${noGreeting}`, cut: rejectedAtEnd },
      { name: "hang up", absent: `greeting: ${closing}`, cut: closing },
    ],
    start: (listen, sinkPort) =>
      startSendmail({
        sinkPort,
        services: Object.entries(listen).flatMap(([kind, address]) => [
          { name: `${kind}-accept`, milters: address },
          { name: `${kind}-tempfail`, milters: { address, failure: "T" as const } },
          { name: `${kind}-reject`, milters: { address, failure: "R" as const } },
          { name: `${kind}-hang up`, milters: { address, failure: "4" as const } },
        ]),
      }),
  },
};

describeBehindEach("stop and start", (server) => {
  const { fieldsOf, ownFields, tryLater } = server;
  const told = TOLD[server.name];
  const ways = told.ways(server);
  let dir: TempDir;
  let sink: SmtpSink;
  let running: Services;
  let listen: Record<Kind, string>;
  let stack: AsyncDisposableStack;

  beforeAll(async () => {
    stack = new AsyncDisposableStack();
    dir = stack.use(await tempDir("lifecycle"));
    sink = stack.use(await startSmtpSink());
    listen = { unix: `unix:${join(dir.path, "p.sock")}`, inet: `inet:127.0.0.1:${await freePort()}` };
    running = stack.use(await told.start(listen, sink.port));
  });
  afterAll(async () => await stack?.disposeAsync());

  async function start(kind: Kind, run: number, options: Record<string, unknown> = {}): Promise<Pmilter> {
    return await startPmilter({
      listen: listen[kind],
      server: { workers: 2, ...options },
      config: `[[filter]]\npath = "filter.ts"\noptions = { run = ${run} }\n`,
      files: { "filter.ts": FILTER },
    });
  }

  async function send(service: string): Promise<SendMailResult> {
    return await sendMail({ port: running.port(service), from: FROM, to: TO, message: MESSAGE });
  }

  /** What the filter added to the message that this reply accepted, and the sink got next. */
  async function passed(reply: Reply): Promise<string[]> {
    expect(said(reply).replace(server.queueIdOf(reply), "ID")).toBe(server.accepted);
    return fieldsOf(await sink.next()).slice(ownFields.length + 2);
  }

  /** A session with a message open, as far as RCPT. */
  async function openMessage(service: string, from: string = FROM): Promise<SmtpClient> {
    const client = await connectSmtp({ port: running.port(service) });
    await client.ehlo("a.test");
    await client.mail(from);
    expect((await client.rcpt(TO)).code).toBe(250);
    return client;
  }

  test.each(["unix", "inet"] as const)(
    "without pmilter the mail server does what it is told to, and mail flows again with it (%s)",
    async (kind) => {
      for (const run of [1, 2]) {
        for (const { name, absent } of ways) {
          const result = await send(`${kind}-${name}`);
          if (absent === undefined) expect(await passed(result.last)).toEqual([]);
          else expect(outcome(result), name).toBe(absent);
        }
        await using pmilter = await start(kind, run);
        for (const { name } of ways) {
          expect(await passed((await send(`${kind}-${name}`)).last)).toEqual([`X-Pass: ${run}`]);
        }
        expect(await pmilter.stop()).toBe(0);
      }
    },
  );

  test("SIGTERM with a message open: that SMTP session finishes, with its next message; new ones do not begin", async () => {
    // Its end is the session's: for the time that it gives them, nobody here waits.
    await using pmilter = await start("unix", 3, { stop_timeout: 600 });
    await using client = await openMessage("unix-tempfail");
    pmilter.process.kill("SIGTERM");
    await pmilter.log.next(/SIGTERM: stopping, 1 connections open/);
    // The line comes a moment before the socket goes: a session that began in between would be served.
    await waitFor(() => !existsSync(join(dir.path, "p.sock")), { what: "the socket to go" });
    expect(outcome(await send("unix-tempfail"))).toBe(`mail: ${tryLater}`);
    expect(await passed(await client.data(MESSAGE))).toEqual(["X-Pass: 3"]);
    await client.mail(FROM);
    await client.rcpt(TO);
    expect(await passed(await client.data(MESSAGE))).toEqual(["X-Pass: 3"]);
    await client.quit();
    expect(await pmilter.process.exited).toBe(0);
    expect(pmilter.prints.all.filter((line) => line === "filter stopped")).toHaveLength(2);
    expect(pmilter.log.text).not.toMatch(/\[(error|crit|warn)\]: (?!running as root|server\.max_connections)/);
  });

  test("a start that takes long: mail gets the fallback, also where it would pass without pmilter, and is served afterwards", async () => {
    await using pmilter = await spawnServer({
      listen: listen.unix,
      server: { workers: 2 },
      config: '[[filter]]\npath = "filter.ts"\noptions = { run = 6 }\n',
      files: {
        "filter.ts": FILTER.replace(
          "  stop()",
          `  async start() {
    console.log("starting");
    while (!require("node:fs").existsSync(new URL("go", import.meta.url).pathname)) await Bun.sleep(20);
  },
  stop()`,
        ),
      },
    });
    await pmilter.prints.next(/^starting$/);
    const results = await Promise.all(ways.map(({ name }) => send(`unix-${name}`)));
    expect(results.map(outcome)).toEqual(ways.map(() => `mail: ${tryLater}`));
    expect(pmilter.log.text).not.toContain("ready: ");
    writeFileSync(join(pmilter.dir, "go"), "");
    await pmilter.log.next(/ready: /);
    expect(await passed((await send("unix-tempfail")).last)).toEqual(["X-Pass: 6"]);
  });

  test("SIGTERM while an eom handler works: its changes are made", async () => {
    await using pmilter = await start("unix", 4);
    await using client = await openMessage("unix-tempfail", "slow@example.test");
    const reply = client.data(MESSAGE);
    await pmilter.prints.next(/^slow$/);
    pmilter.process.kill("SIGTERM");
    expect(await passed(await reply)).toEqual(["X-Pass: 4"]);
    await client.quit();
    expect(await pmilter.process.exited).toBe(0);
  });

  test.each(ways)(
    "a session that outlasts stop_timeout is cut, and the mail server does what it is told to ($name)",
    async ({ name, cut }) => {
      await using pmilter = await start("unix", 5, { stop_timeout: 0.2 });
      await using client = await openMessage(`unix-${name}`);
      expect(await pmilter.stop()).toBe(0);
      expect(pmilter.log.text).toContain("1 sessions had not ended and are cut");
      const reply = await client.data(MESSAGE);
      if (cut === undefined) {
        expect(await passed(reply)).toEqual([]);
        // For the rest of the session.
        await client.mail(FROM);
        await client.rcpt(TO);
        expect(await passed(await client.data(MESSAGE))).toEqual([]);
      } else {
        expect(said(reply)).toBe(cut);
      }
      // 421 was the last reply.
      expect((await client.quit()).code).toBe(reply.code === 421 ? 0 : 221);
    },
  );
});
