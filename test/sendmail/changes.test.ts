/** Changes to a message that Sendmail takes in its own way, seen in what it delivers or keeps afterwards. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { behaviourOf, BODY, changing, FIELDS, type HeaderChanges, ORIGINAL } from "../integration/changes.ts";
import { TO } from "../integration/site.ts";
import { describeWith } from "../support/available.ts";
import { queueIdOf, sendmailTool } from "../support/sendmail.ts";
import { fieldsOf, type Site, startSite } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(120_000);

const DATED = ["Date: Mon, 23 Nov 2026 00:00:00 +0000", "Message-Id: <own@example.test>"];

/** With a message that has a Date and a Message-Id of its own. */
const DATED_HEADERS: HeaderChanges = {
  "a Date of the client's and one that is added are two": [
    (message) => message.addHeader("Date", "Mon, 23 Nov 2026 01:02:03 +0000"),
    ["RECEIVED", ...DATED, ...FIELDS, "Date: Mon, 23 Nov 2026 01:02:03 +0000"],
  ],
  "changeHeader of what Sendmail has a place for": [
    (message) => {
      message.changeHeader("date", "Mon, 23 Nov 2026 01:02:03 +0000");
      message.changeHeader("From", "<changed@example.test>");
    },
    [
      "RECEIVED",
      "Date: Mon, 23 Nov 2026 01:02:03 +0000",
      DATED[1]!,
      "From: <changed@example.test>",
      ...FIELDS.slice(1),
    ],
  ],
  "a Date deleted and added again is at the end": [
    (message) => {
      message.deleteHeader("Date");
      message.addHeader("Date", "Mon, 23 Nov 2026 01:02:03 +0000");
      message.insertHeader(3, "X-Middle", "1");
    },
    [
      "RECEIVED",
      DATED[1]!,
      ...FIELDS.slice(0, 2),
      "X-Middle: 1",
      ...FIELDS.slice(2),
      "Date: Mon, 23 Nov 2026 01:02:03 +0000",
    ],
  ],
};

const UNDATED_HEADERS: HeaderChanges = {
  "addHeader of what Sendmail would make itself replaces that": [
    (message) => {
      message.addHeader("Date", "Mon, 23 Nov 2026 01:02:03 +0000");
      message.addHeader("Message-Id", "<added@example.test>");
    },
    ["RECEIVED", "Date: Mon, 23 Nov 2026 01:02:03 +0000", "Message-Id: <added@example.test>", ...FIELDS],
  ],
};
const HEADERS = { ...DATED_HEADERS, ...UNDATED_HEADERS };

describeWith(sendmailTool, "changes to a message: what Sendmail alone does", () => {
  let site: Site;
  beforeAll(async () => {
    const filter = changing(HEADERS, {
      none: (message) => {
        for (const { address } of message.recipients) message.deleteRecipient(address);
      },
      sender: (message) => message.changeFrom("all@example.net"),
    });
    site = await startSite({ filters: { main: filter } });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(Object.entries(HEADERS))("%s", async (name, [, fields]) => {
    const own = name in DATED_HEADERS ? DATED : [];
    const message = `${[...own, ...FIELDS].join("\r\n")}\r\n\r\n${BODY}`;
    expect(fieldsOf(await site.deliver({ as: behaviourOf(HEADERS, name), message }))).toEqual([...fields]);
  });

  test("changeFrom without arguments keeps those of MAIL", async () => {
    const delivered = await site.deliver({ as: "sender", message: ORIGINAL, mailParams: "RET=HDRS ENVID=e1" });
    expect(delivered.fromParams).toMatchObject({ RET: "HDRS", ENVID: "e1" });
  });

  test("all recipients deleted: the message goes nowhere", async () => {
    const id = queueIdOf((await site.send({ as: "none", to: [TO, "c@example.org"] })).last);
    expect(site.deliveriesOf(id)).toEqual([]);
    expect(await site.sendmail.queue()).not.toContain(id);
  });
});
