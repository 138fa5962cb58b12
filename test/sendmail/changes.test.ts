/** Every change that a filter may make to a message, seen in what Sendmail delivers or keeps afterwards. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Message } from "../../src/handler/types.ts";
import { FROM, oneFilter, parts, TO } from "../integration/support.ts";
import { describeWith } from "../support/available.ts";
import { queueIdOf, sendmailTool } from "../support/sendmail.ts";
import type { SinkRecipient } from "../support/smtp-sink.ts";
import { fieldsOf, OWN_FIELDS, type Site, startSite, withoutOwn } from "./support.ts";

// A busy machine starts several servers slowly.
setDefaultTimeout(30_000);

const FIELDS = ["From: <alice@example.test>", "Subject: s", "X-A: 1", "X-B: 1", "X-A: 2", "x-a: 3", "X-C:tight"];
const BODY = "one\r\n\r\n.two\r\n";
const ORIGINAL = `${FIELDS.join("\r\n")}\r\n\r\n${BODY}`;
const DATED = ["Date: Mon, 23 Nov 2026 00:00:00 +0000", "Message-Id: <own@example.test>"];

type Change = (message: Message<"eom">) => void;

/** Changes of headers, and the fields as delivered; those that Sendmail makes are words. */
const HEADERS: Record<string, readonly [change: Change, delivered: readonly string[]]> = {
  "addHeader goes to the end": [
    (message) => {
      message.addHeader("X-New", "1");
      message.addHeader("X-New", "2");
    },
    [...OWN_FIELDS, ...FIELDS, "X-New: 1", "X-New: 2"],
  ],
  "addHeader goes to the end if there are others of its name, too": [
    (message) => {
      message.addHeader("X-A", "4");
      message.addHeader("Subject", "two");
      message.addHeader("X-A", "5");
    },
    [...OWN_FIELDS, ...FIELDS, "X-A: 4", "Subject: two", "X-A: 5"],
  ],
  "insertHeader at 0 goes above Received, a later one above an earlier": [
    (message) => {
      message.insertHeader(0, "X-First", "1");
      message.insertHeader(0, "X-Second", "2");
    },
    ["X-Second: 2", "X-First: 1", ...OWN_FIELDS, ...FIELDS],
  ],
  "insertHeader in the middle goes before the header of that index": [
    (message) => message.insertHeader(3, "X-New", "1"),
    [...OWN_FIELDS, ...FIELDS.slice(0, 3), "X-New: 1", ...FIELDS.slice(3)],
  ],
  "insertHeader at 1 goes below the first header, not below Received": [
    (message) => message.insertHeader(1, "X-New", "1"),
    [...OWN_FIELDS, FIELDS[0]!, "X-New: 1", ...FIELDS.slice(1)],
  ],
  "insertHeader several times in the middle, each in the view of the ones before": [
    (message) => {
      message.insertHeader(2, "X-1", "1");
      message.insertHeader(2, "X-2", "2");
      message.insertHeader(5, "X-3", "3");
      message.insertHeader(8, "X-4", "4");
    },
    [
      ...OWN_FIELDS,
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
    [...OWN_FIELDS, ...FIELDS, "X-1: 1", "X-2: 2"],
  ],
  "insertHeader counts what was inserted at the top, and not what was deleted": [
    (message) => {
      message.deleteHeader("X-A", 1);
      message.insertHeader(0, "X-Top", "1");
      message.insertHeader(4, "X-New", "2");
    },
    ["X-Top: 1", ...OWN_FIELDS, ...FIELDS.slice(0, 2), "X-B: 1", "X-New: 2", ...FIELDS.slice(4)],
  ],
  "changeHeader without an index changes the first of that name in any case, which keeps its spelling": [
    (message) => message.changeHeader("x-A", "new"),
    [...OWN_FIELDS, ...FIELDS.slice(0, 2), "X-A: new", ...FIELDS.slice(3)],
  ],
  "changeHeader of the second and third": [
    (message) => {
      message.changeHeader("X-A", "two", 2);
      message.changeHeader("x-a", "three", 3);
    },
    [...OWN_FIELDS, ...FIELDS.slice(0, 4), "X-A: two", "x-a: three", "X-C:tight"],
  ],
  "changeHeader past the last one, or of a name that is not there, adds": [
    (message) => {
      message.changeHeader("X-A", "four", 4);
      message.changeHeader("X-None", "first");
    },
    [...OWN_FIELDS, ...FIELDS, "X-A: four", "X-None: first"],
  ],
  "changeHeader to nothing deletes; past the last one it does nothing": [
    (message) => {
      message.changeHeader("X-A", "", 2);
      message.changeHeader("X-B", "", 2);
    },
    [...OWN_FIELDS, ...FIELDS.slice(0, 4), "x-a: 3", "X-C:tight"],
  ],
  "deleteHeader of the nth, counted anew after each": [
    (message) => {
      message.deleteHeader("X-A", 1);
      message.deleteHeader("X-A", 2);
      message.deleteHeader("X-A", 2);
    },
    [...OWN_FIELDS, ...FIELDS.slice(0, 2), "X-B: 1", "X-A: 2", "X-C:tight"],
  ],
  "deleteHeader without an index deletes all of the name": [
    (message) => message.deleteHeader("x-A"),
    [...OWN_FIELDS, ...FIELDS.slice(0, 2), "X-B: 1", "X-C:tight"],
  ],
  "an inserted header counts for a change of its name, and only the right one changes": [
    (message) => {
      message.insertHeader(0, "X-A", "0");
      message.changeHeader("X-A", "one", 2);
      message.deleteHeader("X-A", 3);
      message.changeHeader("X-A", "zero");
      message.addHeader("X-A", "last");
    },
    ["X-A: zero", ...OWN_FIELDS, ...FIELDS.slice(0, 2), "X-A: one", "X-B: 1", "x-a: 3", "X-C:tight", "X-A: last"],
  ],
  "all headers deleted and one added: Sendmail makes those that a message must have": [
    (message) => {
      for (const { name } of message.headers) message.deleteHeader(name);
      message.addHeader("X-Only", "1");
    },
    // Not From: it was there when Sendmail looked for what it must add.
    [...OWN_FIELDS, "X-Only: 1"],
  ],
  "addHeader of what Sendmail would make itself replaces that": [
    (message) => {
      message.addHeader("Date", "Mon, 23 Nov 2026 01:02:03 +0000");
      message.addHeader("Message-Id", "<added@example.test>");
    },
    ["RECEIVED", "Date: Mon, 23 Nov 2026 01:02:03 +0000", "Message-Id: <added@example.test>", ...FIELDS],
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
      ...OWN_FIELDS,
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

/** The same with a message that has a Date and a Message-Id of its own. */
const DATED_HEADERS: Record<string, readonly [change: Change, delivered: readonly string[]]> = {
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
  none: (message) => {
    for (const { address } of message.recipients) message.deleteRecipient(address);
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

const NAMES = new Map(
  [...Object.keys(HEADERS), ...Object.keys(DATED_HEADERS)].map((name, index) => [name, `headers-${index}`]),
);

/** A filter that makes the change, given by its source, that the client's name says. */
function changing(changes: readonly (readonly [name: string, change: Change])[]): string {
  return `const changes = {\n${changes.map(([name, change]) => `${JSON.stringify(name)}: ${change}`).join(",\n")}\n};
export default {
  eom: (session) => changes[session.client.hostname.split(".")[0]]?.(session.message),
};
`;
}
const FILTER = changing([
  ...Object.entries({ ...HEADERS, ...DATED_HEADERS }).map(([name, [change]]) => [NAMES.get(name)!, change] as const),
  ...Object.entries(OTHERS),
]);

describeWith(sendmailTool, "Sendmail: changes to a message", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({ filters: { main: oneFilter(FILTER) } });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(Object.entries(HEADERS))("%s", async (name, [, fields]) => {
    const delivered = await site.deliver({ as: NAMES.get(name)!, message: ORIGINAL });
    expect(fieldsOf(delivered)).toEqual([...fields]);
    expect(parts(delivered.text).body).toBe(BODY);
    expect(delivered).toMatchObject({ from: FROM, to: [{ address: TO }] });
  });

  test.each(Object.entries(DATED_HEADERS))("%s", async (name, [, fields]) => {
    const message = `${[...DATED, ...FIELDS].join("\r\n")}\r\n\r\n${BODY}`;
    expect(fieldsOf(await site.deliver({ as: NAMES.get(name)!, message }))).toEqual([...fields]);
  });

  test("changeFrom with RET= and ENVID=", async () => {
    const delivered = await site.deliver({ as: "sender", message: ORIGINAL });
    expect(delivered.from).toBe("new@example.net");
    expect(delivered.fromParams).toMatchObject({ RET: "HDRS", ENVID: "id1" });
    expect(withoutOwn(delivered.text)).toBe(ORIGINAL);
  });

  test("changeFrom without arguments keeps those of MAIL", async () => {
    const delivered = await site.deliver({ as: "everything", message: ORIGINAL, mailParams: "RET=HDRS ENVID=e1" });
    expect(delivered.fromParams).toMatchObject({ RET: "HDRS", ENVID: "e1" });
  });

  test("changeFrom to the null sender", async () => {
    expect((await site.deliver({ as: "null" })).from).toBe("");
  });

  test("addRecipient, with NOTIFY=", async () => {
    const { last } = await site.send({ as: "add", to: ["a@example.org", "b@example.org"] });
    expect(recipientsOf(last)).toEqual({
      "a@example.org": undefined,
      "b@example.org": undefined,
      "plain@example.net": undefined,
      "never@example.net": "NEVER",
    });
  });

  test("deleteRecipient finds the form that RCPT had, and nobody else", async () => {
    const { last } = await site.send({ as: "delete", to: ["a@example.org", "b@Example.ORG", "bb@example.org"] });
    expect(Object.keys(recipientsOf(last)).sort()).toEqual(["a@example.org", "bb@example.org"]);
  });

  test("all recipients deleted: the message goes nowhere", async () => {
    const id = queueIdOf((await site.send({ as: "none", to: [TO, "c@example.org"] })).last);
    expect(site.deliveriesOf(id)).toEqual([]);
    expect(await site.sendmail.queue()).not.toContain(id);
  });

  test("a recipient deleted and added again is there, one added and deleted is not", async () => {
    const { last } = await site.send({ as: "readd", to: ["a@example.org", "b@example.org"] });
    // To Sendmail it is the same recipient as before, whose NOTIFY= it adds to.
    expect(recipientsOf(last)).toEqual({ "a@example.org": "FAILURE,DELAY", "b@example.org": undefined });
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

  test("quarantine keeps the message in the queue, with its reason and its other changes", async () => {
    const { last } = await site.send({ as: "quarantine", message: ORIGINAL });
    const id = queueIdOf(last);
    const kept = await site.sendmail.queued(id);
    expect(kept).toMatchObject({ sender: FROM, recipients: [TO], quarantine: "looks odd, 100%" });
    expect(kept.headers.slice(-2)).toEqual(["X-C:tight", "X-Held: yes"]);
    expect(kept.body).toBe(BODY.replaceAll("\r\n", "\n"));
    expect(await site.pmilter().log.next(new RegExp(`quarantine: queue_id=${id} `))).toEndWith(
      'reason="looks odd, 100%"',
    );
    expect(site.deliveriesOf(id)).toEqual([]);
  });

  test("all kinds of changes in one message", async () => {
    const to = ["a@example.org", "b@example.org"];
    const { last } = await site.send({ as: "everything", message: ORIGINAL, to });
    expect(Object.keys(recipientsOf(last)).sort()).toEqual(["b@example.org", "more@example.net"]);
    for (const delivered of site.deliveriesOf(queueIdOf(last))) {
      expect(delivered.from).toBe("all@example.net");
      expect(parts(delivered.text).body).toBe("all new\r\n");
      expect(fieldsOf(delivered)).toEqual([
        "X-Top: 1",
        ...OWN_FIELDS,
        ...FIELDS.slice(0, 3),
        "X-A: changed",
        "x-a: 3",
        "X-C:tight",
        "X-End: 2",
      ]);
    }
  });

  /** NOTIFY= of each recipient, of all deliveries of the message: Sendmail may make several of it. */
  function recipientsOf(reply: { readonly text: string }): Record<string, string | undefined> {
    const to: SinkRecipient[] = site.deliveriesOf(queueIdOf(reply)).flatMap((message) => message.to);
    return Object.fromEntries(to.map(({ address, params }) => [address, params["NOTIFY"]]));
  }
});
