/** The original's Ruby handlers behind a real mail server, beside their TypeScript counterparts: the same answers. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { ORIGINAL } from "../config/original.ts";
import { CHANGES, HANDLERS } from "../ruby/original.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { type MailSite, MESSAGE } from "./site.ts";
import { outcome, parts } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const ROOT = join(import.meta.dir, "..", "..");
const CONFIG = ORIGINAL.slice(ORIGINAL.indexOf("[handler]"));
const NAMES = ["connect", "helo", "mail_from", "rcpt_to", "header", "body", "eom", "postconfig", "master_exit"];

describeBehindEach("the original's Ruby handlers", (server) => {
  let site: MailSite;

  beforeAll(async () => {
    const typescript = await Promise.all(
      NAMES.map(
        async (name) => [`handler/${name}.ts`, await Bun.file(join(ROOT, "handlers", `${name}.ts`)).text()] as const,
      ),
    );
    const eom = HANDLERS["handler/eom.rb"] + CHANGES;
    site = await server.startSite({
      ruby: { config: CONFIG, server: { workers: 1 }, files: { ...HANDLERS, "handler/eom.rb": eom } },
      typescript: {
        config: CONFIG.replaceAll(".rb", ".ts"),
        server: { workers: 1 },
        files: Object.fromEntries(typescript),
      },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const services = ["ruby", "typescript"] as const;

  describe.each(services)("%s", (service) => {
    test("mail passes with X-Pmilter: Enable", async () => {
      const delivered = await site.deliver({ service, from: "from@example.com", to: "to@example.com" });
      expect(delivered).toMatchObject({ from: "from@example.com", to: [{ address: "to@example.com" }] });
      const fields = [...server.ownFields, "Subject: hello", "From: <alice@example.test>", "X-Pmilter: Enable"];
      expect(server.fieldsOf(delivered)).toEqual(fields);
      expect(parts(delivered.text).body).toBe("body\r\n");
    });

    test("spam-from@example.com is rejected", async () => {
      const refused = await site.send({ service, from: "spam-from@example.com", to: "to@example.com" });
      expect(outcome(refused)).toBe(`mail: ${server.rejected("spam-from@example.com")}`);
    });

    test("the sender is changed and a recipient added: envelope_to has the brackets that the mail server may not send", async () => {
      const delivered = await site.deliver({ service, from: "change-from@example.com", to: "add-to@example.com" });
      expect(delivered.from).toBe("new-from@example.com");
      expect(delivered.to.map(({ address }) => address).sort()).toEqual(["add-to@example.com", "new-to@example.com"]);
    });

    test("a long body, several recipients and the null sender pass", async () => {
      const message = `${MESSAGE}${"line of text\r\n".repeat(20_000)}`;
      const { last } = await site.send({ service, from: "", to: ["a@example.com", "add-to@example.com"], message });
      const delivered = await site.delivered(last);
      expect(delivered.from).toBe("");
      expect(site.deliveriesOf(server.queueIdOf(last)).flatMap(({ to }) => to)).toHaveLength(3);
      expect(parts(delivered.text).body).toBe(parts(message).body);
    });
  });

  test("they print the same lines, from the first to the last", async () => {
    const lines: string[][] = [];
    for (const service of services) {
      const pmilter = site.pmilter(service);
      expect(await pmilter.stop()).toBe(0);
      expect(pmilter.log.text).not.toContain("[error]");
      lines.push(
        pmilter.prints.all
          .filter((line) => !/^(?:message_id|reveive_time|handler phase name|body chunk; line of)/.test(line))
          .map((line) => line.replace(/\r$/, "")),
      );
    }
    const [ruby, typescript] = lines.map((all) =>
      all.filter((line) => !/^(?:pmilter: |run at |master exit )/.test(line)),
    );
    const prints = ruby!.filter((line) => !line.startsWith("line of text"));
    const expected = typescript!.filter((line) => !line.startsWith("line of text"));
    // The service's name with Sendmail: they come by two.
    expect(prints).toEqual(expected.map((line) => line.replace("client daemon typescript", "client daemon ruby")));
    expect(prints.slice(0, 4)).toEqual([
      "hello pmilter handler called from pmilter",
      "client ipaddr 127.0.0.1",
      ...(server.name === "Postfix"
        ? ["client hostname [127.0.0.1]", "client daemon mx.example.test"]
        : ["client hostname localhost", "client daemon ruby"]),
    ]);
    expect(prints).toContain('header: {"Subject"=>"hello"}');
    expect(lines[0]!.at(-1)).toBe("master exit at exit phase");
  });
});

describeBehindEach("what Ruby handlers have beside the original's methods", (server) => {
  let site: MailSite;

  beforeAll(async () => {
    site = await server.startSite({
      ruby: {
        config:
          '[handler.session]\nmruby_envfrom_handler = "from.rb"\nmruby_eom_handler = "eom.rb"\n[[filter]]\npath = "reads.ts"\n',
        server: { workers: 1 },
        files: {
          "from.rb": `s = Pmilter::Session.new
s.message_state["from"] = s.envelope_from
Pmilter::Session::Results.new["greeting"] = "good day"
s.log("from #{s.envelope_from}", "warn")
`,
          "eom.rb": `s = Pmilter::Session.new
h = Pmilter::Session::Headers.new
greeting = Pmilter::Session::Results.new["greeting"]
from = h.addresses("From")[0]
h["X-Ruby"] = "#{s.message_state["from"]} #{greeting} #{h["Subject"]} #{h.text("Subject")} #{from["name"]} #{from["domain"]} #{s.is_local}"
`,
          "reads.ts": `export default {
  eom({ isLocal, message }) {
    message.addHeader("X-Later", message.results.get("greeting") + " " + isLocal);
  },
};
`,
        },
      },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test("log, message_state, results and headers", async () => {
    const message = MESSAGE.replace("Subject: hello", "Subject: =?utf-8?q?gr=C3=BCn?=").replace(
      "From: <alice@example.test>",
      "From: Alice <alice@Example.TEST>",
    );
    const delivered = await site.deliver({ from: "a@example.com", to: "to@example.com", message });
    const text = "<a@example.com> good day =?utf-8?q?gr=C3=BCn?= grün Alice example.test false";
    // Delivered text has a character for each byte.
    const bytes = Buffer.from(text).toString("latin1");
    const fields = server.fieldsOf(delivered).slice(-2);
    expect(fields).toEqual([`X-Ruby: ${bytes}`, "X-Later: good day false"]);
    const line = await site.pmilter().log.next(/\[warn\]: a handler says: /);
    expect(line).toMatch(/ filter=handler phase=envfrom .*text="from <a@example\.com>"/);
  });

  test("is_local is false for mail by SMTP", async () => {
    const delivered = await site.deliver({ from: "b@example.com", to: "to@example.com" });
    expect(server.fieldsOf(delivered).at(-1)).toBe("X-Later: good day false");
  });
});
