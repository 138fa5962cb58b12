/** Every change that a filter may make to a message, seen in what the mail server delivers or keeps afterwards. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool, queueIdOf as postfixQueueId } from "../support/postfix.ts";
import { BODY, type Change, changing, behaviourOf, FIELDS, type HeaderChanges, ORIGINAL, OWN } from "./changes.ts";
import { describeBehindEach } from "./mail-servers.ts";
import { FROM, type MailSite, TO } from "./site.ts";
import { fieldsOf, parts, type Site, startSite, withoutReceived } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(120_000);

const HEADERS: HeaderChanges = {
  "addHeader goes to the end": [
    (message) => {
      message.addHeader("X-New", "1");
      message.addHeader("X-New", "2");
    },
    [OWN, ...FIELDS, "X-New: 1", "X-New: 2"],
  ],
  "addHeader goes to the end if there are others of its name, too": [
    (message) => {
      message.addHeader("X-A", "4");
      message.addHeader("Subject", "two");
      message.addHeader("X-A", "5");
    },
    [OWN, ...FIELDS, "X-A: 4", "Subject: two", "X-A: 5"],
  ],
  "insertHeader at 0 goes above Received, a later one above an earlier": [
    (message) => {
      message.insertHeader(0, "X-First", "1");
      message.insertHeader(0, "X-Second", "2");
    },
    ["X-Second: 2", "X-First: 1", OWN, ...FIELDS],
  ],
  "insertHeader in the middle goes before the header of that index": [
    (message) => message.insertHeader(3, "X-New", "1"),
    [OWN, ...FIELDS.slice(0, 3), "X-New: 1", ...FIELDS.slice(3)],
  ],
  "insertHeader at 1 goes below the first header, not below Received": [
    (message) => message.insertHeader(1, "X-New", "1"),
    [OWN, FIELDS[0]!, "X-New: 1", ...FIELDS.slice(1)],
  ],
  "insertHeader several times in the middle, each in the view of the ones before": [
    (message) => {
      message.insertHeader(2, "X-1", "1");
      message.insertHeader(2, "X-2", "2");
      message.insertHeader(5, "X-3", "3");
      message.insertHeader(8, "X-4", "4");
    },
    [
      OWN,
      ...FIELDS.slice(0, 2),
      "X-2: 2",
      "X-1: 1",
      "X-A: 1",
      "X-3: 3",
      "X-B: 1",
      "X-A: 2",
      "X-4: 4",
      "x-a: 3",
      "X-C:tight",
    ],
  ],
  "insertHeader at the length and far past it goes to the end": [
    (message) => {
      message.insertHeader(7, "X-1", "1");
      message.insertHeader(1000, "X-2", "2");
    },
    [OWN, ...FIELDS, "X-1: 1", "X-2: 2"],
  ],
  "insertHeader counts what was inserted at the top, and not what was deleted": [
    (message) => {
      message.deleteHeader("X-A", 1);
      message.insertHeader(0, "X-Top", "1");
      message.insertHeader(4, "X-New", "2");
    },
    ["X-Top: 1", OWN, ...FIELDS.slice(0, 2), "X-B: 1", "X-New: 2", ...FIELDS.slice(4)],
  ],
  "changeHeader without an index changes the first of that name in any case, which keeps its spelling": [
    (message) => message.changeHeader("x-A", "new"),
    [OWN, ...FIELDS.slice(0, 2), "X-A: new", ...FIELDS.slice(3)],
  ],
  "changeHeader of the second and third": [
    (message) => {
      message.changeHeader("X-A", "two", 2);
      message.changeHeader("x-a", "three", 3);
    },
    [OWN, ...FIELDS.slice(0, 4), "X-A: two", "x-a: three", "X-C:tight"],
  ],
  "changeHeader past the last one, or of a name that is not there, adds": [
    (message) => {
      message.changeHeader("X-A", "four", 4);
      message.changeHeader("X-None", "first");
    },
    [OWN, ...FIELDS, "X-A: four", "X-None: first"],
  ],
  "changeHeader to nothing deletes; past the last one it does nothing": [
    (message) => {
      message.changeHeader("X-A", "", 2);
      message.changeHeader("X-B", "", 2);
    },
    [OWN, ...FIELDS.slice(0, 4), "x-a: 3", "X-C:tight"],
  ],
  "deleteHeader of the nth, counted anew after each": [
    (message) => {
      message.deleteHeader("X-A", 1);
      message.deleteHeader("X-A", 2);
      message.deleteHeader("X-A", 2);
    },
    [OWN, ...FIELDS.slice(0, 2), "X-B: 1", "X-A: 2", "X-C:tight"],
  ],
  "deleteHeader without an index deletes all of the name": [
    (message) => message.deleteHeader("x-A"),
    [OWN, ...FIELDS.slice(0, 2), "X-B: 1", "X-C:tight"],
  ],
  "an inserted header counts for a change of its name, and only the right one changes": [
    (message) => {
      message.insertHeader(0, "X-A", "0");
      message.changeHeader("X-A", "one", 2);
      message.deleteHeader("X-A", 3);
      message.changeHeader("X-A", "zero");
      message.addHeader("X-A", "last");
    },
    ["X-A: zero", OWN, ...FIELDS.slice(0, 2), "X-A: one", "X-B: 1", "x-a: 3", "X-C:tight", "X-A: last"],
  ],
  "all headers deleted and one added: the mail server makes those that a message must have": [
    (message) => {
      for (const { name } of message.headers) message.deleteHeader(name);
      message.addHeader("X-Only", "1");
    },
    // Not From: it was there when Sendmail looked for what it must add.
    [OWN, "X-Only: 1"],
  ],
  "values: folded, CRLF, leading space, percent, 8-bit, long": [
    (message) => {
      message.addHeader("X-Folded", "one\n two\r\n\tthree");
      message.addHeader("X-Space", " lead");
      message.addHeader("X-Percent", "100%d %%");
      message.addHeader("X-Dollar", "$j $&{client_addr} $1 ${x}");
      message.addHeader("X-Text", "grüße");
      message.changeHeader("X-B", "a\n b");
      message.insertHeader(0, "X-Long", "z".repeat(900));
    },
    [
      `X-Long: ${"z".repeat(900)}`,
      OWN,
      ...FIELDS.slice(0, 3),
      "X-B: a\r\n b",
      ...FIELDS.slice(4),
      "X-Folded: one\r\n two\r\n\tthree",
      "X-Space:  lead",
      "X-Percent: 100%d %%",
      "X-Dollar: $j $&{client_addr} $1 ${x}",
      `X-Text: ${Buffer.from("grüße").toString("latin1")}`,
    ],
  ],
};

/** Other changes, by behaviour. */
const OTHERS: Record<string, Change> = {
  sender: (message) => message.changeFrom("<new@example.net>", ["RET=HDRS", "ENVID=id1"]),
  null: (message) => message.changeFrom(""),
  add: (message) => {
    message.addRecipient("<plain@example.net>");
    message.addRecipient("never@example.net", ["NOTIFY=NEVER"]);
  },
  delete: (message) => {
    message.deleteRecipient("b@EXAMPLE.org");
    message.deleteRecipient("<nobody@example.org>");
  },
  readd: (message) => {
    message.deleteRecipient("<a@example.org>");
    message.addRecipient("a@example.org", ["NOTIFY=FAILURE"]);
    message.addRecipient("gone@example.net");
    message.deleteRecipient("gone@example.net");
  },
  small: (message) => message.replaceBody("new\n.dot\n\nend"),
  empty: (message) => message.replaceBody(""),
  edge: (message) => message.replaceBody(`${"x".repeat(1022)}\n`.repeat(128)),
  large: (message) =>
    message.replaceBody("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\r\n".repeat(80_000)),
  binary: (message) => message.replaceBody(new Uint8Array([0xff, 0x80, 0x01, 0x0d, 0x0a, 0xe9, 0x0d, 0x0a])),
  quarantine: (message) => {
    message.addHeader("X-Held", "yes");
    message.quarantine("looks odd, 100%");
  },
  everything: (message) => {
    message.insertHeader(0, "X-Top", "1");
    message.addHeader("X-End", "2");
    message.changeHeader("X-A", "changed", 2);
    message.deleteHeader("X-B");
    message.changeFrom("all@example.net");
    message.addRecipient("more@example.net");
    message.deleteRecipient(message.recipients[0]!.address);
    message.replaceBody("all new\n");
  },
};

describeBehindEach("changes to a message", (server) => {
  const { queueIdOf, withoutOwn } = server;
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({ main: changing(HEADERS, OTHERS) });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(Object.entries(HEADERS))("%s", async (name, [, fields]) => {
    const delivered = await site.deliver({ as: behaviourOf(HEADERS, name), message: ORIGINAL });
    expect(server.fieldsOf(delivered)).toEqual(fields.flatMap((field) => (field === OWN ? server.ownFields : [field])));
    expect(parts(delivered.text).body).toBe(BODY);
    expect(delivered).toMatchObject({ from: FROM, to: [{ address: TO }] });
  });

  test("changeFrom with RET= and ENVID=", async () => {
    const delivered = await site.deliver({ as: "sender", message: ORIGINAL });
    expect(delivered.from).toBe("new@example.net");
    expect(delivered.fromParams).toMatchObject({ RET: "HDRS", ENVID: "id1" });
    expect(withoutOwn(delivered.text)).toBe(ORIGINAL);
  });

  test("changeFrom to the null sender", async () => {
    expect((await site.deliver({ as: "null" })).from).toBe("");
  });

  /** NOTIFY= of each recipient, of all deliveries of the message: Sendmail may make several of it. */
  async function recipientsOf(as: string, to: readonly string[]): Promise<Record<string, string | undefined>> {
    const { last } = await site.send({ as, to });
    await site.delivered(last);
    const recipients = site.deliveriesOf(queueIdOf(last)).flatMap((message) => message.to);
    return Object.fromEntries(recipients.map(({ address, params }) => [address, params["NOTIFY"]]));
  }

  test("addRecipient, with NOTIFY=", async () => {
    expect(await recipientsOf("add", ["a@example.org", "b@example.org"])).toEqual({
      "a@example.org": undefined,
      "b@example.org": undefined,
      "plain@example.net": undefined,
      "never@example.net": "NEVER",
    });
  });

  test("deleteRecipient finds the form that RCPT had, and nobody else", async () => {
    const recipients = await recipientsOf("delete", ["a@example.org", "b@Example.ORG", "bb@example.org"]);
    expect(Object.keys(recipients).sort()).toEqual(["a@example.org", "bb@example.org"]);
  });

  test("a recipient deleted and added again is there, one added and deleted is not", async () => {
    expect(await recipientsOf("readd", ["a@example.org", "b@example.org"])).toEqual({
      // To Sendmail it is the same recipient as before, whose NOTIFY= it adds to.
      "a@example.org": server.name === "Postfix" ? "FAILURE" : "FAILURE,DELAY",
      "b@example.org": undefined,
    });
  });

  test.each([
    ["small", "new\r\n.dot\r\n\r\nend\r\n"],
    ["edge", `${"x".repeat(1022)}\r\n`.repeat(128)],
    ["large", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\r\n".repeat(80_000)],
    ["binary", "\xff\x80\x01\r\n\xe9\r\n"],
    ["empty", ""],
  ])("replaceBody, %s", async (as, body) => {
    const { text } = await site.deliver({ as, message: ORIGINAL, mailParams: "BODY=8BITMIME" });
    expect(withoutOwn(text) === `${FIELDS.join("\r\n")}\r\n\r\n${body}`).toBe(true);
  });

  test("quarantine keeps the message, with its other changes", async () => {
    const id = queueIdOf((await site.send({ as: "quarantine", message: ORIGINAL })).last);
    expect(await site.queueIds()).toContain(id);
    const { content, quarantine, recipients, sender } = await site.kept(id);
    expect({ recipients, sender }).toEqual({ recipients: [TO], sender: FROM });
    // Postfix 3.7 does not write the reason anywhere: it is in our log alone.
    expect(quarantine).toBe(server.name === "Postfix" ? undefined : "looks odd, 100%");
    expect(content).toEndWith(`X-C:tight\nX-Held: yes\n\n${BODY.replaceAll("\r\n", "\n")}`);
    expect(await site.pmilter().log.next(new RegExp(`quarantine: queue_id=${id} `))).toEndWith(
      'reason="looks odd, 100%"',
    );
    expect(site.deliveriesOf(id)).toEqual([]);
  });

  test("all kinds of changes in one message", async () => {
    const { last } = await site.send({ as: "everything", message: ORIGINAL, to: ["a@example.org", "b@example.org"] });
    await site.delivered(last);
    const deliveries = site.deliveriesOf(queueIdOf(last));
    const recipients = deliveries.flatMap(({ to }) => to.map(({ address }) => address));
    expect(recipients.sort()).toEqual(["b@example.org", "more@example.net"]);
    for (const delivered of deliveries) {
      expect(delivered.from).toBe("all@example.net");
      expect(parts(delivered.text).body).toBe("all new\r\n");
      expect(server.fieldsOf(delivered)).toEqual([
        "X-Top: 1",
        ...server.ownFields,
        ...FIELDS.slice(0, 3),
        "X-A: changed",
        "x-a: 3",
        "X-C:tight",
        "X-End: 2",
      ]);
    }
  });
});

describeWith(postfixTool, "changes to a message: what Postfix alone does", () => {
  const LONG = Array.from({ length: 50 }, () => "z".repeat(990));
  const TABLE: HeaderChanges = {
    ...HEADERS,
    "a long header in the middle": [
      (message) => message.insertHeader(2, "X-Long", Array.from({ length: 50 }, () => "z".repeat(990)).join("\n ")),
      [OWN, ...FIELDS.slice(0, 2), `X-Long: ${LONG.join("\r\n ")}`, ...FIELDS.slice(2)],
    ],
  };
  let site: Site;
  beforeAll(async () => {
    const line: Change = (message) => message.replaceBody(new Uint8Array(65_536).fill(120));
    site = await startSite({
      filters: { main: changing(TABLE, { ...OTHERS, line }) },
      postfix: ({ main }) => ({ services: [{ name: "old", milters: main!, options: { milter_protocol: "2" } }] }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(Object.entries(TABLE))("milter_protocol 2: %s", async (name, [, fields]) => {
    const delivered = await site.deliver({ as: behaviourOf(TABLE, name), message: ORIGINAL, service: "old" });
    expect(fieldsOf(delivered)).toEqual(fields.map((field) => (field === OWN ? "RECEIVED" : field)));
    expect(parts(delivered.text).body).toBe(BODY);
    expect(delivered).toMatchObject({ from: FROM, to: [{ address: TO }] });
  });

  test("a line of 64 KB is delivered whole", async () => {
    const { text } = await site.deliver({ as: "line", message: ORIGINAL });
    expect(withoutReceived(text) === `${FIELDS.join("\r\n")}\r\n\r\n${"x".repeat(65_536)}\r\n`).toBe(true);
  });

  test("quarantine is its hold queue", async () => {
    const id = postfixQueueId((await site.send({ as: "quarantine", message: ORIGINAL })).last);
    expect((await site.postfix.queue()).filter((each) => each.id === id)).toMatchObject([{ queue: "hold" }]);
    await site.postfix.waitForLog(new RegExp(`${id}: milter-hold: END-OF-MESSAGE`));
  });

  test("a change that the mail server did not grant fails the handler, and nothing of it is applied", async () => {
    const { log } = site.pmilter();
    const from = log.all.length;
    const { last } = await site.send({ as: "everything", service: "old" });
    expect(last).toMatchObject({ code: 451 });
    expect(await log.next(/handler failed/, { from })).toContain(
      "UsageError: changeFrom needs the action CHGFROM, which the mail server did not grant",
    );
  });
});
