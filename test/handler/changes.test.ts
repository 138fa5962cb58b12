/**
 * Changes to a message: what a handler sees after them is what the mail server makes of the packets that are sent. The
 * mail server is `src/testing/apply.ts`.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { reject, UsageError } from "../../src/index.ts";
import type { Header, Session } from "../../src/handler/types.ts";
import { decodeReply, type ModificationReply } from "../../src/protocol/replies.ts";
import { applyModifications, type Message } from "../../src/testing/apply.ts";
import { forSeeds, mustEqual, type Random } from "../protocol/random.ts";
import { ALL, cmd, LEADSPC } from "../protocol/wire.ts";
import { type AnyFilter, Line, type Placed } from "./harness.ts";

setDefaultTimeout(120_000);

type Eom = Session<"eom">;

/** Runs one message with these raw header values (as they follow the colon); gives the packets before the final one. */
function packetsFor(
  filters: readonly AnyFilter[],
  headers: readonly [string, string][] = [],
  keepsSpace = true,
): string[] {
  const line = Line.to(filters, { protocol: keepsSpace ? ALL : ALL & ~LEADSPC });
  const sent = headers.map(([name, raw]) => cmd.header(name, keepsSpace ? raw : raw.replace(/^ /, "")));
  const replies = line.send(cmd.mail(), cmd.rcpt(), ...sent, cmd.body(), cmd.eom());
  if (line.failures.length > 0) throw new Error(line.failures[0]!.message);
  const from = replies.findIndex((reply) => reply !== "c");
  return from === -1 ? [] : replies.slice(from, -1);
}

const eom = (change: (session: Eom) => void): AnyFilter => ({ eom: (session) => change(session) });

function errorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof UsageError ? error.code : String(error);
  }
  return "none";
}

/** What a change does at eom: the error's code. */
function codeAt(change: (message: Eom["message"]) => void, actions = 0x1ff): string {
  let code = "";
  const line = Line.to([eom((session) => void (code = errorOf(() => change(session.message))))], { actions });
  line.send(cmd.mail(), cmd.eom());
  return code;
}

describe("message changes, packets", () => {
  const A: [string, string] = ["Subject", " hi"];

  test.each([
    ["addHeader", (m: Eom["message"]) => m.addHeader("X", "1"), ["hX\0 1\0"]],
    ["insertHeader at the top", (m: Eom["message"]) => m.insertHeader(0, "X", "1"), ["i\0\0\0\0X\0 1\0"]],
    ["changeHeader", (m: Eom["message"]) => m.changeHeader("subject", "new"), ["m\0\0\0\x01Subject\0 new\0"]],
    [
      "changeHeader past the last adds",
      (m: Eom["message"]) => m.changeHeader("Subject", "new", 2),
      ["hSubject\0 new\0"],
    ],
    [
      "changeHeader to nothing deletes",
      (m: Eom["message"]) => m.changeHeader("Subject", ""),
      ["m\0\0\0\x01Subject\0\0"],
    ],
    ["deleteHeader", (m: Eom["message"]) => m.deleteHeader("Subject", 1), ["m\0\0\0\x01Subject\0\0"]],
    ["deleteHeader past the last", (m: Eom["message"]) => m.deleteHeader("Subject", 2), []],
    ["changeFrom", (m: Eom["message"]) => m.changeFrom("x@y", ["RET=HDRS", "ENVID=1"]), ["e<x@y>\0RET=HDRS ENVID=1\0"]],
    ["changeFrom to the null sender", (m: Eom["message"]) => m.changeFrom(""), ["e<>\0"]],
    ["addRecipient", (m: Eom["message"]) => m.addRecipient("<x@y>"), ["+<x@y>\0"]],
    [
      "addRecipient with arguments",
      (m: Eom["message"]) => m.addRecipient("x@y", ["NOTIFY=NEVER"]),
      ["2<x@y>\0NOTIFY=NEVER\0"],
    ],
    ["deleteRecipient", (m: Eom["message"]) => m.deleteRecipient("b@mx.test"), ["-<b@mx.test>\0"]],
    ["replaceBody, LF to CRLF", (m: Eom["message"]) => m.replaceBody("a\nb\r\n"), ["ba\r\nb\r\n"]],
    ["replaceBody, a lone CR to CRLF", (m: Eom["message"]) => m.replaceBody("a\rb\r\r\n"), ["ba\r\nb\r\n\r\n"]],
    [
      "replaceBody with bytes as they are",
      (m: Eom["message"]) => m.replaceBody(Buffer.from("a\r\rb\0")),
      ["ba\r\rb\0"],
    ],
    [
      "replaceBody with bytes, LF to CRLF",
      (m: Eom["message"]) => m.replaceBody(Buffer.from("\na\r\n\nb\n")),
      ["b\r\na\r\n\r\nb\r\n"],
    ],
    ["replaceBody with nothing", (m: Eom["message"]) => m.replaceBody(""), ["b"]],
    ["quarantine", (m: Eom["message"]) => m.quarantine("why"), ["qwhy\0"]],
    [
      "deleteRecipient of one that the message does not have",
      (m: Eom["message"]) => m.deleteRecipient("<@a.test:x@y.test>"),
      ["-<x@y.test>\0"],
    ],
    [
      "what was read and is written back",
      (m: Eom["message"]) => m.changeHeader("subject", m.headers.get("Subject")!),
      [],
    ],
    [
      "a change that another one takes back",
      (m: Eom["message"]) => {
        m.changeHeader("Subject", "other");
        m.changeHeader("Subject", "hi");
      },
      [],
    ],
    ["a folded value", (m: Eom["message"]) => m.addHeader("X", "a\r\n b\r\tc"), ["hX\0 a\n b\n\tc\0"]],
  ] as const)("%s", (_name, change, expected) => {
    expect(packetsFor([eom((session) => change(session.message))], [A])).toEqual([...expected]);
  });

  test("without HDR_LEADSPC the mail server puts the space, both ways", () => {
    const seen: string[] = [];
    const filter = eom(({ message }) => {
      for (const { value } of message.headers) seen.push(value);
      message.addHeader("X", "1");
    });
    expect(
      packetsFor(
        [filter],
        [
          ["A", " one"],
          ["B", "  two"],
          ["C", "\tthree"],
        ],
        false,
      ),
    ).toEqual(["hX\x001\0"]);
    expect(
      packetsFor(
        [filter],
        [
          ["A", " one"],
          ["B", "  two"],
          ["C", "\tthree"],
        ],
        true,
      ),
    ).toEqual(["hX\0 1\0"]);
    expect(seen).toEqual(["one", " two", "\tthree", "one", " two", "\tthree"]);
  });

  test.each([
    ["none", "x", "y", "y"],
    ["a space", " x", "y", " y"],
    ["two spaces", "  x", "y", "  y"],
    ["two spaces, and the new value begins with one", "  x", " y", "  y"],
    ["a tab", "\tx", "y", "\ty"],
    ["a tab, kept by the handler", "\tx", "\ty", "\ty"],
    ["a space and a tab", " \tx", "y", " \ty"],
    ["a line break", "\n x", "y", "\n y"],
    ["nothing but a space", " ", "y", " y"],
    ["nothing at all", "", "y", "y"],
    ["none, and the new value begins with one", "x", " y", " y"],
  ])("a changed header keeps the white space after its colon: %s", (_name, raw, value, sent) => {
    let seen: string | undefined;
    const filter = eom(({ message }) => {
      message.changeHeader("X", value);
      seen = message.headers.get("X");
    });
    expect(packetsFor([filter], [["X", raw]])).toEqual([`m\0\0\0\x01X\0${sent}\0`]);
    expect(seen).toBe(sent.replace(/^ /, ""));
    // A mail server without HDR_LEADSPC has taken one space away, and puts one.
    const kept = /^ ?(\s*)/.exec(raw)![1]!;
    expect(packetsFor([filter], [["X", raw]], false)).toEqual([
      `m\0\0\0\x01X\0${/^\s/.test(value) ? value : kept + value}\0`,
    ]);
  });

  test("an empty header is not deleted by being written back, and one that is not there is not added", () => {
    const back = eom(({ message }) => {
      message.changeHeader("X", message.headers.get("X") ?? "");
      message.changeHeader("Y", message.headers.get("Y") ?? "");
    });
    for (const raw of ["", " "]) expect(packetsFor([back], [["X", raw]])).toEqual([]);
    expect(packetsFor([eom(({ message }) => message.deleteHeader("X", 1))], [["X", ""]])).toEqual(["m\0\0\0\x01X\0\0"]);
  });

  test("what is odd in a header already does not make a change of it fail", () => {
    const prefix = eom(({ message }) => message.changeHeader("X", `[list] ${message.headers.get("X")}`));
    for (const value of ["a\n \n b", "a\n ", "z".repeat(5000)]) {
      expect(packetsFor([prefix], [["X", ` ${value}`]])).toEqual([`m\0\0\0\x01X\0 [list] ${value}\0`]);
    }
  });

  const INSERTED = eom(({ message }) => message.insertHeader(1, "New", "1"));

  test("a header in the middle needs no index: those behind it are taken out and appended as they were", () => {
    const headers: [string, string][] = [A, ["X", "tight"], ["x", "\ttab"]];
    expect(packetsFor([INSERTED], headers)).toEqual([
      "m\0\0\0\x02x\0\0",
      "m\0\0\0\x01X\0\0",
      "i\x7f\xff\xff\xffNew\0 1\0",
      "i\x7f\xff\xff\xffX\0tight\0",
      "i\x7f\xff\xff\xffx\0\ttab\0",
    ]);
  });

  test("a header in the middle has an index where those behind it could not be appended as they were", () => {
    const indexed = ["i\0\0\0\x02New\0 1\0"];
    expect(packetsFor([INSERTED], [A, ["X", "z".repeat(60_000)], ["Y", "y"]])).toEqual(indexed);
    expect(packetsFor([INSERTED], [A, ["X", "tight"], ["Y", "y"]], false)).toEqual(["i\0\0\0\x02New\x001\0"]);
  });

  test("a recipient is deleted in the spellings that a mail server may know it by, and added only if it is not there", () => {
    const line = Line.to([
      eom(({ message }) => {
        message.addRecipient("<jane@EXAMPLE.org.>");
        message.deleteRecipient("jane@example.org");
        message.addRecipient("bob@example.org");
        expect(message.recipients.map(({ raw }) => raw)).toEqual(["<bob@Example.org>"]);
      }),
    ]);
    const replies = line.send(
      cmd.mail(),
      cmd.rcpt('<@a.test:"jane"@example.org>'),
      cmd.rcpt("<bob@Example.org>"),
      cmd.rcpt("<jane@EXAMPLE.org>"),
      cmd.eom(),
    );
    expect(line.failures).toEqual([]);
    expect(replies.filter((reply) => reply.length > 1)).toEqual([
      '-<@a.test:"jane"@example.org>\0',
      "-<jane@example.org>\0",
      '-<"jane"@example.org>\0',
      "-<jane@EXAMPLE.org>\0",
    ]);
  });

  test("a recipient with a spelling that may not be sent for a new one can be deleted as it came", () => {
    const raws = ["<a b@example.org>", "<jane>", "<<x@example.org>>", "Jane <y@example.org>"];
    const line = Line.to([
      {
        envrcpt: ({ message }, recipient) => {
          if (recipient === "<refused>") return reject();
          message.deleteRecipient(recipient);
        },
        eom: ({ message }) => expect(message.recipients).toEqual([]),
      },
    ]);
    line.send(cmd.mail(), ...raws.flatMap((raw) => [cmd.rcpt("<refused>"), cmd.rcpt(raw)]), cmd.eom());
    expect(line.failures).toEqual([]);
  });

  test("a body is sent in one run, behind everything else but the quarantine", () => {
    const body = Buffer.alloc(150_000, "x");
    const packets = packetsFor([
      eom(({ message }) => {
        message.replaceBody(body);
        message.quarantine("q");
        message.addHeader("X", "1");
      }),
    ]);
    expect(packets.map((text) => text[0]).join("")).toBe("hbbbq");
  });

  test("replaced bytes are copied when they are given", () => {
    const bytes = Buffer.from("good");
    const filter = eom(({ message }) => {
      message.replaceBody(bytes);
      bytes.fill("x");
    });
    expect(packetsFor([filter])).toEqual(["bgood"]);
  });

  test("changes made before eom are sent at eom", () => {
    const add = (name: string) => (session: { message: { addHeader(name: string, value: string): void } }) =>
      session.message.addHeader(name, "1");
    const filter: AnyFilter = {};
    for (const phase of ["envfrom", "envrcpt", "header", "body", "eom"] as const) filter[phase] = add(`X-${phase}`);
    expect(packetsFor([filter], [A])).toEqual(
      ["envfrom", "envrcpt", "header", "body", "eom"].map((name) => `hX-${name}\0 1\0`),
    );
  });

  test("deleteHeader without an index takes those still to come", () => {
    const filter: AnyFilter = { envfrom: (session) => session.message.deleteHeader("X-Spam"), eom: () => undefined };
    expect(packetsFor([filter], [["X-Spam", " 1"], A, ["x-spam", " 2"]])).toEqual([
      "m\0\0\0\x02x-spam\0\0",
      "m\0\0\0\x01X-Spam\0\0",
    ]);
  });

  test("each filter sees what the ones before it changed", () => {
    const seen: unknown[] = [];
    const first = eom(({ message }) => {
      message.changeHeader("Subject", "[x] hi");
      message.insertHeader(0, "Top", "1");
      message.changeFrom("new@c.test");
      message.deleteRecipient("b@mx.test");
      message.addRecipient("c@mx.test");
      message.replaceBody("new");
    });
    const second = eom(({ message }) => {
      seen.push(
        [...message.headers],
        message.sender.raw,
        message.recipients.map((one) => one.raw),
      );
      seen.push(Buffer.from(message.body()).toString());
      message.changeHeader("Subject", `${message.headers.get("subject")}!`);
    });
    const packets = packetsFor([first, second], [A]);
    expect(seen).toEqual([
      [
        { name: "Top", value: "1" },
        { name: "Subject", value: "[x] hi" },
      ],
      "<new@c.test>",
      ["<c@mx.test>"],
      "new",
    ]);
    expect(packets).toContain("m\0\0\0\x01Subject\0 [x] hi!\0");
  });
});

describe("message changes, what changes nothing", () => {
  /** The packets of changes at eom, and the number that the log would have. */
  function outcome(filters: readonly Placed[], body = "Hello\r\n"): { packets: string[]; changes: number[] } {
    const line = Line.to(filters, { reportsAccepted: true });
    line.send(cmd.mail("<a@c.test>", "SIZE=10", "BODY=8BITMIME"));
    line.send(cmd.rcpt("<@r.test:b@mx.test>"), cmd.rcpt("<c@mx.test>"));
    line.send(cmd.rcpt("<d@mx.test>", "NOTIFY=NEVER"));
    line.send(cmd.header("Subject", "\thi"), cmd.header("X", ""), ...(body === "" ? [] : [cmd.body(body)]));
    const packets = line.send(cmd.eom());
    expect(line.failures).toEqual([]);
    return { packets: packets.slice(0, -1), changes: line.verdicts.map(({ changes }) => changes) };
  }

  const collecting = (change: (message: Eom["message"]) => void): AnyFilter => ({
    collectBody: true,
    eom: ({ message }) => change(message),
  });

  test.each<[string, (message: Eom["message"]) => void]>([
    ["changeHeader to the same text", (m) => m.changeHeader("Subject", m.headers.get("Subject")!)],
    ["changeHeader by the header, to the same text", (m) => m.changeHeader(m.headers.at(1)!, "")],
    [
      "a header that is changed and changed back",
      (m) => {
        m.changeHeader("Subject", "other");
        m.changeHeader("Subject", "\thi");
      },
    ],
    ["deleteHeader of one that is not there", (m) => m.deleteHeader("Y")],
    [
      "a header that is added and deleted",
      (m) => {
        m.addHeader("Y", "1");
        m.insertHeader(0, "Y", "2");
        m.insertBefore(m.headers.first("Subject")!, "Y", "3");
        m.deleteHeader("Y");
      },
    ],
    ["changeFrom to the same sender", (m) => m.changeFrom("<a@c.test>")],
    ["changeFrom to the same sender and arguments", (m) => m.changeFrom("a@c.test", ["SIZE=10", "BODY=8BITMIME"])],
    [
      "a sender that is changed and changed back",
      (m) => {
        m.changeFrom("x@c.test", ["RET=HDRS"]);
        m.changeFrom("a@c.test");
      },
    ],
    ["addRecipient of one that is there", (m) => m.addRecipient("B@mx.test".toLowerCase())],
    [
      "a recipient that is deleted and added again",
      (m) => {
        m.deleteRecipient('"c"@MX.test');
        m.addRecipient("<c@mx.test>");
      },
    ],
    [
      "the same with the same arguments",
      (m) => {
        m.deleteRecipient("d@mx.test");
        m.addRecipient("d@mx.test", ["NOTIFY=NEVER"]);
      },
    ],
    [
      "a recipient that is deleted, added with arguments, deleted and added again",
      (m) => {
        for (const params of [["NOTIFY=DELAY"], []]) {
          m.deleteRecipient("c@mx.test");
          m.addRecipient("c@mx.test", params);
        }
      },
    ],
    [
      "a recipient that is added and deleted",
      (m) => {
        m.addRecipient("e@mx.test");
        m.deleteRecipient("e@mx.test");
      },
    ],
    ["replaceBody with the same bytes", (m) => m.replaceBody(Buffer.from("Hello\r\n"))],
    ["replaceBody with the same text", (m) => m.replaceBody("Hello\n")],
    [
      "a body that is replaced and replaced back",
      (m) => {
        const before = m.body();
        m.replaceBody("x");
        m.replaceBody(before);
      },
    ],
  ])("%s: nothing is sent, nothing is counted, and the view is as before", (_name, change) => {
    const read = ({ headers, sender, recipients, ...message }: Eom["message"], body: Uint8Array): string =>
      JSON.stringify([
        [...headers],
        sender.raw,
        sender.params,
        recipients.map(({ raw, params }) => [raw, params]),
        Buffer.from(body).toString(),
        message,
      ]);
    const filter = collecting((message) => {
      const before = read(message, message.body());
      change(message);
      expect(read(message, message.body())).toBe(before);
    });
    expect(outcome([filter])).toEqual({ packets: [], changes: [0] });
    // A filter in observe mode would have changed nothing: there is no line for it.
    expect(outcome([[filter, { isObserved: true }]])).toEqual({ packets: [], changes: [0] });
  });

  test("a body that is edited in place is sent, however it is given back", () => {
    for (const give of [(body: Uint8Array) => body, (body: Uint8Array) => Buffer.from(body)]) {
      const filter = collecting((message) => {
        const body = message.body();
        body[0] = 0x4a;
        message.replaceBody(give(body));
      });
      expect(outcome([filter])).toEqual({ packets: ["bJello\r\n"], changes: [1] });
    }
  });

  test("an empty body that is replaced by nothing, where a filter collects it", () => {
    expect(outcome([collecting((message) => message.replaceBody(""))], "")).toEqual({ packets: [], changes: [0] });
    expect(outcome([eom(({ message }) => message.replaceBody(""))], "")).toEqual({ packets: ["b"], changes: [1] });
  });

  test("a filter may take back what another one changed", () => {
    const there = collecting((message) => {
      message.changeFrom("x@c.test");
      message.changeHeader("Subject", "x");
      message.deleteRecipient("c@mx.test");
      message.replaceBody("x");
      message.addHeader("Y", "1");
    });
    const back = eom(({ message }) => {
      message.changeFrom("a@c.test");
      message.changeHeader("Subject", "hi");
      message.addRecipient("c@mx.test");
      message.replaceBody("Hello\r\n");
      message.deleteHeader(message.headers.at(-1)!);
    });
    expect(outcome([there, back])).toEqual({ packets: [], changes: [0] });
  });

  test.each<[string, number, (message: Eom["message"]) => void]>([
    ["other arguments of the same sender", 1, (m) => m.changeFrom("a@c.test", ["SIZE=10"])],
    ["another spelling of the sender", 1, (m) => m.changeFrom("a@C.test")],
    [
      "other arguments of the same recipient",
      2,
      (m) => {
        m.deleteRecipient("d@mx.test");
        m.addRecipient("d@mx.test", ["NOTIFY=DELAY"]);
      },
    ],
    [
      "another spelling of the same recipient",
      2,
      (m) => {
        m.deleteRecipient("b@mx.test");
        m.addRecipient("b@mx.test");
      },
    ],
    ["a recipient that is not shown", 1, (m) => m.deleteRecipient("z@mx.test")],
    ["a body of the same length", 1, (m) => m.replaceBody("Hellu\n")],
    ["a header that has only its white space changed", 1, (m) => m.changeHeader("Subject", " hi")],
    ["a header in the middle, for which others move", 1, (m) => m.insertAfter(m.headers.at(0)!, "Y", "1")],
    [
      "a header that is moved by its name",
      2,
      (m) => {
        m.deleteHeader("X", 1);
        m.addHeader("X", "");
      },
    ],
    [
      "several headers",
      4,
      (m) => {
        m.deleteHeader("X");
        m.changeHeader("Subject", "x");
        m.addHeader("Y", "1");
        m.insertHeader(0, "Y", "1");
      },
    ],
    [
      "one of each",
      6,
      (m) => {
        m.addHeader("Y", "1");
        m.changeFrom("");
        m.addRecipient("e@mx.test");
        m.deleteRecipient("c@mx.test");
        m.replaceBody("x");
        m.quarantine("q");
      },
    ],
  ])("%s: counted %d times", (_name, count, change) => {
    expect(outcome([collecting(change)]).changes).toEqual([count]);
    const observed = outcome([[collecting(change), { isObserved: true }]]);
    expect(observed).toEqual({ packets: [], changes: [count, 0] });
  });
});

describe("message changes, property", () => {
  const NAMES = ["A", "B", "a", "Subject"] as const;

  function randomHeaders(random: Random): [string, string][] {
    return Array.from({ length: random.below(6) }, (_, at) => [
      random.pick(NAMES),
      random.pick([` r${at}`, `r${at}`, `  r${at}`, ` r${at}\n f`]),
    ]);
  }

  /**
   * A few calls of the API at random.
   * @param known headers that some filter has read, in this phase or before: deleted and unseen ones are among them
   */
  function randomCalls(random: Random, message: Eom["message"], tag: string, known: Header[]): void {
    const count = random.below(6);
    for (let at = 0; at < count; at++) {
      const name = random.pick(NAMES);
      const value = `${tag}${at}`;
      if (random.chance(0.5)) known.push(...message.headers);
      switch (random.below(12)) {
        case 8:
        case 9:
        case 10:
        case 11:
          if (known.length > 0) changeBeside(random, message, random.pick(known), name, value);
          break;
        case 0:
        case 1:
          message.insertHeader(random.below(6), name, value);
          break;
        case 2:
        case 3:
          message.addHeader(name, value);
          break;
        case 4:
          message.changeHeader(name, value, 1 + random.below(3));
          break;
        case 5:
          message.deleteHeader(name, 1 + random.below(3));
          break;
        case 6:
          if (random.chance(0.4)) message.deleteHeader(name);
          break;
        default:
          message.changeHeader(name, "", 1 + random.below(2));
      }
    }
  }

  function changeBeside(random: Random, message: Eom["message"], header: Header, name: string, value: string): void {
    try {
      switch (random.below(4)) {
        case 0:
          message.insertBefore(header, name, value);
          break;
        case 1:
          message.insertAfter(header, name, value);
          break;
        case 2:
          message.changeHeader(header, random.chance(0.2) ? "" : value);
          break;
        default:
          message.deleteHeader(header);
      }
    } catch (error) {
      if (!/was deleted|does not see/.test(String(error))) throw error;
    }
  }

  const shown = (message: Eom["message"]) => [...message.headers].map(({ name, value }) => `${name}:${value}`);

  function modifications(packets: readonly string[]): ModificationReply[] {
    return packets.map((text) => {
      const bytes = Buffer.from(text, "latin1");
      return decodeReply(bytes[0]!, bytes, 1) as ModificationReply;
    });
  }

  function delivered(headers: readonly [string, string][], packets: readonly string[], keepsSpace: boolean): Message {
    const message: Message = {
      headers: headers.map(([name, value]) => ({ name, value })),
      body: Buffer.alloc(0),
      envelope: { sender: { address: "<a@c.test>", params: [] }, recipients: [{ address: "<b@mx.test>", params: [] }] },
    };
    return applyModifications(message, modifications(packets), { as: "postfix", leadingSpace: keepsSpace });
  }

  test.each([
    ["at eom", ["eom"]],
    ["at every phase", ["envfrom", "header", "eoh", "eom"]],
  ] as const)("headers: what two filters see %s is what is delivered", (_name, phases) => {
    forSeeds(2500, (random) => {
      const headers = randomHeaders(random);
      const keepsSpace = random.chance(0.5);
      let view: string[] = [];
      const known: Header[] = [];
      const filters = ["p", "q"].map((tag) => {
        const filter: Record<string, unknown> = {};
        for (const phase of phases) {
          filter[phase] = (session: Eom) => {
            randomCalls(random, session.message, tag + phase, known);
            if (phase === "eom") view = shown(session.message);
          };
        }
        return filter as AnyFilter;
      });
      const packets = packetsFor(filters, headers, keepsSpace);
      const result = delivered(headers, packets, keepsSpace);
      mustEqual(
        result.headers.map(({ name, value }) => `${name}:${value.replace(/^ /, "")}`),
        view,
        `headers ${JSON.stringify(headers)} with ${JSON.stringify(packets)}`,
      );
    });
  });

  test("headers: each view shows the call that was just made, also while headers still come", () => {
    forSeeds(1500, (random) => {
      const headers = randomHeaders(random);
      let before: string[] = [];
      const filter: AnyFilter = {
        envfrom: (session) => {
          if (random.chance(0.5)) session.message.insertHeader(random.below(3), "X-Early", "1");
        },
        header: (session) => void (before = shown(session.message as Eom["message"])),
        eom: (session) => {
          if (headers.length > 0)
            mustEqual(shown(session.message), before, "the view at eom, with nothing changed since");
          // Any change makes the view anew: what was there stays where it was.
          session.message.addHeader("X-Last", "1");
          if (headers.length > 0) mustEqual(shown(session.message), [...before, "X-Last:1"], "the view after a change");
        },
      };
      const second = eom(({ message }) => {
        const view = shown(message);
        if (headers.length > 0) mustEqual(view, [...before, "X-Last:1"], "the view of the next filter");
        before = view;
      });
      const packets = packetsFor([filter, second], headers);
      const result = delivered(headers, packets, true);
      mustEqual(
        result.headers.map(({ name, value }) => `${name}:${value.replace(/^ /, "")}`),
        before,
        "delivered",
      );
    });
  });

  test.each(["postfix", "sendmail"] as const)(
    "recipients and sender: what the last filter sees is what %s delivers",
    (as) => {
      forSeeds(500, (random) => {
        const addresses = ["a@x.test", "b@x.test", "B@x.test", "c@x.test"];
        const spell = (address: string): string =>
          random.pick([
            `<${address}>`,
            address,
            `<@r.test:${address}>`,
            `<"${address[0]}"@X.test>`,
            `<@r.test:${address}.>`,
          ]);
        const received = addresses.slice(0, 1 + random.below(3)).map(spell);
        let recipients: string[] = [];
        let sender = "";
        const filter = eom(({ message }) => {
          for (let count = random.below(5); count > 0; count--) {
            const address = random.pick(addresses);
            if (random.chance(0.5)) message.deleteRecipient(spell(address));
            else message.addRecipient(spell(address));
            if (random.chance(0.2)) message.changeFrom(random.pick(["", "s@x.test", "<t@x.test>"]));
          }
          recipients = message.recipients.map((one) => one.raw);
          sender = message.sender.raw;
        });
        const line = Line.to([filter, filter]);
        const replies = line.send(cmd.mail("<s@c.test>"), ...received.map((address) => cmd.rcpt(address)), cmd.eom());
        const message: Message = {
          headers: [],
          body: Buffer.alloc(0),
          envelope: {
            sender: { address: "<s@c.test>", params: [] },
            recipients: received.map((address) => ({ address, params: [] })),
          },
        };
        const sent = modifications(replies.filter((reply) => reply.length > 1));
        const { envelope } = applyModifications(message, sent, { as, leadingSpace: true });
        mustEqual(envelope.recipients.map((one) => one.address).toSorted(), recipients.toSorted(), "recipients");
        mustEqual(envelope.sender.address, sender, "sender");
      });
    },
  );
});

test("the longest that is taken goes out whole, in packets of at most 65,535 bytes", () => {
  const values = ["z".repeat(2037), `${`${"y".repeat(995)}\n `.repeat(60)}${"y".repeat(177)}`];
  const packets = packetsFor([
    eom(({ message }) => {
      for (const value of values) message.addHeader("X", value);
      message.addHeader("N".repeat(200), "1");
      message.addRecipient(`${"x".repeat(246)}@y.test`);
      message.quarantine("q".repeat(65_533));
    }),
  ]);
  expect(packets.map(({ length }) => length)).toEqual([257, 2042, 60_002, 205, 65_535]);
});

describe("message changes, what is refused", () => {
  test.each<[string, (message: Session<"envfrom">["message"]) => void]>([
    ["changeHeader", (message) => message.changeHeader("Subject", "new")],
    ["deleteHeader", (message) => message.deleteHeader("Subject")],
    ["insertHeader below the top", (message) => message.insertHeader(1, "X", "new")],
  ])("%s throws where no filter has the headers sent, instead of doing nothing", (method, change) => {
    const line = Line.to([{ envfrom: (session) => change(session.message) }]);
    expect(line.send(cmd.mail())).toEqual(["t"]);
    expect(line.failures.at(-1)?.message).toStartWith(`UsageError: ${method} needs the headers`);
    const served = Line.to([{ envfrom: (session) => change(session.message), eoh() {} }]);
    served.send(cmd.mail());
    expect(served.failures).toEqual([]);
  });

  test.each([
    ["a line break that begins another header", (m: Eom["message"]) => m.addHeader("X", "a\nBcc: b")],
    ["CRLF", (m: Eom["message"]) => m.addHeader("X", "a\r\nBcc: b")],
    ["a lone CR", (m: Eom["message"]) => m.addHeader("X", "a\rBcc: b")],
    ["an empty line", (m: Eom["message"]) => m.addHeader("X", "a\n\n b")],
    ["a line break at the end", (m: Eom["message"]) => m.addHeader("X", "a\n")],
    ["the same inserted", (m: Eom["message"]) => m.insertHeader(0, "X", "a\nBcc: b")],
    ["the same changed", (m: Eom["message"]) => m.changeHeader("X", "a\nBcc: b")],
    ["NUL in a value", (m: Eom["message"]) => m.addHeader("X", "a\0b")],
    ["an empty name", (m: Eom["message"]) => m.addHeader("", "x")],
    ["a colon in a name", (m: Eom["message"]) => m.addHeader("X:", "x")],
    ["a space in a name", (m: Eom["message"]) => m.addHeader("X Y", "x")],
    ["a line break in a name", (m: Eom["message"]) => m.addHeader("X\n", "x")],
    ["a name that is not ASCII", (m: Eom["message"]) => m.addHeader("Ä", "x")],
    ["a line break in a name to delete", (m: Eom["message"]) => m.deleteHeader("X\n")],
    ["a value that is no string", (m: Eom["message"]) => m.addHeader("X", 1 as never)],
    ["index 0 of changeHeader", (m: Eom["message"]) => m.changeHeader("X", "1", 0)],
    ["a negative index", (m: Eom["message"]) => m.insertHeader(-1, "X", "1")],
    ["half an index", (m: Eom["message"]) => m.deleteHeader("X", 1.5)],
    ["NaN as an index", (m: Eom["message"]) => m.insertHeader(Number.NaN, "X", "1")],
    ["a line break in an address", (m: Eom["message"]) => m.addRecipient("a@b\nc")],
    ["NUL in an address", (m: Eom["message"]) => m.changeFrom("a\0b")],
    ["two addresses", (m: Eom["message"]) => m.addRecipient("<a@b> <c@d>")],
    ["an empty recipient", (m: Eom["message"]) => m.addRecipient("")],
    ["an empty recipient in brackets", (m: Eom["message"]) => m.deleteRecipient("<>")],
    ["a space in an argument", (m: Eom["message"]) => m.addRecipient("a@b", ["NOTIFY=NEVER ORCPT=x"])],
    ["an empty argument", (m: Eom["message"]) => m.changeFrom("a@b", [""])],
    ["an argument with NUL", (m: Eom["message"]) => m.changeFrom("a@b", ["A\0"])],
    ["a line of white space alone", (m: Eom["message"]) => m.addHeader("X", "a\n \t\n b")],
    ["a last line of white space alone", (m: Eom["message"]) => m.insertHeader(0, "X", "a\n ")],
    ["half a surrogate pair", (m: Eom["message"]) => m.addHeader("X", "a\ud83d")],
    ["half a surrogate pair in a body", (m: Eom["message"]) => m.replaceBody("a\ude00b")],
    ["a line that Sendmail would break", (m: Eom["message"]) => m.addHeader("X", "z".repeat(2038))],
    ["the same in a fold", (m: Eom["message"]) => m.changeHeader("X", `a\n ${"z".repeat(2040)}`)],
    ["a header that Postfix would cut", (m: Eom["message"]) => m.addHeader("X", `a\n ${"y".repeat(998)}`.repeat(60))],
    ["a packet of 70,000 bytes", (m: Eom["message"]) => m.addHeader("X", "z".repeat(70_000))],
    ["the same in letters of three bytes", (m: Eom["message"]) => m.addHeader("X", "例".repeat(22_000))],
    ["a name that Sendmail would cut", (m: Eom["message"]) => m.addHeader("X".repeat(201), "1")],
    ["the same deleted", (m: Eom["message"]) => m.deleteHeader("X".repeat(201))],
    ["a recipient of 70,000 bytes", (m: Eom["message"]) => m.addRecipient(`${"x".repeat(70_000)}@y`)],
    ["a sender of 70,000 bytes", (m: Eom["message"]) => m.changeFrom(`${"x".repeat(70_000)}@y`)],
    ["arguments of 70,000 bytes", (m: Eom["message"]) => m.addRecipient("x@y", [`ORCPT=rfc822;${"x".repeat(70_000)}`])],
    ["the same of the sender", (m: Eom["message"]) => m.changeFrom("x@y", [`ENVID=${"x".repeat(70_000)}`])],
    ["a reason of 70,000 bytes", (m: Eom["message"]) => m.quarantine("x".repeat(70_000))],
    ["a reason that is one byte too long", (m: Eom["message"]) => m.quarantine(`${"x".repeat(65_532)}é`)],
    ["a C1 control in a reason", (m: Eom["message"]) => m.quarantine("a\u0085b")],
    ["another", (m: Eom["message"]) => m.quarantine("\u009b31m")],
    ["an escape in a reason", (m: Eom["message"]) => m.quarantine("\u001b[31m")],
    ["a tab in a reason", (m: Eom["message"]) => m.quarantine("a\tb")],
    ["DEL in a reason", (m: Eom["message"]) => m.quarantine("a\u007f")],
    ["a line separator in a reason", (m: Eom["message"]) => m.quarantine("a\u2028b")],
    ["a byte that is no text in a reason", (m: Eom["message"]) => m.quarantine("a\udc9b")],
    ["two addresses with a comma", (m: Eom["message"]) => m.addRecipient("a@b.test,c@d.test")],
    ["a space in an address", (m: Eom["message"]) => m.addRecipient("a b@example.org")],
    ["the same to delete, where nobody has it", (m: Eom["message"]) => m.deleteRecipient("a b@example.org")],
    ["an address without a domain", (m: Eom["message"]) => m.changeFrom("jane")],
    ["a hyphen in front", (m: Eom["message"]) => m.addRecipient("-jane@example.org")],
    ["an unknown argument", (m: Eom["message"]) => m.addRecipient("a@b", ["FOO=1"])],
    ["an argument without its value", (m: Eom["message"]) => m.addRecipient("a@b", ["NOTIFY"])],
    ["an argument of the other command", (m: Eom["message"]) => m.changeFrom("a@b", ["NOTIFY=NEVER"])],
    ["an argument given twice", (m: Eom["message"]) => m.changeFrom("a@b", ["RET=FULL", "ret=HDRS"])],
    ["an argument that is an object", (m: Eom["message"]) => m.changeFrom("a@b", [{} as never])],
    ["an empty reason", (m: Eom["message"]) => m.quarantine("")],
    ["a reason of two lines", (m: Eom["message"]) => m.quarantine("a\nb")],
    ["a body that is neither text nor bytes", (m: Eom["message"]) => m.replaceBody(7 as never)],
  ])("%s", (_name, change) => {
    expect(codeAt(change)).toBe("PMILTER_ERR_ARGUMENT");
  });

  test.each([
    ["addHeader", 0x01, (m: Eom["message"]) => m.addHeader("X", "1")],
    ["insertHeader", 0x01, (m: Eom["message"]) => m.insertHeader(0, "X", "1")],
    ["replaceBody", 0x02, (m: Eom["message"]) => m.replaceBody("x")],
    ["addRecipient", 0x04, (m: Eom["message"]) => m.addRecipient("x@y")],
    ["deleteRecipient", 0x08, (m: Eom["message"]) => m.deleteRecipient("x@y")],
    ["deleteHeader", 0x10, (m: Eom["message"]) => m.deleteHeader("X")],
    ["quarantine", 0x20, (m: Eom["message"]) => m.quarantine("x")],
    ["changeFrom", 0x40, (m: Eom["message"]) => m.changeFrom("x@y")],
    ["addRecipient with ESMTP arguments", 0x80, (m: Eom["message"]) => m.addRecipient("x@y", ["NOTIFY=NEVER"])],
  ] as const)("%s throws with its name where the mail server did not grant it", (name, action, change) => {
    expect(codeAt(change)).toBe("none");
    expect(codeAt(change, 0x1ff & ~action)).toBe("PMILTER_ERR_NOT_GRANTED");
    const line = Line.to([[eom((session) => change(session.message)), { onError: "continue" }]] as never, {
      actions: 0x1ff & ~action,
    });
    line.send(cmd.mail(), cmd.eom());
    expect(line.failures[0]!.message).toContain(`${name} needs the action `);
  });

  test("changeHeader of a header that is there needs its action", () => {
    const line = Line.to([eom(({ message }) => message.changeHeader("Subject", "x"))], { actions: 0x1ff & ~0x10 });
    line.send(cmd.mail(), cmd.header("Subject"), cmd.eom());
    expect(line.failures[0]!.message).toContain("changeHeader needs the action CHGHDRS");
  });

  test("addRecipient needs one action or the other, by its arguments", () => {
    const [plain, par] = [0x004, 0x080];
    expect(codeAt((message) => message.addRecipient("a@example.com"), plain)).toBe("none");
    expect(codeAt((message) => message.addRecipient("a@example.com"), par)).toBe("PMILTER_ERR_NOT_GRANTED");
    expect(codeAt((message) => message.addRecipient("a@example.com", ["NOTIFY=NEVER"]), par)).toBe("none");
    expect(codeAt((message) => message.addRecipient("a@example.com", ["NOTIFY=NEVER"]), plain)).toBe(
      "PMILTER_ERR_NOT_GRANTED",
    );
  });

  test("body() without collectBody, and a message where there is none, are not there", () => {
    expect(codeAt((message) => void message.body())).toBe("PMILTER_ERR_NOT_HERE");
    let code = "";
    Line.to([{ connect: (session) => void (code = errorOf(() => (session as unknown as Eom).message)) }]).send(
      cmd.connect(),
    );
    expect(code).toBe("PMILTER_ERR_NOT_HERE");
  });
});
