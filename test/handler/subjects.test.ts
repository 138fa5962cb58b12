/** Who and what a line of the log is about: each field, and when it is left out. */
import { describe, expect, test } from "bun:test";
import { reject, skip } from "../../src/index.ts";
import { logLine } from "../../src/handler/log-lines.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line, type Setting, settled } from "./harness.ts";

const CODE = { folder: "/etc/pmilter", version: "0123456789ab" };

/** The log lines so far, as text and as fields. */
const linesOf = (line: Line) => line.host.reports.map((report) => logLine(report, CODE));
const lastOf = (line: Line) => linesOf(line).at(-1)!;

const SESSION = [
  cmd.macro("C", { j: "mx.test", v: "Postfix 3.7.11" }),
  cmd.connect(),
  cmd.helo("client.test"),
  cmd.macro("M", { "{auth_authen}": "boss" }),
  cmd.mail("<a@c.test>"),
];
const MESSAGE = [
  cmd.macro("T", { i: "4ZB1" }),
  cmd.data(),
  cmd.header("Subject", " a\n folded"),
  cmd.header("message-ID", " <1@c.test> "),
  cmd.eoh(),
  cmd.body("one\r\n"),
  cmd.body("two\r\n"),
];
const SIZE = "Subject: a\r\n folded\r\nmessage-ID: <1@c.test> \r\n\r\none\r\ntwo\r\n".length;

test.each([
  ["enforced", false, "reject command"],
  ["observed", true, "observed reject command"],
])("a refused command has a line of its own: %s", (_name, isObserved, head) => {
  const filter: AnyFilter = { unknown: () => reject("500 5.5.1 No"), eom() {} };
  const line = Line.to([[filter, { isObserved }]]);
  line.send(...SESSION.slice(0, 3), cmd.unknown("VRFY x"));
  const { fields, text } = lastOf(line);
  expect(text).toStartWith(`${head}: client=`);
  expect(text).toMatch(/ filter=filter1 phase=unknown at=\S+ reply="500 5\.5\.1 No"$/);
  expect(fields).toMatchObject({ verdict: "reject", scope: "command" });
});

describe("a refused recipient", () => {
  const filters: AnyFilter[] = [
    { envrcpt: (_session, recipient) => (recipient.includes("no") ? reject("550 5.1.1 No") : undefined) },
  ];

  test("stands first and alone, behind more accepted ones than a line names", () => {
    const line = Line.to(filters, { limits: { recipients: 2000 } });
    line.send(...SESSION);
    for (let n = 0; n < 1200; n++) line.send(cmd.rcpt(`<user${n}@mx.test>`));
    line.host.time += 250;
    line.send(cmd.rcpt("<no@mx.test>"));
    const { fields, text } = lastOf(line);
    expect(text).toStartWith("reject recipient: recipient=<no@mx.test> client=");
    expect(text).toContain(" helo=client.test user=boss from=<a@c.test> to=<user0@mx.test>,<user1@mx.test>,");
    expect(text).toContain(",<user9@mx.test> (and 1190 more) ms=250 version=0123456789ab filter=filter1 phase=envrcpt");
    expect(fields).toMatchObject({
      recipient: "<no@mx.test>",
      to: Array.from({ length: 10 }, (_, n) => `<user${n}@mx.test>`),
      to_more: 1190,
      ms: 250,
    });
  });

  test("is not among those of the lines that follow", () => {
    const line = Line.to([...filters, { eom: () => reject() }]);
    line.send(...SESSION, cmd.rcpt("<a@mx.test>"), cmd.rcpt("<no@mx.test>"), cmd.rcpt("<b@mx.test>"), ...MESSAGE);
    line.send(cmd.eom());
    const [refused, rejected] = linesOf(line);
    expect(refused!.fields).toMatchObject({ recipient: "<no@mx.test>", to: ["<a@mx.test>"] });
    expect(rejected!.fields).toMatchObject({ to: ["<a@mx.test>", "<b@mx.test>"] });
    expect(rejected!.fields).not.toHaveProperty("recipient");
  });

  test("the same where a handler fails at one, sync and awaited, and where a limit is passed", async () => {
    const fail = (recipient: string) => {
      if (recipient.includes("no")) throw new Error("no");
    };
    for (const filter of [
      { envrcpt: (_, recipient) => fail(recipient) },
      { envrcpt: async (_, recipient) => fail(await recipient) },
    ] satisfies AnyFilter[]) {
      const line = Line.to([filter]);
      line.send(...SESSION, cmd.rcpt("<a@mx.test>"));
      await settled();
      line.send(cmd.rcpt("<no@mx.test>"));
      await settled();
      expect(linesOf(line).map(({ fields }) => fields)).toEqual([
        expect.objectContaining({ cause: "error", recipient: "<no@mx.test>", to: ["<a@mx.test>"] }),
        expect.objectContaining({ scope: "recipient", recipient: "<no@mx.test>", to: ["<a@mx.test>"] }),
      ]);
    }
    const limited = Line.to([{ envrcpt: () => undefined }], { limits: { recipients: 1 } });
    limited.send(...SESSION, cmd.rcpt("<a@mx.test>"), cmd.rcpt("<one-too-many@mx.test>"));
    expect(linesOf(limited)[0]!.fields).toMatchObject({
      cause: "limit",
      recipient: "<one-too-many@mx.test>",
      to: ["<a@mx.test>"],
    });
  });

  test("a verdict on the message that was found at one names it, though it is given later", () => {
    const line = Line.to([
      {
        envrcpt: (_session, recipient) => (recipient.includes("no") ? reject() : undefined),
        header: () => undefined,
        eom: () => undefined,
      },
    ]);
    const madeUp = [cmd.macro("C", { v: "Postfix 3.7.11", i: "4ZB1" }), cmd.connect("localhost", "127.0.0.1")];
    line.send(...madeUp, cmd.helo("localhost"), cmd.mail(""), cmd.rcpt("a@mx.test"), cmd.rcpt("no@mx.test"));
    line.send(cmd.rcpt("b@mx.test"), cmd.header("Message-ID", "<1@c.test>"), cmd.eom());
    expect(lastOf(line).fields).toMatchObject({
      verdict: "reject",
      scope: "message",
      recipient: "no@mx.test",
      from: "<>",
      to: ["a@mx.test", "b@mx.test"],
      message_id: "<1@c.test>",
    });
  });
});

describe("the fields of a message's line", () => {
  const line = (filter: AnyFilter, setting: Setting = {}) => {
    const made = Line.to([filter], { reportsAccepted: true, ...setting });
    made.send(...SESSION, cmd.rcpt("<b@mx.test>"), ...MESSAGE);
    made.host.time += 42;
    made.send(cmd.eom());
    return lastOf(made);
  };
  const reads: AnyFilter = {
    header: () => undefined,
    eoh: () => undefined,
    body: () => undefined,
    eom: () => reject(),
  };

  test("all of them, in their order", () => {
    expect(line(reads).text).toStartWith(
      'reject: queue_id=4ZB1 message_id=<1@c.test> client="c.test [192.0.2.7]" helo=client.test user=boss ' +
        `from=<a@c.test> to=<b@mx.test> size=${SIZE} ms=42 version=0123456789ab filter=filter1 phase=eom `,
    );
    expect(line(reads).fields).toMatchObject({ size: SIZE, ms: 42, version: "0123456789ab", user: "boss" });
  });

  test("size is what came, however the verdict came about and whatever the mail server offers", () => {
    const size = (filter: AnyFilter, setting?: Setting) => line(filter, setting).fields["size"];
    expect(size({ ...reads, eom: () => undefined })).toBe(SIZE);
    // Found at a header and given at the end: the rest was not shown to any filter.
    expect(size({ ...reads, header: () => reject() })).toBe(SIZE);
    expect(line({ ...reads, header: () => reject() }).fields["message_id"]).toBe("<1@c.test>");
    expect(size({ collectBody: true, eom: () => reject() })).toBe(SIZE);
    expect(size(reads, { deferContent: false })).toBe(SIZE);
  });

  test("size is left out where not all of the message came", () => {
    const size = (filter: AnyFilter, setting?: Setting) => line(filter, setting).fields["size"];
    expect(size({ eom: () => reject() })).toBeUndefined();
    expect(size({ ...reads, header: () => reject() }, { deferContent: false })).toBeUndefined();
    expect(size(reads, { limits: { headers: 1 }, onError: "continue" })).toBeUndefined();
    const skipping = Line.to([{ header: () => undefined, body: () => skip(), eom: () => reject() }], {
      deferContent: false,
    });
    skipping.send(...SESSION, cmd.header());
    expect(skipping.send(cmd.body())).toContain("s");
    skipping.send(cmd.eom());
    expect(lastOf(skipping).fields).not.toHaveProperty("size");
  });

  test("what is not known is left out", () => {
    const made = Line.to([{ connect: () => reject() }]);
    made.send(cmd.connect());
    expect(Object.keys(lastOf(made).fields)).toEqual([
      "verdict",
      "scope",
      "client",
      "version",
      "filter",
      "phase",
      "at",
    ]);
    const unnamed = logLine(made.host.reports[0]!, { folder: "/", version: "" });
    expect(unnamed.text).not.toContain("version");
  });

  test("nothing of a message is left for the next one on the connection, or the session after", () => {
    const made = Line.to([{ ...reads, connect: () => undefined, unknown: () => undefined }]);
    made.send(...SESSION, cmd.rcpt(), ...MESSAGE, cmd.eom());
    made.send(cmd.mail("<>"), cmd.eom());
    const { fields } = lastOf(made);
    expect(fields).toMatchObject({ from: "<>", helo: "client.test", size: 2 });
    for (const field of ["user", "message_id", "to", "queue_id"]) expect(fields).not.toHaveProperty(field);
  });

  test("the null sender is <>, as the client or the mail server spells it; without MAIL there is none", () => {
    for (const sender of ["<>", ""]) {
      const made = Line.to([{ envfrom: () => reject() }]);
      made.send(cmd.connect(), cmd.helo(), cmd.mail(sender));
      expect(lastOf(made).text).toContain(" from=<> ");
    }
    const made = Line.to([{ eom: () => reject() }]);
    made.send(cmd.connect(), cmd.eom());
    expect(lastOf(made).text).not.toContain("from=");
  });
});
