/**
 * What a handler writes arrives as it is written, or throws; and what it reads afterwards is what was delivered. Tables of
 * values, spellings of mailboxes and places, through both mail servers: many rows travel in one message.
 */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import type { Reply } from "../support/smtp-client.ts";
import { waitFor } from "../support/temp.ts";
import { describeBehindEach, type MailServer } from "./mail-servers.ts";
import type { MailSite } from "./site.ts";
import { oneFilter, parts, type Site, startSite } from "./support.ts";

// A busy machine starts a mail server and several filters slowly.
setDefaultTimeout(60_000);

/** Runs the code that the header X-Do brings, and tells in X-Seen what the message is to the handler after it. */
const RUNS = oneFilter(`
const decode = (text) => Buffer.from(text.replace(/\\s/g, ""), "base64").toString();
const read = ({ sender, recipients }, body) => ({
  sender: sender.address,
  recipients: recipients.map((one) => one.address),
  body: Buffer.from(body).toString("latin1").slice(0, 2000),
});
export default {
  collectBody: true,
  eom({ message }) {
    const code = message.headers.get("X-Do");
    if (code === undefined) return;
    message.deleteHeader("X-Do");
    const thrown = [];
    const attempt = (name, change) => {
      try {
        change();
      } catch (error) {
        if (error.code !== "PMILTER_ERR_ARGUMENT") throw error;
        thrown.push(name);
      }
    };
    new Function("message", "attempt", "body", decode(code))(message, attempt, message.body());
    const headers = [...message.headers].map(({ name, value }) => [name, value.slice(0, 200)]);
    const seen = { ...read(message, message.body()), headers, thrown };
    message.addHeader("X-Seen", Buffer.from(JSON.stringify(seen)).toString("base64").match(/.{1,76}/g).join("\\n "));
  },
};
`);

interface Seen {
  readonly sender: string;
  readonly recipients: readonly string[];
  readonly body: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly thrown: readonly string[];
}

interface Sent {
  readonly seen: Seen;
  /** To all, sorted; Sendmail may make several deliveries of a message. */
  readonly recipients: readonly string[];
  readonly from: string;
  /** As delivered, without the mail server's own and without X-Seen, lines separated by LF. */
  readonly fields: readonly string[];
  /** The names of all of them but X-Seen, with the mail server's own as the word RECEIVED. */
  readonly order: readonly string[];
  readonly body: string;
}

interface Message {
  /** As in RCPT TO, brackets included. Those that the mail server refuses are left out. */
  readonly recipients?: readonly string[];
  readonly sender?: string;
  readonly fields?: readonly string[];
  readonly body?: string;
  readonly service?: string;
}

const DATE = "Date: Mon, 23 Nov 2026 00:00:00 +0000";

/** Sends a message whose handler runs `code`; @returns what the handler saw, and what arrived. */
async function run(
  server: MailServer,
  site: MailSite,
  code: string,
  { recipients = ["<bob@example.org>"], sender = "<alice@example.test>", ...message }: Message = {},
): Promise<Sent> {
  await using client = await site.connect(undefined, message.service === undefined ? {} : { service: message.service });
  const mail = await client.command(`MAIL FROM:${sender}${server.name === "Postfix" ? " SMTPUTF8" : ""} BODY=8BITMIME`);
  expect(mail).toMatchObject({ code: 250 });
  for (const recipient of recipients) await client.command(`RCPT TO:${recipient}`);
  const encoded = Buffer.from(code)
    .toString("base64")
    .match(/.{1,76}/g)!
    .join("\r\n ");
  const fields = [
    "From: <alice@example.test>",
    DATE,
    "Message-Id: <1@example.test>",
    ...(message.fields ?? []),
    `X-Do: ${encoded}`,
  ];
  const reply: Reply = await client.data(
    Buffer.from(`${fields.join("\r\n")}\r\n\r\n${message.body ?? "body\r\n"}`, "latin1"),
  );
  expect(reply).toMatchObject({ code: 250 });
  await site.delivered(reply);
  const id = server.queueIdOf(reply);
  const deliveries = site.deliveriesOf(id);
  const text = deliveries[0]!.text.replace(/\r\nX-Seen:((?:.|\r\n[ \t])*)/, "");
  const encodedSeen = /\r\nX-Seen:((?:.|\r\n[ \t])*)/.exec(deliveries[0]!.text)![1]!;
  const { fields: delivered, body } = parts(text);
  const isOwn = (field: string): boolean => /^Received: from .*\r\n\tby mx\./.test(field);
  return {
    order: delivered.map((field) => (isOwn(field) ? "RECEIVED" : field.slice(0, field.indexOf(":")))),
    seen: JSON.parse(Buffer.from(encodedSeen, "base64").toString()) as Seen,
    recipients: deliveries.flatMap(({ to }) => to.map(({ address }) => address)).sort(),
    from: deliveries[0]!.from,
    fields: delivered.filter((field) => !isOwn(field)).map((field) => field.replaceAll("\r\n", "\n")),
    body,
  };
}

/** A field as the view has it: decoded, without the one space that follows the colon. */
function viewed(field: string): [string, string] {
  const colon = field.indexOf(":");
  return [
    field.slice(0, colon),
    Buffer.from(field.slice(colon + 1), "latin1")
      .toString()
      .replace(/^ /, ""),
  ];
}

/** Spellings of NAME@example.org: `userINDEX@example.org` for the INDEXth row. Not all are taken by both mail servers. */
const SPELLINGS = [
  "<NAME@example.org>",
  "NAME@example.org",
  "<@relay.test:NAME@example.org>",
  "<@a.test,@b.test:NAME@example.org>",
  "<@a.test:@b.test:NAME@example.org>",
  "@relay.test:NAME@example.org",
  "<@[192.0.2.9]:NAME@example.org>",
  '<@relay.test:"NAME"@EXAMPLE.org.>',
  '<"NAME"@example.org>',
  '<"\\NAME"@example.org>',
  "<\\NAME@example.org>",
  '<"u"serINDEX@example.org>',
  "<NAME@EXAMPLE.ORG>",
  "<NAME@example.org.>",
  "< NAME@example.org >",
  "<NAME @ example.org>",
  "<NAME(comment)@example.org>",
  "<(a:b)@relay.test:NAME@example.org>",
  "<<NAME@example.org>>",
  "<group:NAME@example.org;>",
  '<NAME@"example.org">',
  "<NAME%example.org>",
  "<example.org!NAME>",
  "<@relay.test:NAME%example.org>",
  "<NAME%example.org@>",
  '<"NAME@example.org">',
  '<"NAME@example.org"@>',
];
/** The spellings that a handler may use, whatever the client used. */
const GIVEN = ["NAME@example.org", "<NAME@EXAMPLE.org.>", "<@other.test:NAME@example.org>", '"NAME"@example.org'];
/** Other mailboxes that only look alike. */
const OTHERS = ["<Name@example.org>", "<NAME@sub.example.org>", '<"NAME x"@example.org>', "<NAME+x@example.org>"];

const IDNA = ["<NAME@bücher.example>", "<NAME@xn--bcher-kva.example>", "<@a.test:NAME@XN--BCHER-KVA.example>"];

describeBehindEach("what is written arrives", (server) => {
  let site: MailSite;
  beforeAll(async () => {
    site = await server.startSite({ main: RUNS, small: { ...RUNS, config: `[limits]\nbody = 1000\n${RUNS.config}` } });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  const named = (spelling: string, index: number): string =>
    spelling.replaceAll("NAME", `user${index}`).replace("INDEX", String(index));

  test.each([...GIVEN, "RAW"])(
    "deleteRecipient(%j) deletes whatever spelling the client chose, and nobody else",
    async (given) => {
      const recipients = [...SPELLINGS.map(named), ...OTHERS.map(named)];
      const code =
        given === "RAW"
          ? `for (const { raw } of message.recipients) if (/ser\\d/.test(raw) && !/(Name|sub\\.|x"?@)/.test(raw)) message.deleteRecipient(raw);`
          : `for (let at = 0; at < ${SPELLINGS.length}; at++) message.deleteRecipient(${JSON.stringify(given)}.replace("NAME", "user" + at));`;
      const { seen, recipients: delivered } = await run(server, site, code, { recipients });
      const kept = OTHERS.map((other, index) => named(other, index).slice(1, -1)).sort();
      expect([...seen.recipients].sort()).toEqual(kept);
      expect(delivered).toEqual(kept);
    },
  );

  test("the mailbox of a recipient is the same in each spelling", async () => {
    const code = `message.addHeader("X-Mailboxes", JSON.stringify(message.recipients.map(({ mailbox, local, domain }) => [mailbox, local + "@" + domain])).replaceAll("],", "],\\n "));`;
    const { fields } = await run(server, site, code, { recipients: SPELLINGS.map(named) });
    const field = fields.find((each) => each.startsWith("X-Mailboxes: "))!;
    const mailboxes = JSON.parse(field.slice("X-Mailboxes: ".length)) as [string, string][];
    // A mail server refuses some spellings.
    expect(mailboxes.length).toBeGreaterThan(15);
    for (const [mailbox, joined] of mailboxes) {
      expect(mailbox).toMatch(/^user\d+@example\.org$/);
      expect(joined).toBe(mailbox);
    }
  });

  test("each spelling is a mailbox that the message has: it is not added again, and deleted and added it is there", async () => {
    const taken = SPELLINGS.map(named);
    const code = `for (let at = 0; at < ${taken.length}; at++) {
      const mailbox = "user" + at + "@example.org";
      if (at % 2 === 1) message.deleteRecipient(mailbox);
      message.addRecipient(mailbox);
      if (at % 3 === 2) message.deleteRecipient('"user' + at + '"@EXAMPLE.org');
    }`;
    const { seen, recipients } = await run(server, site, code, { recipients: ["<bob@example.org>", ...taken] });
    const mailboxes = recipients.map((address) => address.toLowerCase().replaceAll(/["\\]/g, ""));
    const expected = taken.flatMap((_, at) => (at % 3 === 2 ? [] : [`user${at}@example.org`]));
    // What the mail server refused was added where the handler did that; Sendmail counts quotes.
    expect(new Set(mailboxes)).toEqual(new Set(["bob@example.org", ...expected]));
    expect(seen.recipients).toHaveLength(expected.length + 1);
  });

  test.each(["NAME@bücher.example", "NAME@xn--bcher-kva.example", "<@x.test:NAME@BÜCHER.example>"])(
    "deleteRecipient(%j): a domain in its own script and in A-labels is one",
    async (given) => {
      const code = `for (let at = 0; at < 3; at++) message.deleteRecipient(${JSON.stringify(given)}.replace("NAME", "user" + at));`;
      const { seen, recipients } = await run(server, site, code, {
        recipients: ["<bob@example.org>", ...IDNA.map(named)],
      });
      expect(seen.recipients).toEqual(["bob@example.org"]);
      expect(recipients).toEqual(["bob@example.org"]);
    },
  );

  test("an address without a domain is deleted in that spelling", async () => {
    const { seen, recipients } = await run(
      server,
      site,
      `message.recipients.filter(({ raw }) => !/bob/.test(raw)).forEach(({ raw }) => message.deleteRecipient(raw))`,
      {
        recipients: ["<bob@example.org>", "<jane>", "<@a.test:jane>", '<"jane">'],
      },
    );
    expect(seen.recipients).toEqual(["bob@example.org"]);
    expect(recipients).toEqual(["bob@example.org"]);
  });

  /** Mailboxes, and how they may be delivered; Postfix writes them with the quotes that RFC 5321 wants. */
  const ADDRESSES: readonly (readonly [address: string, ...delivered: string[]])[] = [
    ["plain@example.net"],
    ["<brackets@example.net>", "brackets@example.net"],
    ["Case@EXAMPLE.net"],
    ["dot@example.net.", "dot@example.net"],
    ["<@relay.test:route@example.net>", "route@example.net"],
    ['"a b"@example.net'],
    ['"a,b@c"@example.net'],
    ['"q\\"q\\\\"@example.net'],
    ['"quoted"@example.net', '"quoted"@example.net', "quoted@example.net"],
    ["two..dots@example.net", "two..dots@example.net", '"two..dots"@example.net'],
    ["dot.@example.net", "dot.@example.net", '"dot."@example.net'],
    ["o'neil+tag=x%y!z/{}&#$*?^`|~@example.net"],
    ["|pipe@example.net"],
    ["under@exa_mple.net"],
    ["literal@[IPv6:2001:db8::1]"],
    ["a-label@xn--bcher-kva.example"],
    ["jäne@example.net"],
    ["umlaut@bücher.example"],
    [`${"l".repeat(241)}@example.net`],
    [`labels@${"d".repeat(63)}.test`],
  ];
  const utf8 = (text: string): string => Buffer.from(text).toString("latin1");

  test("addRecipient: mailboxes that are taken are delivered as they are read", async () => {
    const code = `for (const address of ${JSON.stringify(ADDRESSES.map(([address]) => address))}) message.addRecipient(address);`;
    const { seen, recipients } = await run(server, site, code);
    const missing = ADDRESSES.filter(([address, ...delivered]) => {
      const expected = delivered.length === 0 ? [address] : delivered;
      return !expected.some((each) => recipients.includes(each) || recipients.includes(utf8(each)));
    });
    expect(missing).toEqual([]);
    expect(recipients).toHaveLength(ADDRESSES.length + 1);
    expect(seen.recipients).toHaveLength(ADDRESSES.length + 1);
  });

  test.each(ADDRESSES.map(([address, ...delivered]) => [address, delivered] as const))(
    "changeFrom(%j)",
    async (address, delivered) => {
      const { from, seen } = await run(server, site, `message.changeFrom(${JSON.stringify(address)})`);
      const expected = delivered.length === 0 ? [address] : delivered;
      expect(expected.flatMap((each) => [each, utf8(each)])).toContain(from);
      expect(expected).toContain(seen.sender);
    },
  );

  test("addresses that a mail server would change throw", async () => {
    const addresses = [
      "a b@example.net",
      "a@example.net,b@example.net",
      "a@example.net, b@example.net",
      "<a@example.net> <b@example.net>",
      "jane",
      "a@b@example.net",
      "a(c)@example.net",
      "a;@example.net",
      "g:a@example.net;",
      '"a"b@example.net',
      "a\\b@example.net",
      "a@[foo]",
      "a@192.0.2.1",
      "a@example..net",
    ];
    const names = addresses.flatMap((address) => [`add ${address}`, `from ${address}`]);
    const code = `for (const address of ${JSON.stringify(addresses)}) {
      attempt("add " + address, () => message.addRecipient(address));
      attempt("from " + address, () => message.changeFrom(address));
    }`;
    const { seen, recipients, from } = await run(server, site, code);
    expect(seen.thrown).toEqual(names);
    expect({ recipients, from }).toEqual({ recipients: ["bob@example.org"], from: "alice@example.test" });
  });

  test("a letter that Sendmail cannot take in an address throws there, and nowhere else", async () => {
    const { seen, recipients } = await run(server, site, 'attempt("Ü", () => message.addRecipient("Ü@example.net"))');
    if (server.name === "Sendmail") expect(seen.thrown).toEqual(["Ü"]);
    else expect(recipients).toHaveLength(2);
  });

  /** What follows `X-n: `. */
  const VALUES: readonly string[] = [
    "plain",
    "",
    " ",
    "  lead",
    "\ttab",
    "trailing ",
    "trailing\t",
    "a\n b",
    "a\n\t b ",
    "\n folded first",
    " \n x",
    "bell\x07 esc\x1b vt\x0b ff\x0c del\x7f \x01",
    "gr\u00fc\u00dfe \u4f8b \u{1f600}",
    "\u0085\u009f\u00a0",
    "bytes \udc80\udcff\udce9",
    '$j $&{client_addr} 100% %s \\ " ( <',
  ];
  /** The same, too long for the header that brings them to the handler: the text that is repeated, and how often. */
  const LONG: readonly (readonly [string, number])[] = [
    ["z", 998],
    ["z", 2030],
    [`\n ${"y".repeat(900)}`, 60],
  ];

  test.each(["addHeader", "insertHeader", "changeHeader"])(
    "%s: values that are taken are delivered byte for byte",
    async (method) => {
      const values = [...VALUES, ...LONG.map(([text, count]) => text.repeat(count))];
      const names = values.map((_, index) => `X-${index}`);
      const call = {
        addHeader: "addHeader(name, value)",
        insertHeader: "insertHeader(5, name, value)",
        changeHeader: 'changeHeader(name, value === "" ? " " : value)',
      }[method];
      const code = `[...${JSON.stringify(VALUES)}, ...${JSON.stringify(LONG)}.map(([text, count]) => text.repeat(count))]
      .forEach((value, index) => { const name = "X-" + index; message.${call}; });`;
      const fields = method === "changeHeader" ? names.map((name) => `${name}: old`) : ["X-A: 1", "X-B: 1", "X-C:  1"];
      const { seen, fields: delivered } = await run(server, site, code, { fields });
      const expected = new Map(
        values.map((value, index) => [`X-${index}`, method === "changeHeader" && value === "" ? " " : value]),
      );
      // A value with white space of its own has it behind the space that stands there.
      for (const [name, value] of expected)
        expect(seen.headers.find((header) => header[0] === name)?.[1], name).toBe(value.slice(0, 200));
      const bytes = ([name, value]: readonly [string, string]): string =>
        `${name}: ${Buffer.from(value.replace(/[\udc80-\udcff]/gu, "")).toString("latin1")}`;
      for (const header of expected) {
        const got = delivered.find((field) => field.startsWith(`${header[0]}:`))!;
        if (/[\udc80-\udcff]/u.test(header[1])) expect(got).toBe(`${header[0]}: bytes \x80\xff\xe9`);
        else expect(got === bytes(header), `${JSON.stringify(got).slice(0, 80)} for ${header[0]}`).toBe(true);
      }
      expect(seen.headers.map(([name]) => name)).toEqual(delivered.map((field) => viewed(field)[0]));
    },
  );

  test("header values and names that a mail server would change throw", async () => {
    const code = `
      const values = { blank: "a\\n \\n b", "blank at the end": "a\\n ", "half a pair": "\\ud800", long: "z".repeat(2040), "a long line": "a\\n" + " ".repeat(2041),
        huge: Array.from({ length: 70 }, () => "y".repeat(900)).join("\\n "), "70,000": "z".repeat(70_000), nul: "a\\0b" };
      for (const [name, value] of Object.entries(values)) {
        attempt(name + " added", () => message.addHeader("X-Odd", value));
        attempt(name + " inserted", () => message.insertHeader(1, "X-Odd", value));
        attempt(name + " changed", () => message.changeHeader("X-A", value));
      }
      attempt("name", () => message.addHeader("X".repeat(201), "1"));
      message.addHeader("Y".repeat(200), "1");`;
    const { seen, fields } = await run(server, site, code, { fields: ["X-A: 1"] });
    expect(seen.thrown).toHaveLength(8 * 3 + 1);
    expect(fields.filter((field) => /^[XY]/.test(field))).toEqual(["X-A: 1", `${"Y".repeat(200)}: 1`]);
  });

  const SPACED = [
    "Subject:x",
    "X-Tab:\tt",
    "X-Two:  two",
    "X-Plain: p",
    "X-Empty:",
    "X-Space: ",
    "X-Fold:\n folded",
    "X-Trail: t ",
    "X-Blank: a\n \n b",
    "X-Last: a\n ",
  ];

  test("reading and writing back changes nothing", async () => {
    const code = `
      for (const { name, value } of message.headers) message.changeHeader(name, value);
      for (const header of message.headers) message.changeHeader(header, header.value);
      message.changeFrom(message.sender.raw, message.sender.params.filter((param) => /^BODY=/.test(param)));
      for (const { address } of message.recipients) {
        message.deleteRecipient(address);
        message.addRecipient(address);
      }
      message.replaceBody(body);`;
    const { fields, from, recipients, body } = await run(server, site, code, {
      fields: SPACED.map((field) => field.replaceAll("\n", "\r\n")),
      body: "a\r\n \r\n\xff\r\n",
    });
    expect(fields.slice(3)).toEqual(SPACED);
    expect({ from, recipients, body }).toEqual({
      from: "alice@example.test",
      recipients: ["bob@example.org"],
      body: "a\r\n \r\n\xff\r\n",
    });
  });

  test("the bytes of the headers are those that the client sent, also where they are no UTF-8", async () => {
    const sent = [...SPACED, "X-Latin: gr\xfc\xdfe \x80\xff", "X-Utf8: \xc3\xbc", "x-tab: second"];
    const code = `
      const encoded = (bytes) => Buffer.from(bytes).toString("base64").match(/.{1,76}/g).join("\\n ");
      const raw = message.rawHeaders({ withReceived: true });
      const fields = [...message.headers].flatMap(({ name, bytes }) => [Buffer.from(name + ":"), bytes, Buffer.from("\\n")]);
      message.addHeader("X-Raw", encoded(raw));
      message.addHeader("X-Fields", encoded(Buffer.concat(fields)));`;
    const { fields } = await run(server, site, code, { fields: sent.map((field) => field.replaceAll("\n", "\r\n")) });
    const read = (name: string): string => {
      const field = fields.find((each) => each.startsWith(`${name}: `))!;
      return Buffer.from(field.slice(name.length + 2).replaceAll("\n ", ""), "base64").toString("latin1");
    };
    const expected = `${["From: <alice@example.test>", DATE, "Message-Id: <1@example.test>", ...sent].join("\n")}\n`;
    expect(read("X-Fields")).toBe(expected);
    const raw =
      /^Received: from \S+ \(\S+ \[127\.0\.0\.1\]\)\r\n\tby mx\.\S+ \(pmilter\) with ESMTP id \w+\r\n\t\(envelope-from <alice@example\.test>\); .* \+0000\r\n/;
    expect(read("X-Raw")).toMatch(raw);
    expect(read("X-Raw").replace(raw, "")).toBe(expected.replaceAll("\n", "\r\n"));
  });

  test("a changed header keeps the white space after its colon, and what its sender did to it", async () => {
    const code =
      'for (const { name, value } of message.headers) if (/^(X-|Subject)/.test(name)) message.changeHeader(name, value.startsWith("a") ? "[l] " + value : value.trim() + "!")';
    const { fields, seen } = await run(server, site, code, {
      fields: SPACED.map((field) => field.replaceAll("\n", "\r\n")),
    });
    const expected = [
      "Subject:x!",
      "X-Tab:\tt!",
      "X-Two:  two!",
      "X-Plain: p!",
      "X-Empty:!",
      "X-Space: !",
      "X-Fold:\n folded!",
      "X-Trail: t!",
      "X-Blank: [l] a\n \n b",
      "X-Last: [l] a\n ",
    ];
    expect(fields.slice(3)).toEqual(expected);
    expect(seen.headers.slice(3)).toEqual(expected.map(viewed));
  });

  /** Names that mail servers treat in their own ways. */
  const SPECIAL = [
    "Return-Path: <old@example.test>",
    "Received: from a by b; Mon, 23 Nov 2026 00:00:00 +0000",
    "Received: from c by d; Mon, 23 Nov 2026 00:00:00 +0000",
    "Sender: <s@example.test>",
    "Reply-To: <r@example.test>",
    "To: <to@example.test>, <bob@example.org>",
    "Cc: <cc@example.test>",
    "Bcc: <bcc@example.test>",
    "Resent-From: <rf@example.test>",
    "Resent-Date: Mon, 23 Nov 2026 00:00:00 +0000",
    "Resent-Message-Id: <2@example.test>",
    "Resent-To: <rt@example.test>",
    "Return-Receipt-To: <rr@example.test>",
    "Errors-To: <e@example.test>",
    "Apparently-To: <at@example.test>",
    "Full-Name: A. B.",
    "Precedence: bulk",
    "Priority: urgent",
    "Content-Length: 5",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
    "MIME-Version: 1.0",
    "Message-Id: <3@example.test>",
    "Subject: one",
    "Subject: two",
    "Delivered-To: bob@example.org",
  ];

  test("headers with a meaning for the mail server arrive as they do without one above them", async () => {
    const [plain, moved] = await Promise.all(
      ["0", 'message.insertBefore(message.headers.at(0), "X-New", "1")'].map((code) =>
        run(server, site, code, { fields: SPECIAL }),
      ),
    );
    expect(moved!.order.slice(0, 2)).toEqual(["RECEIVED", "X-New"]);
    expect(moved!.fields.slice(1)).toEqual([...plain!.fields]);
    expect(moved!.recipients).toEqual([...plain!.recipients]);
  });

  test("headers that are moved for one in the middle stay as they are", async () => {
    const { fields } = await run(server, site, 'message.insertHeader(4, "X-New", "1")', {
      fields: SPACED.map((field) => field.replaceAll("\n", "\r\n")),
    });
    expect(fields.slice(3)).toEqual([SPACED[0]!, "X-New: 1", ...SPACED.slice(1)]);
  });

  /** Around the fields From, Date, Message-Id, A and B; `of(name)` is the header of that name. */
  const BESIDE: readonly (readonly [code: string, order: string])[] = [
    ['message.insertHeader(0, "X", "1")', "X RECEIVED From Date Message-Id A B"],
    ['message.insertBefore(of("From"), "X", "1")', "RECEIVED X From Date Message-Id A B"],
    ['message.insertAfter(of("From"), "X", "1")', "RECEIVED From X Date Message-Id A B"],
    ['message.insertBefore(of("A"), "X", "1")', "RECEIVED From Date Message-Id X A B"],
    ['message.insertAfter(of("B"), "X", "1")', "RECEIVED From Date Message-Id A B X"],
    ['message.addHeader("X", "1"); message.insertBefore(of("X"), "Y", "1")', "RECEIVED From Date Message-Id A B Y X"],
    [
      'message.insertHeader(0, "X", "1"); message.insertAfter(of("X"), "Y", "1")',
      "X Y RECEIVED From Date Message-Id A B",
    ],
    [
      'message.insertHeader(0, "X", "1"); message.insertBefore(of("From"), "Y", "1")',
      "X RECEIVED Y From Date Message-Id A B",
    ],
    [
      'message.insertBefore(of("From"), "X", "1"); message.insertHeader(0, "Y", "1")',
      "Y RECEIVED X From Date Message-Id A B",
    ],
    [
      'message.insertBefore(of("From"), "X", "1"); message.insertBefore(of("From"), "Y", "1")',
      "RECEIVED X Y From Date Message-Id A B",
    ],
    [
      'const a = of("A"); message.deleteHeader(a); message.insertAfter(a, "X", "1"); message.insertBefore(a, "Y", "1")',
      "RECEIVED From Date Message-Id Y X B",
    ],
    [
      'message.deleteHeader(of("From")); message.insertBefore(of("Date"), "From", "<x@example.test>")',
      "RECEIVED From Date Message-Id A B",
    ],
    [
      'const a = of("A"); message.insertBefore(of("From"), "A", "1"); message.changeHeader(a, "2"); message.deleteHeader(of("B"))',
      "RECEIVED A From Date Message-Id A",
    ],
  ];
  test.each(BESIDE)("beside a header: %s", async (code, order) => {
    const {
      fields,
      order: delivered,
      seen,
    } = await run(server, site, `const of = (name) => message.headers.first(name); ${code};`, {
      fields: ["A:a", "B:\tb"],
    });
    expect(delivered.join(" ")).toBe(order);
    expect(seen.headers).toEqual(fields.map(viewed));
    for (const field of ["A:a", "B:\tb"]) {
      if (order.includes(field[0]!) && !code.includes("changeHeader") && !code.includes("deleteHeader(a)"))
        expect(fields).toContain(field);
    }
  });

  test.each([
    ['"a\\nb\\r\\nc\\rd\\r\\n"', "a\r\nb\r\nc\r\nd\r\n"],
    ['Buffer.from("a\\nb\\r\\nc\\n")', "a\r\nb\r\nc\r\n"],
    ['Buffer.from("\\n\\n")', "\r\n\r\n"],
    [
      'Buffer.from("nul \\0 cr \\r dot\\r\\n.\\r\\n..\\r\\nFrom x\\r\\n \\r\\n\\x80\\xff\\xe9\\r\\n", "latin1")',
      "nul \0 cr \r dot\r\n.\r\n..\r\nFrom x\r\n \r\n\x80\xff\xe9\r\n",
    ],
    ['"z".repeat(2040) + "\\n"', `${"z".repeat(2040)}\r\n`],
  ])("replaceBody(%s)", async (body, expected) => {
    const { seen, body: delivered } = await run(server, site, `message.replaceBody(${body})`);
    expect(delivered === expected, JSON.stringify(delivered).slice(0, 200)).toBe(true);
    expect(seen.body === expected.slice(0, 2000)).toBe(true);
  });

  test("a body that is too large to collect is refused for good, and the session goes on", async () => {
    await using client = await site.connect(undefined, { service: "small" });
    for (const [size, code] of [
      [1001, 552],
      [1000, 250],
    ] as const) {
      await client.mail("alice@example.test");
      await client.rcpt("bob@example.org");
      const reply = await client.data(`Subject: s\r\n\r\n${"x".repeat(size - 2)}\r\n`);
      expect(reply.code).toBe(code);
      if (code === 552) expect(reply.text).toBe("5.3.4 Message too big");
    }
  });

  test("arguments arrive, and those that a mail server would leave out throw", async () => {
    const params = [
      "NOTIFY",
      "NOTIFY=",
      "NOTIFY=BOGUS",
      "NOTIFY=NEVER,DELAY",
      "ORCPT=x",
      "ORCPT=rfc822;a+b",
      "FOO=1",
      "RET=FULL",
    ];
    const code = `for (const param of ${JSON.stringify(params)}) attempt("add " + param, () => message.addRecipient("x@example.net", [param]));
      for (const param of ["RET", "RET=BOGUS", "ENVID=a+b", "SIZE=x", "BODY=BINARYMIME", "AUTH=<>", "SMTPUTF8", "NOTIFY=NEVER"]) attempt("from " + param, () => message.changeFrom("x@example.net", [param]));
      attempt("twice", () => message.changeFrom("x@example.net", ["RET=FULL", "ret=HDRS"]));
      message.addRecipient("y@example.net", ["notify=SUCCESS,DELAY", "ORCPT=rfc822;a+2Bb@example.net"]);`;
    const { seen, recipients } = await run(server, site, code);
    expect(seen.thrown).toHaveLength(17);
    expect(recipients).toEqual(["bob@example.org", "y@example.net"]);
  });
});

describeWith(postfixTool, "insertHeader in the middle, where Postfix's own Received is not the first header", () => {
  const prepend = (...headers: string[]) =>
    headers.map((header) => `check_sender_access static:{PREPEND ${header}}`).join(", ");
  const FIELDS = [
    "X-First: 1",
    "Received: from old",
    "Subject:s",
    "Received: from older",
    "X-T:\tt",
    "X-A: 1",
    "X-a:2",
  ];
  let site: Site;
  beforeAll(async () => {
    const early = oneFilter(`export default { eom({ message }) {
      message.insertHeader(0, "X-Early", "1");
      message.insertHeader(0, "X-Earlier", "1");
    } };`);
    site = await startSite({
      filters: { main: RUNS, early },
      postfix: ({ main, early: first }) => ({
        mainCf: { header_checks: "regexp:{{/^Received: from c\\.test/ IGNORE}}" },
        services: [
          {
            name: "prepended",
            milters: main!,
            options: { smtpd_sender_restrictions: prepend("X-P1: 1", "X-P2: 2", "X-P3: 3") },
          },
          {
            name: "received",
            milters: main!,
            options: { smtpd_sender_restrictions: prepend("Received: from a policy") },
          },
          { name: "second", milters: [first!, main!] },
          {
            name: "both",
            milters: [first!, main!],
            options: { smtpd_sender_restrictions: prepend("X-P1: 1", "X-P2: 2") },
          },
        ],
      }),
    });
  });
  afterAll(async () => await site?.[Symbol.asyncDispose]());

  /** What is delivered, with Postfix's own header as the word RECEIVED; and what the handler saw. */
  async function send(service: string, code: string, helo = "a.test") {
    const client = await site.connect(undefined, { service, helo: false });
    await client.ehlo(helo);
    await client.mail("alice@example.test");
    await client.rcpt("bob@example.org");
    const encoded = Buffer.from(code)
      .toString("base64")
      .match(/.{1,76}/g)!
      .join("\r\n ");
    // Without Postfix's own Received only the body tells which message it is.
    const token = crypto.randomUUID();
    await client.data(`${FIELDS.join("\r\n")}\r\nX-Do: ${encoded}\r\n\r\n${token}\r\n`);
    await client.quit();
    const { text } = await waitFor(async () => site.sink.messages.find((message) => message.text.includes(token)), {
      what: "the message to be delivered",
      intervalMs: 5,
    });
    const fields = parts(text).fields.map((field) => (/\r\n\tby mx\./.test(field) ? "RECEIVED" : field));
    const seen = JSON.parse(Buffer.from(fields.pop()!.slice("X-Seen:".length), "base64").toString()) as Seen;
    return { fields, seen };
  }

  const CODES = [
    ...Array.from({ length: 11 }, (_, index) => `message.insertHeader(${index}, "X-New", "1")`),
    ...[0, 1, 3, -3].flatMap((index) => [
      `message.insertBefore(message.headers.at(${index}), "X-New", "1")`,
      `message.insertAfter(message.headers.at(${index}), "X-New", "1")`,
    ]),
  ];
  test.each([
    ["main", "a.test"],
    ["prepended", "a.test"],
    ["received", "a.test"],
    ["second", "a.test"],
    ["both", "a.test"],
    // header_checks remove Postfix's own.
    ["main", "c.test"],
    ["prepended", "c.test"],
    ["both", "c.test"],
  ])("service %s, client %s: what is read is the order that is delivered", async (service, helo) => {
    for (const code of CODES) {
      const { fields, seen } = await send(service, `${code}; message.deleteHeader("X-A", 1);`, helo);
      expect(fields.includes("RECEIVED")).toBe(helo === "a.test");
      // Postfix hides the first Received of its own making or a policy's; all others are read in their places.
      const hidden = helo === "a.test" ? fields.findIndex((field) => /^Received|^RECEIVED$/.test(field)) : -1;
      const shown = fields
        .filter((_, index) => index !== hidden)
        .map((field) => (field === "RECEIVED" ? "Received" : viewed(field)[0]));
      expect(shown).toEqual(seen.headers.map(([name]) => name));
      // Below the header that is hidden, also where the first one that is shown stood above it.
      const isFirst = code.includes("insertBefore(message.headers.at(0)");
      if (isFirst) expect(fields.indexOf("X-New: 1")).toBeGreaterThan(hidden);
      expect(fields.filter((field) => FIELDS.includes(field))).toEqual(FIELDS.filter((field) => field !== "X-A: 1"));
    }
  });
});
