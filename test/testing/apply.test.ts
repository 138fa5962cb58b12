/** Modifications applied as the mail servers do: docs/protocol.md, "Modifications". */
import { describe, expect, test } from "bun:test";
import type { ModificationReply } from "../../src/protocol/replies.ts";
import { applyModifications, type Message } from "../../src/testing/apply.ts";
import type { Habit } from "../../src/testing/habits.ts";

const message: Message = {
  headers: ["A: 1", "B: 2", "a: 3"].map((line) => ({ name: line[0]!, value: line.slice(2) })),
  body: Buffer.from("old\r\n"),
  envelope: {
    sender: { address: "<s@x>", params: [] },
    recipients: [
      { address: "<r@x>", params: [] },
      { address: "<q@x>", params: [] },
    ],
  },
};

function apply(replies: readonly ModificationReply[], as: Habit = "postfix", leadingSpace = false): Message {
  return applyModifications(message, replies, { as, leadingSpace });
}

function headers(replies: readonly ModificationReply[], as: Habit = "postfix", leadingSpace = false): string[] {
  return apply(replies, as, leadingSpace).headers.map(({ name, value }) => `${name}:${value}`);
}

const insert = (index: number, name = "X", value = "v") => ({ kind: "insertHeader", index, name, value }) as const;
const change = (index: number, name: string, value: string) => ({ kind: "changeHeader", index, name, value }) as const;

describe("headers", () => {
  test("addHeader appends", () => {
    expect(headers([{ kind: "addHeader", name: "X", value: "v" }])).toEqual(["A: 1", "B: 2", "a: 3", "X: v"]);
  });

  test.each([
    [0, ["X: v", "A: 1", "B: 2", "a: 3"]],
    [1, ["X: v", "A: 1", "B: 2", "a: 3"]],
    [2, ["A: 1", "X: v", "B: 2", "a: 3"]],
    [4, ["A: 1", "B: 2", "a: 3", "X: v"]],
    [99, ["A: 1", "B: 2", "a: 3", "X: v"]],
  ])("insertHeader at %i counts the server's own Received", (index, expected) => {
    expect(headers([insert(index)])).toEqual(expected);
  });

  test("insertions at 0 end up in reverse order", () => {
    expect(headers([insert(0, "X"), insert(0, "Y")]).slice(0, 2)).toEqual(["Y: v", "X: v"]);
  });

  test("changeHeader counts by name, whatever the case, and 0 as 1", () => {
    expect(headers([change(2, "A", "z")])).toEqual(["A: 1", "B: 2", "A: z"]);
    expect(headers([change(0, "a", "z")])).toEqual(["a: z", "B: 2", "a: 3"]);
  });

  test("changeHeader past the last one adds a value, and deletes nothing", () => {
    expect(headers([change(3, "A", "z")])).toEqual(["A: 1", "B: 2", "a: 3", "A: z"]);
    expect(headers([change(3, "A", "")])).toEqual(["A: 1", "B: 2", "a: 3"]);
  });

  test("after a deletion later ones move up in Postfix, and keep their number in Sendmail", () => {
    const twice = [change(1, "A", ""), change(2, "A", "")];
    expect(headers(twice, "postfix")).toEqual(["B: 2", "a: 3"]);
    expect(headers(twice, "sendmail")).toEqual(["B: 2"]);
  });

  test("an inserted header of the same name counts", () => {
    expect(headers([insert(0, "A", "new"), change(1, "A", "z")])).toEqual(["A: z", "A: 1", "B: 2", "a: 3"]);
  });

  test("the server's own Received cannot be changed", () => {
    expect(headers([change(1, "Received", "")])).toHaveLength(3);
  });

  test("the leading space is the server's, or with HDR_LEADSPC the filter's", () => {
    expect(headers([insert(0, "X", "v")], "postfix", true)[0]).toBe("X:v");
    expect(headers([insert(0, "X", " v")], "postfix", true)[0]).toBe("X: v");
  });

  test("a continuation line without white space gets a TAB", () => {
    expect(headers([insert(0, "X", "a\nb\n c\r\nd")])[0]).toBe("X: a\n\tb\n c\n\td");
  });
});

test("replaceBody packets together are the body, which may be empty", () => {
  const chunk = (text: string) => ({ kind: "replaceBody", chunk: Buffer.from(text) }) as const;
  expect(Buffer.from(apply([chunk("a"), chunk("b")]).body).toString()).toBe("ab");
  expect(apply([chunk("")]).body).toHaveLength(0);
  expect(apply([]).body).toBe(message.body);
});

test("the envelope: recipients compared exactly, brackets aside; the sender replaced", () => {
  const result = apply([
    { kind: "deleteRecipient", address: "r@x" },
    { kind: "deleteRecipient", address: "<Q@x>" },
    { kind: "addRecipient", address: "<n@x>", params: "NOTIFY=NEVER", withParams: true },
    { kind: "addRecipient", address: "<q@x>", params: "", withParams: false },
    { kind: "changeFrom", address: "<>", params: "RET=HDRS ENVID=1" },
    { kind: "quarantine", reason: "why" },
  ]);
  expect(result.envelope.recipients.map(({ address }) => address)).toEqual(["<q@x>", "<n@x>"]);
  expect(result.envelope.recipients[1]!.params).toEqual(["NOTIFY=NEVER"]);
  expect(result.envelope.sender).toEqual({ address: "<>", params: ["RET=HDRS", "ENVID=1"] });
  expect(result.quarantine).toBe("why");
});

test("the message given is left as it was", () => {
  const before = structuredClone(message.headers);
  apply([change(1, "A", ""), change(1, "B", "z")]);
  expect(message.headers).toEqual(before);
});
