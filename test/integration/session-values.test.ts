/** What handlers are told: the values of a session, and recipients that Postfix rejects itself. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { once } from "node:events";
import { copyFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { connectSmtp } from "../support/smtp-client.ts";
import { type TempDir, tempDir } from "../support/temp.ts";
import { FROM, MESSAGE, TO } from "./site.ts";
import { clientName, oneFilter, said, scripted, type Site, startSite } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(120_000);

const VALUES = scripted({
  values: () => {
    const show = (session: unknown, rest: Record<string, unknown> = {}) => {
      const { client, daemonName, myHostname, queueId, phase, macros } = session as import("pmilter").Session;
      const { hostname, address, port, family } = client;
      const v = macros.get("v");
      const j = macros.get("{j}");
      const seen = { phase, hostname, address, port, family, daemonName, myHostname, queueId, v, j, ...rest };
      console.log(JSON.stringify(seen));
    };
    return {
      connect: (session) => show(session),
      helo: (session) => show(session, { helo: session.helo, tls: session.tls }),
      envfrom: (session) =>
        show(session, { auth: session.auth, tls: session.tls, mail: session.macros.get("{mail_addr}") }),
      envrcpt: (session) =>
        show(session, { rcpt: session.macros.get("{rcpt_addr}"), none: session.macros.get("{none}") }),
      data: (session) => show(session),
      eom: (session) =>
        show(session, { helo: session.helo, age: Date.now() - session.message.receivedAt.getTime() < 60_000 }),
    };
  },
});

/** Notes each recipient with the macros that tell of a rejection by Postfix, and tries to decide on it. */
const REJECTED = `
import { accept, defineFilter, discard, reject } from "pmilter";
const verdicts = { accept, discard, reject: () => reject("550 5.1.1 our own"), none: () => undefined };
const seen = (session, recipient) => {
  const { macros, client } = session;
  const isRejected = macros.get("{rcpt_mailer}") === "error";
  console.log(session.options.name, recipient, isRejected ? macros.get("{rcpt_host}") : "accepted");
  if (macros.get("{rcpt_mailer}") === "error") return verdicts[client.hostname.split(".")[0]]?.();
};
export default defineFilter({
  rejectedRecipients: REJECTED,
  envrcpt: seen,
  eom: (session) => { console.log(session.options.name, "eom", session.message.recipients.map(({ address }) => address).join()); },
});
`;

/** The reply to a line; without one, what is said first. */
async function ask(socket: Socket, line?: string): Promise<string> {
  if (line !== undefined) socket.write(`${line}\r\n`);
  let text = "";
  while (!/^\d{3} .*\r\n$/m.test(text)) text += String((await once(socket, "data"))[0]);
  return text;
}

describeWith(postfixTool, "what handlers are told", () => {
  let site: Site;
  let keys: TempDir;
  beforeAll(async () => {
    // Postfix takes a list of files, so the path of one cannot have a space, as that of this folder may.
    keys = await tempDir("keys");
    const pem = join(keys.path, "mx.pem");
    await copyFile(join(import.meta.dir, "../fixtures/mx.pem"), pem);
    site = await startSite({
      filters: {
        values: oneFilter(VALUES),
        rejected: {
          server: { workers: 1 },
          config: ["all", "some"]
            .map((name) => `[[filter]]\npath = "${name}.ts"\noptions = { name = "${name}" }\n`)
            .join(""),
          files: { "all.ts": REJECTED.replace("REJECTED", "true"), "some.ts": REJECTED.replace("REJECTED", "false") },
        },
      },
      postfix: ({ rejected, values }) => ({
        services: [
          // It relays for clients whose address it does not know, too.
          {
            name: "open",
            milters: values!,
            options: {
              smtpd_relay_restrictions: "check_recipient_access static:OK, reject",
              smtpd_recipient_restrictions: "check_recipient_access static:OK, reject",
              smtpd_tls_security_level: "may",
              smtpd_tls_chain_files: pem,
            },
          },
          {
            name: "strict",
            milters: rejected!,
            options: {
              smtpd_recipient_restrictions:
                "check_recipient_access inline:{no@example.org=REJECT}, permit_mynetworks, reject",
            },
          },
        ],
      }),
    });
  });
  afterAll(async () => {
    await site?.[Symbol.asyncDispose]();
    await keys?.[Symbol.asyncDispose]();
  });

  test.each([
    ["192.0.2.7", "192.0.2.7", "inet"],
    ["IPV6:2001:db8::7", "2001:db8::7", "inet6"],
    ["IPV6:::ffff:192.0.2.7", "192.0.2.7", "inet"],
    ["IPV6:64:ff9b::192.0.2.7", "64:ff9b::192.0.2.7", "inet6"],
    ["[UNAVAILABLE]", "", "unknown"],
  ])("what a session tells of a client at %s", async (told, address, family) => {
    const { prints } = site.pmilter("values");
    const from = prints.all.length;
    await using client = await connectSmtp({ port: site.port("open") });
    await client.ehlo("first.test");
    await client.command(`XCLIENT ADDR=${told} PORT=40123 NAME=${clientName("values")}`);
    await client.ehlo("told.example.net");
    await client.mail(FROM);
    await client.rcpt(TO);
    const reply = await client.data(MESSAGE);
    await client.quit();
    await site.delivered(reply);
    await prints.next(/"phase":"eom"/, { from });
    const lines = prints.all.slice(from).map((line) => JSON.parse(line) as Record<string, unknown>);
    const names = { daemonName: "mx.example.test", myHostname: "mx.example.test", j: "mx.example.test" };
    const always = { hostname: clientName("values"), address, port: 40_123, family, ...names };
    const tls = { version: "", cipher: "", cipherBits: "", certSubject: "", certIssuer: "" };
    const queueId = /queued as (\w+)/.exec(reply.text)![1]!;
    const v = expect.stringMatching(/^Postfix \d+\.\d+/);
    expect(lines).toEqual([
      { phase: "connect", ...always, queueId: "", v },
      { phase: "helo", ...always, queueId: "", v, helo: "told.example.net", tls },
      { phase: "envfrom", ...always, queueId: "", v, auth: { type: "", authen: "", author: "" }, tls, mail: FROM },
      { phase: "envrcpt", ...always, queueId: "", v, rcpt: TO },
      { phase: "data", ...always, queueId, v },
      { phase: "eom", ...always, queueId, v, helo: "told.example.net", age: true },
    ]);
  });

  test("TLS is known from MAIL on where the client does not say EHLO again behind STARTTLS", async () => {
    const { prints } = site.pmilter("values");
    const from = prints.all.length;
    const plain = connect(site.port("open"), "127.0.0.1");
    plain.setEncoding("latin1");
    await ask(plain);
    await ask(plain, "EHLO first.test");
    await ask(plain, `XCLIENT NAME=${clientName("values")}`);
    await ask(plain, "EHLO a.test");
    expect(await ask(plain, "STARTTLS")).toStartWith("220");
    plain.removeAllListeners("data");
    const secure = connectTls({ socket: plain, rejectUnauthorized: false });
    secure.setEncoding("latin1");
    await once(secure, "secureConnect");
    for (const sender of ["first", "second"]) {
      expect(await ask(secure, `MAIL FROM:<${sender}@example.test>`)).toStartWith("250");
      expect(await ask(secure, "RSET")).toStartWith("250");
    }
    await prints.next(/"mail":"second@/, { from });
    const tls = { version: secure.getProtocol(), cipher: secure.getCipher().standardName };
    secure.destroy();
    const seen = prints.all
      .slice(from)
      .map((line) => JSON.parse(line) as { readonly phase: string; readonly tls: unknown })
      .filter(({ phase }) => phase === "envfrom");
    expect(seen).toMatchObject([{ tls }, { tls }]);
  });

  test.each(["none", "reject", "accept", "discard"])(
    "rejectedRecipients: a recipient that Postfix rejects is shown to who asked, and %s() changes nothing",
    async (as) => {
      const { prints } = site.pmilter("rejected");
      const from = prints.all.length;
      const result = await site.send({ service: "strict", as, to: ["no@example.org", TO, "no@example.org"] });
      expect(result.rcpt.map(said)).toEqual([
        expect.stringContaining("554 5.7.1 <no@example.org>: Recipient address rejected"),
        "250 2.1.5 Ok",
        expect.stringContaining("554 5.7.1 <no@example.org>: Recipient address rejected"),
      ]);
      // Not `delivered` first: a message that was discarded would be waited for in vain.
      await prints.next(/^some eom/, { from });
      expect(prints.all.slice(from)).toEqual([
        "all <no@example.org> 5.7.1",
        "all <bob@example.org> accepted",
        "some <bob@example.org> accepted",
        "all <no@example.org> 5.7.1",
        "all eom bob@example.org",
        "some eom bob@example.org",
      ]);
      expect((await site.delivered(result.last)).to).toMatchObject([{ address: TO }]);
    },
  );
});
