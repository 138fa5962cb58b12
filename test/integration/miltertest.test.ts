/**
 * Debian's miltertest, a milter client that others wrote, drives the server with Lua scripts: over each kind of socket,
 * with version 6 and with version 2 of the protocol.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeWith, outsideTool } from "../support/available.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(120_000);

const miltertest = outsideTool("miltertest");

const FILTER = `
import { accept, defineFilter, discard, reject, tempfail } from "pmilter";
const note = (session, ...args) => { console.log([session.phase, ...args].join(" ")); };
export default defineFilter({
  connect: (session) => note(session, session.client.hostname, session.client.family, session.client.address),
  helo: (session, name) => name === "bad.example" ? tempfail("450 4.7.1 not you") : note(session, name),
  envfrom(session, sender, params) {
    note(session, sender, ...params, session.queueId, session.macros.get("{mail_addr}"));
    if (sender === "<bad@example.test>") return reject();
    if (sender === "<gone@example.test>") return discard();
  },
  envrcpt(session, recipient, params) {
    note(session, recipient, ...params);
    if (recipient === "<no@example.org>") return reject("550 5.1.1 no such user");
    if (recipient === "<later@example.org>") return tempfail();
  },
  data: (session) => note(session),
  header: (session, name, value) => note(session, name, JSON.stringify(value)),
  eoh: (session) => note(session),
  body: (session, chunk) => note(session, chunk.length),
  eom(session) {
    const { message } = session;
    const subject = message.headers.get("Subject");
    note(session, subject, message.headers.length);
    if (subject === "refuse") return reject("554 5.7.0 refused at 100%");
    if (subject === "accept") return accept();
    message.insertHeader(0, "X-Top", "top");
    message.insertHeader(1000, "X-End", "end");
    message.changeHeader("Subject", "changed");
    message.deleteHeader("X-Del");
    message.addRecipient("more@example.org");
    message.deleteRecipient(message.recipients[0].address);
    message.replaceBody("new\\n");
    message.quarantine("have a look");
  },
  unknown: (session, command) => note(session, command),
  abort: (session) => note(session),
  close: (session) => note(session),
});
`;

/** miltertest itself says nothing of a script's error, it only exits with 1. */
const PRELUDE = `
function check(what, got, wanted)
  if got ~= wanted then
    mt.echo(what .. ": got " .. tostring(got) .. ", wanted " .. tostring(wanted))
    error(what)
  end
end
function step(what, failure, reply)
  check(what, failure, nil)
  if reply ~= nil then check("reply to " .. what, mt.getreply(conn), reply) end
end
function has(what, ...)
  check(what, mt.eom_check(conn, ...), true)
end
conn = mt.connect(sock)
if conn == nil then error("no connection to " .. sock) end
`;

/** One message with all changes; `space` is what comes before a header's value: with HDR_LEADSPC the space itself. */
const message = (space: string) => `
step("connect", mt.conninfo(conn, "client.example.test", "192.0.2.9"), SMFIR_CONTINUE)
step("helo", mt.helo(conn, "helo.example.test"), SMFIR_CONTINUE)
mt.macro(conn, SMFIC_MAIL, "i", "QUEUE1", "{mail_addr}", "a@example.test")
step("mail", mt.mailfrom(conn, "<a@example.test>", "SIZE=10", "BODY=8BITMIME"), SMFIR_CONTINUE)
step("rcpt", mt.rcptto(conn, "<b@example.org>", "NOTIFY=NEVER"), SMFIR_CONTINUE)
step("rcpt refused", mt.rcptto(conn, "<no@example.org>"), SMFIR_REPLYCODE)
step("rcpt deferred", mt.rcptto(conn, "<later@example.org>"), SMFIR_TEMPFAIL)
step("rcpt", mt.rcptto(conn, "<c@example.org>"), SMFIR_CONTINUE)
step("data", mt.data(conn))
step("header", mt.header(conn, "Subject", "hello"))
step("header", mt.header(conn, "X-Del", "1"))
step("eoh", mt.eoh(conn))
step("body", mt.bodystring(conn, "one\\r\\n"))
step("body", mt.bodystring(conn, "two\\r\\n\\r\\n"))
step("eom", mt.eom(conn), SMFIR_CONTINUE)
has("insert at the top", MT_HDRINSERT, "X-Top", "${space}top", 0)
has("insert at the end", MT_HDRADD, "X-End", "${space}end")
has("change", MT_HDRCHANGE, "Subject", "${space}changed")
has("delete", MT_HDRDELETE, "X-Del")
has("add recipient", MT_RCPTADD, "<more@example.org>")
has("delete recipient", MT_RCPTDELETE, "<b@example.org>")
has("body", MT_BODYCHANGE, "new\\r\\n")
has("quarantine", MT_QUARANTINE, "have a look")
check("nothing else", mt.eom_check(conn, MT_HDRADD, "X-Top"), false)
`;
const MESSAGE_PRINTS = [
  "connect client.example.test inet 192.0.2.9",
  "helo helo.example.test",
  "envfrom <a@example.test> SIZE=10 BODY=8BITMIME QUEUE1 a@example.test",
  "envrcpt <b@example.org> NOTIFY=NEVER",
  "envrcpt <no@example.org>",
  "envrcpt <later@example.org>",
  "envrcpt <c@example.org>",
  "data",
  'header Subject "hello"',
  'header X-Del "1"',
  "eoh",
  "body 5",
  "body 7",
  "eom hello 2",
];

const REPEATED = `
step("connect", mt.conninfo(conn, "localhost", "unspec"), SMFIR_CONTINUE)
step("helo", mt.helo(conn, "helo.example.test"), SMFIR_CONTINUE)
step("unknown", mt.unknown(conn, "FROBNICATE"), SMFIR_CONTINUE)
step("mail rejected", mt.mailfrom(conn, "<bad@example.test>"), SMFIR_REJECT)
step("mail discarded", mt.mailfrom(conn, "<gone@example.test>"), SMFIR_DISCARD)
step("mail", mt.mailfrom(conn, "<a@example.test>"), SMFIR_CONTINUE)
step("rcpt", mt.rcptto(conn, "<b@example.org>"), SMFIR_CONTINUE)
step("abort", mt.abort(conn))
step("mail", mt.mailfrom(conn, "<>"), SMFIR_CONTINUE)
step("rcpt", mt.rcptto(conn, "<b@example.org>"), SMFIR_CONTINUE)
step("data", mt.data(conn), SMFIR_CONTINUE)
step("header", mt.header(conn, "Subject", "refuse"))
step("eoh", mt.eoh(conn))
step("body", mt.bodystring(conn, "x"))
step("eom", mt.eom(conn), SMFIR_REPLYCODE)
has("reply text", MT_SMTPREPLY, "554", "5.7.0", "refused at 100%%")
check("no change", mt.eom_check(conn, MT_HDRINSERT), false)
`;
const REPEATED_PRINTS = [
  "connect localhost unknown ",
  "helo helo.example.test",
  "unknown FROBNICATE",
  "envfrom <bad@example.test>  ",
  "envfrom <gone@example.test>  ",
  "envfrom <a@example.test>  ",
  "envrcpt <b@example.org>",
  "abort",
  "envfrom <>  ",
  "envrcpt <b@example.org>",
  "data",
  'header Subject "refuse"',
  "eoh",
  "body 1",
  "eom refuse 1",
];

const QUIT = "mt.disconnect(conn)\n";
// miltertest takes its arguments as version, steps, actions, whatever its manual says.
const VERSION_2 = 'step("negotiation", mt.negotiate(conn, 2, 0x7f, 0x3f))\n';
const OPTIONS = `
check("no reply to headers", mt.test_option(conn, SMFIP_NR_HDR), true)
check("white space kept", mt.test_option(conn, SMFIP_HDR_LEADSPC), true)
check("all events", mt.test_option(conn, SMFIP_NOHDRS) or mt.test_option(conn, SMFIP_NOBODY) or mt.test_option(conn, SMFIP_NOUNKNOWN), false)
check("may change bodies", mt.test_action(conn, SMFIF_CHGBODY), true)
`;
const NO_OPTIONS = `
check("no reply to headers", mt.test_option(conn, SMFIP_NR_HDR), false)
check("white space kept", mt.test_option(conn, SMFIP_HDR_LEADSPC), false)
check("may change the sender", mt.test_action(conn, SMFIF_CHGFROM), false)
check("may change headers", mt.test_action(conn, SMFIF_CHGHDRS), true)
`;
const HELO_REFUSED = `
step("connect", mt.conninfo(conn, "c.test", "2001:db8::9"), SMFIR_CONTINUE)
step("helo", mt.helo(conn, "bad.example"), SMFIR_REPLYCODE)
step("mail", mt.mailfrom(conn, "<a@example.test>"), SMFIR_REPLYCODE)
`;

describeWith(miltertest, "miltertest", () => {
  let pmilter: Pmilter;
  beforeAll(async () => {
    pmilter = await startPmilter({
      listen: ["unix:p.sock", "inet:127.0.0.1:0"],
      server: { workers: 1 },
      config: '[[filter]]\npath = "filter.ts"\n',
      files: { "filter.ts": FILTER },
    });
  });
  afterAll(async () => await pmilter?.[Symbol.asyncDispose]());

  /** Runs a script over one listener; gives what the handlers printed, up to the close of the session. */
  async function run(kind: "unix" | "inet", script: string): Promise<string[]> {
    const address = pmilter.addresses.find((each) => each.startsWith(kind))!;
    const sock = address.replace(/^inet:(.*):(\d+)$/, "inet:$2@$1");
    const file = join(pmilter.dir, "script.lua");
    await writeFile(file, `${PRELUDE}${script}mt.echo("done")\n`);
    const from = pmilter.prints.all.length;
    const child = Bun.spawn([miltertest.path, "-D", `sock=${sock}`, "-s", file], { stdout: "pipe", stderr: "pipe" });
    const [stdout, stderr, exitCode] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
    expect({ exitCode, stdout, stderr }).toEqual({ exitCode: 0, stdout: "done\n", stderr: "" });
    await pmilter.prints.next(/^close/, { from });
    return pmilter.prints.all.slice(from).map((line) => line.trimEnd());
  }

  const trimmed = (lines: readonly string[]) => lines.map((line) => line.trimEnd());

  test.each(["unix", "inet"] as const)("a message with every change (%s)", async (kind) => {
    expect(await run(kind, message(" ") + OPTIONS + QUIT)).toEqual([...MESSAGE_PRINTS, "close"]);
  });

  test.each(["unix", "inet"] as const)(
    "version 2 of the protocol: the same, with a reply to each event (%s)",
    async (kind) => {
      // miltertest sends DATA whatever the version.
      const script =
        VERSION_2 + message("").replace(/(step\("(?:data|header|eoh|body)", .*)\)$/gm, "$1, SMFIR_CONTINUE)");
      expect(await run(kind, script + NO_OPTIONS + QUIT)).toEqual([...MESSAGE_PRINTS, "close"]);
    },
  );

  test.each(["unix", "inet"] as const)(
    "several messages, refused at several steps, and an abort (%s)",
    async (kind) => {
      expect(await run(kind, REPEATED + QUIT)).toEqual([...trimmed(REPEATED_PRINTS), "close"]);
    },
  );

  test("a client that goes in mid-message without QUIT", async () => {
    const script = message(" ").split('step("eoh"')[0]!;
    expect(await run("inet", `${script}mt.disconnect(conn, false)\n`)).toEqual([
      ...MESSAGE_PRINTS.slice(0, MESSAGE_PRINTS.indexOf("eoh")),
      "abort",
      "close",
    ]);
  });

  test("a refused HELO refuses what follows", async () => {
    expect(await run("unix", HELO_REFUSED + QUIT)).toEqual(["connect c.test inet6 2001:db8::9", "close"]);
  });

  test("a script whose expectation does not hold fails", async () => {
    await expect(
      run("unix", `step("connect", mt.conninfo(conn, "c.test", "192.0.2.1"), SMFIR_REJECT)\n`),
    ).rejects.toThrow("got 99");
  });
});
