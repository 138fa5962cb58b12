/** Headers as handlers read them: text, bytes, addresses, and the header itself in a later phase and after changes. */
import { describe, expect, test } from "bun:test";
import { UsageError } from "../../src/index.ts";
import type { Header, Session } from "../../src/handler/types.ts";
import { ALL, cmd, LEADSPC, packet } from "../protocol/wire.ts";
import { type AnyFilter, Line, type Placed } from "./harness.ts";

type Eom = Session<"eom">["message"];
type Raw = readonly [name: string, raw: string];

const latin1 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
const utf8 = (text: string): string => Buffer.from(text).toString("latin1");

/** Plays a message with these headers, given as the bytes behind the colon; @returns the packets of changes. */
function play(filters: readonly Placed[], headers: readonly Raw[], protocol = ALL): string[] {
  const line = Line.to(filters, { protocol });
  const sent = headers.map(([name, raw]) => cmd.header(name, (protocol & LEADSPC) === 0 ? raw.replace(/^ /, "") : raw));
  const replies = line.send(cmd.mail(), cmd.rcpt(), ...sent, cmd.eoh(), cmd.body(), cmd.eom());
  if (line.failures.length > 0) throw new Error(line.failures[0]!.message);
  return replies.filter((reply) => reply !== "c");
}

/** What `read` gives at eom. */
function atEom<T>(headers: readonly Raw[], read: (message: Eom) => T, protocol = ALL): T {
  let result: T;
  play([{ eom: ({ message }) => void (result = read(message)) }], headers, protocol);
  return result!;
}

function errorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return error instanceof UsageError ? `${error.code}: ${error.message}` : String(error);
  }
  return "none";
}

describe("the text of a header", () => {
  test.each([
    [" plain", "plain"],
    ["", ""],
    [" ", ""],
    ["\t tab ", "tab"],
    ["\n folded\n\tonce more", "folded once more"],
    [" =?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"],
    ["\n =?utf-8?B?R3LD?=\n =?utf-8?B?vMOfZQ==?=", "Grüße"],
    [" =?utf-8?q?a=0D=0AX-Evil:_1?=", "a X-Evil: 1"],
    [" =?nothing?q?x?= =?utf-8?x?x?= =?", "=?nothing?q?x?= =?utf-8?x?x?= =?"],
    [` ${utf8("Grüße")}`, "Grüße"],
    [" \xe9t\xe9", "\udce9t\udce9"],
    [" =?utf-8?q?_[x]_?=", "[x]"],
  ])("%j", (raw, text) => {
    const seen = atEom([["Subject", raw]], ({ headers }) => [headers.text("subject"), headers.at(0)?.text]);
    expect(seen).toEqual([text, text]);
  });

  test("of a header that is not there it is undefined; of several it is that of the first", () => {
    const headers: Raw[] = [
      ["A", " 1"],
      ["a", " 2"],
    ];
    expect(atEom(headers, (message) => [message.headers.text("A"), message.headers.text("B")])).toEqual([
      "1",
      undefined,
    ]);
  });

  test("of a changed and of an added header it is the new text", () => {
    const text = atEom([["A", " 1"]], (message) => {
      message.changeHeader("A", "=?utf-8?q?=C3=A4?=");
      message.addHeader("B", "a\n b");
      return [message.headers.text("A"), message.headers.text("B")];
    });
    expect(text).toEqual(["ä", "a b"]);
  });

  test("whatever a client sends, nothing throws", () => {
    for (const raw of [
      "\xff\xfe\x80",
      "=?\xff?b?\xff?=",
      " =?utf-8?b?!!!!?=",
      "=?utf-7?q?+?=",
      ' "<\xc3@;:',
      "\x01\x7f\x80=?",
    ]) {
      const seen = atEom([["From", raw]], ({ headers }) => [
        headers.text("From"),
        headers.addresses("From"),
        headers.at(0)!.text,
      ]);
      expect(typeof seen[0]).toBe("string");
    }
  });
});

describe("the bytes of a header", () => {
  const RAWS = [
    "",
    " ",
    "x",
    " x",
    "  x",
    "\tx",
    "\n x",
    " a\n\tb \n  c\t",
    " \xe9\xff\x80",
    ` ${utf8("ü\ud83d\ude00")}`,
    " a\rb",
  ];

  test.each(RAWS)("are as they came: %j", (raw) => {
    expect(latin1(atEom([["X", raw]], ({ headers }) => headers.at(0)!.bytes))).toBe(raw);
  });

  test.each(RAWS)("without HDR_LEADSPC they begin with a space, since one may have been taken away: %j", (raw) => {
    const bytes = atEom([["X", raw]], ({ headers }) => headers.at(0)!.bytes, ALL & ~LEADSPC);
    expect(latin1(bytes)).toBe(raw.startsWith(" ") ? raw : ` ${raw}`);
  });

  test("of a changed or added header they are what is sent", () => {
    const seen: string[] = [];
    const packets = play(
      [
        {
          eom({ message }) {
            message.changeHeader("X", "ü\udce9");
            message.addHeader("Y", "1");
            seen.push(...[...message.headers].map(({ name, bytes }) => `${name}\0${latin1(bytes)}`));
          },
        },
      ],
      [["X", "\t\xff"]],
    );
    expect(seen).toEqual([`X\0\t${utf8("ü")}\xe9`, "Y\0 1"]);
    expect(packets).toEqual([`m\0\0\0\x01${seen[0]}\0`, `h${seen[1]}\0`]);
  });

  test("are a copy of the reader's own", () => {
    const seen = atEom([["X", " abc"]], ({ headers }) => {
      const { bytes } = headers.at(0)!;
      bytes.fill(0x2a);
      return [bytes.byteLength, bytes.buffer.byteLength, bytes.constructor, latin1(headers.at(0)!.bytes)];
    });
    expect(seen).toEqual([4, 4, Uint8Array, " abc"]);
  });
});

describe("the addresses of headers", () => {
  test("of all headers of a name, names decoded, groups flattened", () => {
    const headers: Raw[] = [
      ["To", ' "Doe, Jane" <jane@Example.ORG>,\n Team: a@b.c, =?utf-8?q?J=C3=B6rg?= <"j"@x.de>;'],
      ["Cc", " nobody"],
      ["to", " z@z.z"],
    ];
    expect(atEom(headers, (message) => message.headers.addresses("To"))).toEqual([
      { name: "Doe, Jane", address: "jane@Example.ORG", local: "jane", domain: "example.org" },
      { name: "", address: "a@b.c", local: "a", domain: "b.c" },
      { name: "Jörg", address: '"j"@x.de', local: "j", domain: "x.de" },
      { name: "", address: "z@z.z", local: "z", domain: "z.z" },
    ]);
    expect(atEom(headers, (message) => [message.headers.addresses("Cc"), message.headers.addresses("From")])).toEqual([
      [],
      [],
    ]);
  });

  test("are bounded", () => {
    expect(atEom([["To", " a@b.c,".repeat(20_000)]], ({ headers }) => headers.addresses("To").length)).toBe(2000);
  });
});

describe("a header by name and by place", () => {
  const HEADERS: readonly Raw[] = [
    ["A", " 1"],
    ["B", " 2"],
    ["a", " 3"],
  ];

  test("first, all, at", () => {
    const values = atEom(HEADERS, ({ headers }) => [
      headers.first("A")?.value,
      headers.all("A").map(({ value }) => value),
      [0, 1, 2, 3, -1, -3, -4].map((index) => headers.at(index)?.value),
      headers.first("C"),
      headers.all("C"),
    ]);
    expect(values).toEqual(["1", ["1", "3"], ["1", "2", "3", undefined, "3", "1", undefined], undefined, []]);
  });

  test("at header, -1 is the header at hand; a deleted one is not counted", () => {
    const seen: (string | undefined)[] = [];
    play(
      [
        {
          header({ message }) {
            seen.push(message.headers.at(-1)?.value);
            if (message.headers.length === 2) message.deleteHeader(message.headers.at(-1)!);
            seen.push(message.headers.at(-1)?.value);
          },
        },
      ],
      HEADERS,
    );
    expect(seen).toEqual(["1", "1", "2", "1", "3", "1"]);
  });
});

describe("changes by the header itself", () => {
  const HEADERS: readonly Raw[] = [
    ["A", " 1"],
    ["B", "\t2"],
    ["A", " 3"],
  ];

  /** The packets, and the headers that are seen afterwards. */
  function changed(change: (message: Eom) => void): { packets: string[]; seen: string } {
    let seen = "";
    const packets = play(
      [
        {
          eom({ message }) {
            change(message);
            seen = [...message.headers].map(({ name, value }) => `${name}:${value}`).join(" ");
          },
        },
      ],
      HEADERS,
    );
    return { packets, seen };
  }

  const third = (message: Eom): Header => message.headers.all("A")[1]!;

  test("changeHeader keeps the name as it is, and the white space after the colon", () => {
    expect(changed((message) => message.changeHeader(message.headers.at(1)!, "x"))).toEqual({
      packets: ["m\0\0\0\x01B\0\tx\0"],
      seen: "A:1 B:\tx A:3",
    });
    expect(changed((message) => message.changeHeader(third(message), "x")).packets).toEqual(["m\0\0\0\x02A\0 x\0"]);
  });

  test('changeHeader to "" deletes, to its own value sends nothing', () => {
    expect(changed((message) => message.changeHeader(third(message), ""))).toEqual({
      packets: ["m\0\0\0\x02A\0\0"],
      seen: "A:1 B:\t2",
    });
    expect(changed((message) => message.changeHeader(third(message), "3")).packets).toEqual([]);
  });

  test("deleteHeader deletes that header; once more, it does nothing", () => {
    const twice = changed((message) => {
      const header = third(message);
      message.deleteHeader(header);
      message.deleteHeader(header);
    });
    expect(twice).toEqual({ packets: ["m\0\0\0\x02A\0\0"], seen: "A:1 B:\t2" });
  });

  test("insertBefore the first header puts it below the mail server's own: all are taken out and appended as they were", () => {
    expect(changed((message) => message.insertBefore(message.headers.at(0)!, "X", "0"))).toEqual({
      packets: [
        "m\0\0\0\x02A\0\0",
        "m\0\0\0\x01B\0\0",
        "m\0\0\0\x01A\0\0",
        "i\x7f\xff\xff\xffX\0 0\0",
        "i\x7f\xff\xff\xffA\0 1\0",
        "i\x7f\xff\xff\xffB\0\t2\0",
        "i\x7f\xff\xff\xffA\0 3\0",
      ],
      seen: "X:0 A:1 B:\t2 A:3",
    });
  });

  test("insertBefore and insertAfter keep their order, also beside headers that were inserted, added or deleted", () => {
    const { seen } = changed((message) => {
      const first = message.headers.at(0)!;
      const last = third(message);
      message.insertAfter(last, "L", "1");
      message.insertAfter(last, "L", "0");
      message.insertBefore(first, "F", "0");
      message.insertBefore(first, "F", "1");
      message.deleteHeader(first);
      message.insertBefore(first, "F", "2");
      message.insertAfter(first, "F", "3");
      message.addHeader("Z", "1");
      message.insertBefore(message.headers.first("Z")!, "Z", "0");
      message.insertHeader(0, "T", "0");
      message.insertAfter(message.headers.first("T")!, "T", "1");
    });
    expect(seen).toBe("T:0 T:1 F:0 F:1 F:2 F:3 B:\t2 A:3 L:0 L:1 Z:0 Z:1");
  });

  test("beside a header that was inserted at the top it needs no index but that of the top", () => {
    const { packets } = changed((message) => {
      message.insertHeader(0, "T", "1");
      message.insertAfter(message.headers.at(0)!, "T", "2");
    });
    expect(packets).toEqual(["i\0\0\0\0T\0 2\0", "i\0\0\0\0T\0 1\0"]);
  });

  test("a header that was added and then deleted is never sent", () => {
    const { packets } = changed((message) => {
      message.addHeader("X", "1");
      message.deleteHeader(message.headers.first("X")!);
    });
    expect(packets).toEqual([]);
  });

  test("a header that was read at header is the same at eom, whatever happened around it", () => {
    const filter: AnyFilter = {
      header({ message, state }, name) {
        if (name === "B") state["kept"] = message.headers.at(-1);
        message.insertHeader(0, `T-${message.headers.length}`, "1");
      },
      eom({ message, state }) {
        message.deleteHeader("A");
        const kept = state["kept"] as Header;
        message.changeHeader(kept, `${kept.text}!`);
        // The object shows the header as it was.
        expect([kept.value, latin1(kept.bytes), message.headers.get("B")]).toEqual(["\t2", "\t2", "\t2!"]);
        message.insertAfter(kept, "X", "1");
      },
    };
    const packets = play([filter], HEADERS);
    expect(packets.slice(0, 3)).toEqual(["m\0\0\0\x02A\0\0", "m\0\0\0\x01B\0\t2!\0", "m\0\0\0\x01A\0\0"]);
    expect(packets).toContain("hX\0 1\0");
  });

  test("a header that is inserted beside the last one while headers still come stays beside it", () => {
    const filter: AnyFilter = {
      header({ message }, _name, value) {
        if (value === "\t2") message.insertAfter(message.headers.at(-1)!, "X", "1");
      },
      eom: ({ message }) => expect([...message.headers].map(({ name }) => name).join("")).toBe("ABXA"),
    };
    play([filter], HEADERS);
  });

  test("another filter's header object names the same header", () => {
    let kept: Header | undefined;
    const first: AnyFilter = { header: ({ message }) => void (kept ??= message.headers.at(0)) };
    const second: AnyFilter = { eom: ({ message }) => message.changeHeader(kept!, "x") };
    expect(play([first, second], HEADERS)).toEqual(["m\0\0\0\x01A\0 x\0"]);
  });

  test.each<[string, string, (message: Eom, kept: { later?: Header; failed?: Header; old?: Header }) => void]>([
    [
      "a header that is deleted",
      'PMILTER_ERR_ARGUMENT: changeHeader: the header "A" was deleted',
      (message) => {
        const header = message.headers.at(0)!;
        message.deleteHeader(header);
        message.changeHeader(header, "x");
      },
    ],
    [
      "a header that a later filter added",
      'PMILTER_ERR_ARGUMENT: deleteHeader: this filter does not see the header "X-Later": a later filter added it, or the filter that added it failed',
      (message, { later }) => message.deleteHeader(later!),
    ],
    [
      "a header of a filter that failed",
      'PMILTER_ERR_ARGUMENT: insertAfter: this filter does not see the header "X-Failed": a later filter added it, or the filter that added it failed',
      (message, { failed }) => message.insertAfter(failed!, "X", "1"),
    ],
    [
      "a header of another message",
      'PMILTER_ERR_OVER: insertBefore: the header "A" is of another message',
      (message, { old }) => message.insertBefore(old!, "X", "1"),
    ],
    [
      "an object that looks like one",
      "PMILTER_ERR_ARGUMENT: changeHeader takes a header that message.headers gave, got [object Object]",
      (message) => message.changeHeader({ ...message.headers.at(0)! }, "x"),
    ],
    [
      "null",
      "PMILTER_ERR_ARGUMENT: deleteHeader takes a header that message.headers gave, got null",
      (message) => message.deleteHeader(null as never),
    ],
  ])("what is refused: %s", (_name, expected, change) => {
    const kept: { later?: Header; failed?: Header; old?: Header } = {};
    let error = "";
    const isFirst = (message: Eom): boolean => message.headers.length < 3;
    const failing: Placed = [
      {
        eoh({ message }) {
          message.addHeader("X-Failed", "1");
          kept.failed = message.headers.at(-1)!;
        },
        eom: () => {
          throw new Error("on purpose");
        },
      },
      { onError: "continue" },
    ];
    const filter: AnyFilter = {
      eom({ message }) {
        if (isFirst(message)) kept.old = message.headers.at(0)!;
        else error = errorOf(() => change(message, kept));
      },
    };
    const late: AnyFilter = {
      eoh({ message }) {
        message.addHeader("X-Later", "1");
        kept.later = message.headers.at(-1)!;
      },
    };
    const line = Line.to([failing, filter, late]);
    line.send(cmd.mail(), cmd.header("A", " 0"), cmd.eoh(), cmd.eom());
    line.send(cmd.mail(), ...HEADERS.map(([name, raw]) => cmd.header(name, raw)), cmd.eoh(), cmd.eom());
    expect(error).toBe(expected);
  });

  test("a header that was read after the message is over cannot be changed", () => {
    let kept: Eom | undefined;
    let own: Header | undefined;
    const filter: AnyFilter = {
      eom({ message }) {
        kept = message;
        message.addHeader("X", "1");
        own = message.headers.at(-1)!;
      },
    };
    play([filter], HEADERS);
    const header = kept!.headers.at(0)!;
    expect(header.text).toBe("1");
    for (const each of [header, own!]) {
      expect(errorOf(() => kept!.changeHeader(each, "x"))).toStartWith("PMILTER_ERR_OVER");
      expect(errorOf(() => kept!.deleteHeader(each))).toStartWith("PMILTER_ERR_OVER");
    }
    expect(errorOf(() => kept!.rawHeaders({ withReceived: true }))).toStartWith("PMILTER_ERR_OVER");
  });

  test.each([
    ["insertBefore", 0x01],
    ["insertAfter", 0x01],
    ["changeHeader", 0x10],
    ["deleteHeader", 0x10],
  ] as const)("%s throws with its name where the mail server did not grant it", (method, action) => {
    const filter: AnyFilter = {
      eom({ message }: Session<"eom">) {
        const header = message.headers.at(0)!;
        if (method === "deleteHeader") message.deleteHeader(header);
        else if (method === "changeHeader") message.changeHeader(header, "x");
        else message[method](header, "X", "1");
      },
    };
    const line = Line.to([filter], { actions: 0x1ff & ~action });
    line.send(cmd.mail(), cmd.header(), cmd.eom());
    expect(line.failures[0]!.message).toContain(`${method} needs the action `);
  });
});

describe("rawHeaders", () => {
  const HEADERS: readonly Raw[] = [
    ["Subject", "hi"],
    ["X", " a\n\tb\n c"],
    ["x", "\t\xff\xe9 \x80"],
    ["Y", ""],
  ];
  const BLOCK = "Subject:hi\r\nX: a\r\n\tb\r\n c\r\nx:\t\xff\xe9 \x80\r\nY:\r\n";

  test.each(["eoh", "body", "eom"] as const)("%s: the block as it came, with CRLF", (phase) => {
    let block = "";
    const filter: AnyFilter = { [phase]: ({ message }: Session<"eom">) => void (block = latin1(message.rawHeaders())) };
    play([filter, { eoh() {} }], HEADERS);
    expect(block).toBe(BLOCK);
  });

  test("with the changes of the filters before, and its own", () => {
    let block = "";
    const first: AnyFilter = {
      eom({ message }) {
        message.changeHeader("Subject", "ü");
        message.deleteHeader("x", 1);
      },
    };
    const second: AnyFilter = {
      eom({ message }) {
        message.insertHeader(0, "T", "1\n 2");
        block = latin1(message.rawHeaders());
      },
    };
    play([first, second], HEADERS);
    expect(block).toBe(`T: 1\r\n 2\r\nSubject:${utf8("ü")}\r\nx:\t\xff\xe9 \x80\r\nY:\r\n`);
  });

  test("a message without headers has an empty block", () => {
    expect(atEom([], (message) => message.rawHeaders().length)).toBe(0);
  });

  test("before eoh it is not there", () => {
    const errors: string[] = [];
    const early: AnyFilter = {
      header: ({ message }) => void errors.push(errorOf(() => (message as unknown as Eom).rawHeaders())),
    };
    play([early], [["A", " 1"]]);
    expect(errors).toEqual(["PMILTER_ERR_NOT_HERE: message.rawHeaders() is there from eoh on"]);
  });

  test("a handler at body or eom has the headers sent", () => {
    for (const phase of ["body", "eom"] as const) {
      let block = "";
      play([{ [phase]: ({ message }: Session<"eom">) => void (block = latin1(message.rawHeaders())) }], [["A", " 1"]]);
      expect(block).toBe("A: 1\r\n");
    }
  });

  test("withReceived: a field made from the session stands on top", () => {
    const received = (opening: readonly Buffer[], sender = "<a@c.test>"): string => {
      let block = "";
      const line = Line.to([
        { eom: ({ message }) => void (block = latin1(message.rawHeaders({ withReceived: true }))) },
      ]);
      line.send(...opening, cmd.mail(sender), cmd.header("A", " 1"), cmd.eom());
      expect(line.failures).toEqual([]);
      expect(block).toEndWith("\r\nA: 1\r\n");
      return block.slice(0, -"A: 1\r\n".length).replace(/; .*\r\n$/, "");
    };
    const macros = cmd.macro("C", { j: "mx.test", i: "4ZB1", "{tls_version}": "TLSv1.3", "{auth_authen}": "jane" });
    expect(received([macros, cmd.connect("c.test", "192.0.2.7"), cmd.helo("helo.test")])).toBe(
      "Received: from helo.test (c.test [192.0.2.7])\r\n\tby mx.test (pmilter) with ESMTPSA id 4ZB1\r\n\t(envelope-from <a@c.test>)",
    );
    // A client chooses its name, and its sender.
    const hostile = received([cmd.connect("c.test"), cmd.helo("x (evil [127.0.0.1]);\r\n\xff")], '<"a>b (c"@d.test>');
    expect(hostile).toBe(
      "Received: from x??evil?[127.0.0.1]????? (c.test [192.0.2.7])\r\n\tby localhost (pmilter) with ESMTP\r\n\t(envelope-from <?a?b??c?@d.test>)",
    );
    expect(received([])).toContain("from unknown (unknown [unknown])");
    // A mail server that sends no address here is not one of the two; still it writes no field of its own.
    const odd = packet("C", "c.test\0", "6\x9c\x40", "::1\r\nX-Evil: 1\0");
    expect(received([odd])).toContain("(c.test [IPv6:::1??X-Evil:?1])\r\n\tby");
  });

  test("withReceived: its date is that of the end of the message, in the form of RFC 5322", () => {
    const [block, date] = atEom([], (message) => [
      latin1(message.rawHeaders({ withReceived: true })),
      message.receivedAt,
    ]);
    const written = /; (\w{3}, \d{2} \w{3} \d{4} [\d:]{8} \+0000)\r\n$/.exec(block)![1]!;
    expect(Date.parse(written)).toBe(Math.floor(date.getTime() / 1000) * 1000);
  });

  test("the time of a message is its own: setting the Date that a handler got changes nothing", () => {
    const [block, year] = atEom([], (message) => {
      message.receivedAt.setTime(Number.NaN);
      return [latin1(message.rawHeaders({ withReceived: true })), message.receivedAt.getFullYear()];
    });
    expect(block).not.toContain("Invalid");
    expect(year).toBeGreaterThan(2000);
  });
});
