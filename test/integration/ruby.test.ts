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
