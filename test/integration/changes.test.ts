/** Every change that a filter may make to a message, seen in what Postfix delivers or holds afterwards. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import type { Message } from "../../src/handler/types.ts";
import { describeWith } from "../support/available.ts";
import { postfixTool, queueIdOf } from "../support/postfix.ts";
import type { SinkRecipient } from "../support/smtp-sink.ts";
import { fieldsOf, FROM, oneFilter, parts, type Site, startSite, TO, withoutReceived } from "./support.ts";

// A busy machine starts a Postfix and several servers slowly.
setDefaultTimeout(30_000);

const FIELDS = ["Subject: s", "X-A: 1", "X-B: 1", "X-A: 2", "x-a: 3", "X-C:tight"];
const BODY = "one\r\n\r\n.two\r\n";
const ORIGINAL = `${FIELDS.join("\r\n")}\r\n\r\n${BODY}`;

type Change = (message: Message<"eom">) => void;

/** Changes of headers, and the fields as delivered; RECEIVED is Postfix's own. */
const HEADERS: Record<string, readonly [change: Change, delivered: readonly string[]]> = {
  "addHeader goes to the end": [
    (message) => {
      message.addHeader("X-New", "1");
      message.addHeader("X-New", "2");
    },
    ["RECEIVED", ...FIELDS, "X-New: 1", "X-New: 2"],
  ],
  "insertHeader at 0 goes above Received, a later one above an earlier": [
    (message) => {
      message.insertHeader(0, "X-First", "1");
      message.insertHeader(0, "X-Second", "2");
    },
    ["X-Second: 2", "X-First: 1", "RECEIVED", ...FIELDS],
  ],
  "insertHeader in the middle goes before the header of that index": [
    (message) => message.insertHeader(2, "X-New", "1"),
    ["RECEIVED", ...FIELDS.slice(0, 2), "X-New: 1", ...FIELDS.slice(2)],
  ],
  "insertHeader at 1 goes below the first header, not below Received": [
    (message) => message.insertHeader(1, "X-New", "1"),
    ["RECEIVED", "Subject: s", "X-New: 1", ...FIELDS.slice(1)],
  ],
  "insertHeader several times in the middle, each in the view of the ones before": [
    (message) => {
      message.insertHeader(1, "X-1", "1");
      message.insertHeader(1, "X-2", "2");
      message.insertHeader(4, "X-3", "3");
      message.insertHeader(7, "X-4", "4");
    },
    [
      "RECEIVED",
      "Subject: s",
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
      message.insertHeader(6, "X-1", "1");
      message.insertHeader(1000, "X-2", "2");
    },
    ["RECEIVED", ...FIELDS, "X-1: 1", "X-2: 2"],
  ],
  "insertHeader counts what was inserted at the top, and not what was deleted": [
    (message) => {
      message.deleteHeader("X-A", 1);
      message.insertHeader(0, "X-Top", "1");
      message.insertHeader(3, "X-New", "2");
    },
    ["X-Top: 1", "RECEIVED", "Subject: s", "X-B: 1", "X-New: 2", "X-A: 2", "x-a: 3", "X-C:tight"],
  ],
  "changeHeader without an index changes the first of that name in any case, which keeps its spelling": [
    (message) => message.changeHeader("x-A", "new"),
    ["RECEIVED", "Subject: s", "X-A: new", ...FIELDS.slice(2)],
  ],
  "changeHeader of the second and third": [
    (message) => {
      message.changeHeader("X-A", "two", 2);
      message.changeHeader("x-a", "three", 3);
    },
    ["RECEIVED", "Subject: s", "X-A: 1", "X-B: 1", "X-A: two", "x-a: three", "X-C:tight"],
  ],
  "changeHeader past the last one, or of a name that is not there, adds": [
    (message) => {
      message.changeHeader("X-A", "four", 4);
      message.changeHeader("X-None", "first");
    },
    ["RECEIVED", ...FIELDS, "X-A: four", "X-None: first"],
  ],
  "changeHeader to nothing deletes; past the last one it does nothing": [
    (message) => {
      message.changeHeader("X-A", "", 2);
      message.changeHeader("X-B", "", 2);
    },
    ["RECEIVED", "Subject: s", "X-A: 1", "X-B: 1", "x-a: 3", "X-C:tight"],
  ],
  "deleteHeader of the nth, counted anew after each": [
    (message) => {
      message.deleteHeader("X-A", 1);
      message.deleteHeader("X-A", 2);
      message.deleteHeader("X-A", 2);
    },
    ["RECEIVED", "Subject: s", "X-B: 1", "X-A: 2", "X-C:tight"],
  ],
  "deleteHeader without an index deletes all of the name": [
    (message) => message.deleteHeader("x-A"),
    ["RECEIVED", "Subject: s", "X-B: 1", "X-C:tight"],
  ],
  "an inserted header counts for a change of its name, and only the right one changes": [
    (message) => {
      message.insertHeader(0, "X-A", "0");
      message.changeHeader("X-A", "one", 2);
      message.deleteHeader("X-A", 3);
      message.changeHeader("X-A", "zero");
      message.addHeader("X-A", "last");
    },
    ["X-A: zero", "RECEIVED", "Subject: s", "X-A: one", "X-B: 1", "x-a: 3", "X-C:tight", "X-A: last"],
  ],
  "all headers deleted and one added": [
    (message) => {
      for (const { name } of message.headers) message.deleteHeader(name);
      message.addHeader("X-Only", "1");
    },
    ["RECEIVED", "X-Only: 1"],
  ],
  "values: folded, CRLF, leading space, percent, 8-bit, long": [
    (message) => {
      message.addHeader("X-Folded", "one\n two\r\n\tthree");
      message.addHeader("X-Space", " lead");
      message.addHeader("X-Percent", "100%d %%");
      message.addHeader("X-Text", "grüße");
      message.changeHeader("X-B", "a\n b");
      message.insertHeader(1, "X-Long", "z".repeat(50_000));
    },
    [
      "RECEIVED",
      "Subject: s",
      `X-Long: ${"z".repeat(50_000)}`,
      "X-A: 1",
      "X-B: a\r\n b",
      ...FIELDS.slice(3),
      "X-Folded: one\r\n two\r\n\tthree",
      "X-Space:  lead",
      "X-Percent: 100%d %%",
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
  edge: (message) => message.replaceBody(new Uint8Array(65_536).fill(120)),
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

const NAMES = new Map(Object.keys(HEADERS).map((name, index) => [name, `headers-${index}`]));

/** A filter that makes the change, given by its source, that the client's name says. */
function changing(changes: readonly (readonly [name: string, change: Change])[]): string {
  return `const changes = {\n${changes.map(([name, change]) => `${JSON.stringify(name)}: ${change}`).join(",\n")}\n};
export default {
  eom: (session) => changes[session.client.hostname.split(".")[0]]?.(session.message),
};
`;
}
const FILTER = changing([
  ...Object.entries(HEADERS).map(([name, [change]]) => [NAMES.get(name)!, change] as const),
  ...Object.entries(OTHERS),
]);

describeWith(postfixTool, "changes to a message", () => {
  let site: Site;
  beforeAll(async () => {
    site = await startSite({
      filters: { main: oneFilter(FILTER) },
      postfix: ({ main }) => ({
        services: [{ name: "old", milters: main!, options: { milter_protocol: "2" } }],
      }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  test.each(Object.entries(HEADERS))("%s", async (name, [, fields]) => {
    for (const service of ["main", "old"]) {
      const delivered = await site.deliver({ as: NAMES.get(name)!, message: ORIGINAL, service });
      expect(fieldsOf(delivered)).toEqual([...fields]);
      expect(parts(delivered.text).body).toBe(BODY);
      expect(delivered).toMatchObject({ from: FROM, to: [{ address: TO }] });
    }
  });

  test("changeFrom with RET= and ENVID=", async () => {
    const delivered = await site.deliver({ as: "sender", message: ORIGINAL });
    expect(delivered.from).toBe("new@example.net");
    expect(delivered.fromParams).toMatchObject({ RET: "HDRS", ENVID: "id1" });
    expect(withoutReceived(delivered.text)).toBe(ORIGINAL);
  });

  test("changeFrom to the null sender", async () => {
    expect((await site.deliver({ as: "null" })).from).toBe("");
  });

  test("addRecipient, with NOTIFY=", async () => {
    const { to } = await site.deliver({ as: "add", to: ["a@example.org", "b@example.org"] });
    expect(notifyOf(to)).toEqual({
      "a@example.org": undefined,
      "b@example.org": undefined,
      "plain@example.net": undefined,
      "never@example.net": "NEVER",
    });
  });

  test("deleteRecipient finds the form that RCPT had, and nobody else", async () => {
    const { to } = await site.deliver({ as: "delete", to: ["a@example.org", "b@Example.ORG", "bb@example.org"] });
    expect(to.map(({ address }) => address).sort()).toEqual(["a@example.org", "bb@example.org"]);
  });

  test("a recipient deleted and added again is there, one added and deleted is not", async () => {
    const { to } = await site.deliver({ as: "readd", to: ["a@example.org", "b@example.org"] });
    expect(notifyOf(to)).toEqual({ "a@example.org": "FAILURE", "b@example.org": undefined });
  });

  test.each([
    ["small", "new\r\n.dot\r\n\r\nend\r\n"],
    ["edge", `${"x".repeat(65_536)}\r\n`],
    ["large", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde\r\n".repeat(80_000)],
    ["binary", "\xff\x80\x01\r\n\xe9\r\n"],
  ])("replaceBody, %s", async (as, body) => {
    const { text } = await site.deliver({ as, message: ORIGINAL, mailParams: "BODY=8BITMIME" });
    expect(withoutReceived(text) === `${FIELDS.join("\r\n")}\r\n\r\n${body}`).toBe(true);
  });

  test("replaceBody by nothing", async () => {
    const { text } = await site.deliver({ as: "empty", message: ORIGINAL });
    expect(withoutReceived(text)).toBe(`${FIELDS.join("\r\n")}\r\n\r\n`);
  });

  test("quarantine holds the message, with its other changes", async () => {
    const { last } = await site.send({ as: "quarantine", message: ORIGINAL });
    const id = queueIdOf(last);
    expect((await site.postfix.queue()).filter((each) => each.id === id)).toMatchObject([{ queue: "hold" }]);
    const held = await site.postfix.heldMessage(id);
    expect(held).toMatchObject({ sender: FROM, recipients: [TO] });
    expect(held.content).toContain("X-C:tight\nX-Held: yes\n\none\n");
    // The reason is in our log alone: Postfix 3.7 does not write it anywhere.
    await site.postfix.waitForLog(new RegExp(`${id}: milter-hold: END-OF-MESSAGE`));
    expect(await site.pmilter().log.next(new RegExp(`quarantine: queue_id=${id} `))).toEndWith(
      'reason="looks odd, 100%"',
    );
    expect(site.deliveriesOf(id)).toEqual([]);
  });

  test("all kinds of changes in one message", async () => {
    const delivered = await site.deliver({
      as: "everything",
      message: ORIGINAL,
      to: ["a@example.org", "b@example.org"],
    });
    expect(delivered.from).toBe("all@example.net");
    expect(delivered.to.map(({ address }) => address).sort()).toEqual(["b@example.org", "more@example.net"]);
    const fields = ["X-Top: 1", "RECEIVED", "Subject: s", "X-A: 1", "X-A: changed", "x-a: 3", "X-C:tight", "X-End: 2"];
    expect(fieldsOf(delivered)).toEqual(fields);
    expect(parts(delivered.text).body).toBe("all new\r\n");
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

function notifyOf(recipients: readonly SinkRecipient[]): Record<string, string | undefined> {
  return Object.fromEntries(recipients.map(({ address, params }) => [address, params["NOTIFY"]]));
}
