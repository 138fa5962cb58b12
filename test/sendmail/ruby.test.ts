/** The original's Ruby handlers behind Sendmail, beside their TypeScript counterparts: the same mail, the same prints. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import { ORIGINAL } from "../config/original.ts";
import { outcome } from "../integration/support.ts";
import { CHANGES, HANDLERS } from "../ruby/original.ts";
import { describeWith } from "../support/available.ts";
import { sendmailTool } from "../support/sendmail.ts";
import { fieldsOf, OWN_FIELDS, type Site, startSite } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(30_000);

const ROOT = join(import.meta.dir, "..", "..");
const CONFIG = ORIGINAL.slice(ORIGINAL.indexOf("[handler]"));
const SERVICES = ["ruby", "typescript"] as const;

describeWith(sendmailTool, "Sendmail: the original's Ruby handlers", () => {
  let site: Site;

  beforeAll(async () => {
    const names = Object.keys(HANDLERS).map((file) => file.replace(/\.rb$/, ".ts"));
    const typescript = await Promise.all(
      names.map(async (file) => [file, await Bun.file(join(ROOT, file.replace("handler/", "handlers/"))).text()]),
    );
    const server = { workers: 1 };
    const eom = HANDLERS["handler/eom.rb"] + CHANGES;
    site = await startSite({
      filters: {
        ruby: { config: CONFIG, server, files: { ...HANDLERS, "handler/eom.rb": eom } },
        typescript: { config: CONFIG.replaceAll(".rb", ".ts"), server, files: Object.fromEntries(typescript) },
      },
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(SERVICES)("%s: mail passes with X-Pmilter: Enable", async (service) => {
    const delivered = await site.deliver({ service, from: "from@example.com", to: "to@example.com" });
    expect(delivered).toMatchObject({ from: "from@example.com", to: [{ address: "to@example.com" }] });
    expect(fieldsOf(delivered)).toEqual([
      ...OWN_FIELDS,
      "Subject: hello",
      "From: <alice@example.test>",
      "X-Pmilter: Enable",
    ]);
  });

  test.each(SERVICES)("%s: spam-from@example.com is rejected", async (service) => {
    const refused = await site.send({ service, from: "spam-from@example.com", to: "to@example.com" });
    expect(outcome(refused)).toBe("mail: 550 5.7.1 <spam-from@example.com>... Command rejected");
  });

  test.each(SERVICES)("%s: the sender is changed and a recipient added", async (service) => {
    const delivered = await site.deliver({ service, from: "change-from@example.com", to: "add-to@example.com" });
    expect(delivered.from).toBe("new-from@example.com");
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(["add-to@example.com", "new-to@example.com"]);
  });

  test("they print the same lines", async () => {
    const [ruby, typescript] = await Promise.all(
      SERVICES.map(async (service) => {
        const pmilter = site.pmilter(service);
        expect(await pmilter.stop()).toBe(0);
        expect(pmilter.log.text).not.toContain("[error]");
        return pmilter.prints.all
          .filter((line) => !/^(?:message_id|reveive_time|client daemon|pmilter: |run at |master exit )/.test(line))
          .filter((line) => !line.startsWith("handler phase name"))
          .map((line) => line.replace(/\r$/, ""));
      }),
    );
    expect(ruby).toEqual(typescript!);
    expect(ruby).toContain('header: {"Subject"=>"hello"}');
  });
});
