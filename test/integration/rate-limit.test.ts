/** rate-limit behind both mail servers: exact over all workers, a reload and a restart, and only what passed is counted. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith, outsideTool } from "../support/available.ts";
import { Lines, MAIN, type Pmilter, runPmilter } from "../support/pmilter.ts";
import { postfixTool } from "../support/postfix.ts";
import type { SendMailResult } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, TO } from "./site.ts";
import { startSite } from "./support.ts";

setDefaultTimeout(180_000);

/** Refuses the recipient no@… and, at its end, a message with a header; says when a message is over. */
const JUDGE = `
import { defineFilter, reject } from "pmilter";
export default defineFilter({
  name: "judge",
  envrcpt: (session, recipient) => (recipient.includes("no@") ? reject("550 5.1.1 No such user") : undefined),
  eom: ({ message }) => (message.headers.get("X-Refuse") === undefined ? undefined : reject("550 5.7.1 No")),
  outcome: (session, { verdict }) => console.log("over: " + session.message.sender.address + " " + verdict),
});
`;

function limited(rule: string) {
  return {
    config: `[[filter]]
use = "rate-limit"
[[filter.options.rules]]
${rule}

[[filter]]
path = "judge.ts"

# A busy machine answers late, and mail that is not counted passes.
[store]
timeout = "7s"
`,
    server: { workers: 4 },
    files: { "judge.ts": JUDGE },
  };
}

/** The same server again: its configuration, its state folder, its socket. */
async function startAgain(server: Pmilter): Promise<AsyncDisposable & { readonly log: Lines }> {
  expect(await server.stop()).toBe(0);
  const child = Bun.spawn([process.execPath, MAIN, "-c", server.configFile], {
    cwd: server.dir,
    env: { ...process.env, XDG_RUNTIME_DIR: "", RUNTIME_DIRECTORY: "" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const log = new Lines();
  const reading = log.read(child.stderr);
  await log.next(/\bready: listening on /);
  return {
    log,
    async [Symbol.asyncDispose]() {
      child.kill("SIGTERM");
      await child.exited;
      await reading;
    },
  };
}

/** That send at once: Sendmail takes few in a second. */
const CLIENTS = 5;
const REFUSED = "X-Refuse: yes\r\n\r\nbody\r\n";

describeBehindEach("rate-limit", (server) => {
  let site: MailSite;
  const again = new AsyncDisposableStack();
  const LIMIT = 40;
  const from = "jane@example.test";

  beforeAll(async () => {
    site = await server.startSite({ limit: limited(`key = "sender"\nlimit = ${LIMIT}\nper = "1d"`) });
  });
  afterAll(async () => {
    await again.disposeAsync();
    await site?.[Symbol.asyncDispose]();
  });

  /** A client that sends nothing that passes, in many ways. */
  async function vainly(): Promise<void> {
    expect((await site.send({ from, message: REFUSED })).last.code).toBe(550);
    for (const end of ["RSET", "QUIT", null]) {
      await using client = await site.connect();
      await client.command(`MAIL FROM:<${from}>`);
      expect((await client.command(`RCPT TO:<${TO}>`)).code).toBe(250);
      expect((await client.command("RCPT TO:<no@example.org>")).code).toBe(550);
      if (end !== null) await client.command(end);
    }
  }

  /** So many messages, of several clients. @returns how many passed */
  async function send(count: number): Promise<number> {
    const results: SendMailResult[] = [];
    let left = count;
    const client = async () => {
      while (left-- > 0) results.push(await site.send({ from }));
    };
    await Promise.all(Array.from({ length: Math.min(count, CLIENTS) }, client));
    for (const { last } of results) {
      if (last.code !== 250) expect(last.lines.join(" ")).toMatch(/4\.7\.1 .*Too many recipients, try again in \d+ s/);
    }
    return results.filter(({ last }) => last.code === 250).length;
  }

  test("lets exactly the limit pass, over four workers, a reload and a restart, and counts only what passed", async () => {
    const pmilter = site.pmilter();
    await Promise.all(Array.from({ length: CLIENTS }, () => vainly()));
    const over = () => pmilter.prints.all.filter((line) => line.startsWith(`over: ${from} `));
    await waitFor(() => over().length >= 4 * CLIENTS, { what: "the end of all messages" });
    expect(await send(10)).toBe(10);
    expect((await runPmilter(["reload", "-c", pmilter.configFile])).exitCode).toBe(0);
    expect(await send(10)).toBe(10);
    const { log } = again.use(await startAgain(pmilter));
    expect(await send(30)).toBe(20);
    expect(await send(2)).toBe(0);
    for (const text of [pmilter.log.text, log.text]) expect(text).not.toContain("mail is not counted");
    expect(site.sink.messages.length).toBeLessThanOrEqual(LIMIT);
    await waitFor(() => site.sink.messages.length === LIMIT, { what: "all deliveries" });
  });
});

describeWith(postfixTool, "rate-limit, with many connections of smtp-source", () => {
  describeWith(outsideTool("smtp-source", { paths: ["/usr/sbin/smtp-source"] }), "", () => {
    test("lets exactly the limit pass", async () => {
      const LIMIT = 50;
      await using site = await startSite({
        filters: { limit: limited(`key = "client"\nlimit = ${LIMIT}\nper = "1h"\ncount = "messages"`) },
      });
      // -A: a refusal does not end it.
      const args = ["-A", "-s", "10", "-m", "120", "-f", FROM, "-t", TO, `127.0.0.1:${site.port()}`];
      await using child = Bun.spawn(["/usr/sbin/smtp-source", ...args], { stdio: ["ignore", "ignore", "ignore"] });
      await child.exited;
      const log = site.pmilter().log.all;
      await waitFor(() => log.filter((line) => line.includes("]: tempfail: ")).length === 120 - LIMIT, {
        what: "a refusal of each other message",
      });
      await waitFor(() => site.sink.messages.length === LIMIT, { what: "all deliveries" });
      expect(log.filter((line) => line.includes("over the limit of"))).toHaveLength(1);
    });
  });
});
