/** What becomes of a session whose worker is lost, as a table: from the record to the replies and to what goes on. */
import { describe, expect, test } from "bun:test";
import type { SlotRecord } from "../../src/shared/session-records.ts";
import { handOver, recover, RULE_NAMES, rulesFor } from "../../src/server/handover/recovery.ts";
import type { Circumstances } from "../../src/server/handover/situation.ts";
import { cmd } from "../protocol/wire.ts";

const OPENING = Buffer.concat([cmd.connect(), cmd.helo()]);
const NOTHING = new Uint8Array(0);

const RECORD: SlotRecord = {
  state: "connected",
  pendingCode: 0,
  owed: 0,
  firstOwed: 0,
  untaken: 0,
  missing: 0,
  partial: NOTHING,
  isPartialKept: false,
  call: null,
  waitedMs: 0,
  version: 6,
  actions: 0x1ff,
  protocol: 0,
  opening: OPENING,
  isHalfSent: false,
  isOver: false,
  hasMacrosAhead: false,
  isOpeningAhead: false,
  isInOpening: false,
  answersOpening: false,
  isAnew: false,
  hasRead: true,
  queueId: "",
  user: "",
  sender: null,
  messageMs: 0,
};

const TEMPFAIL = { onError: "tempfail", onTimeout: "tempfail", isObserved: false } as const;
const filter = (onTimeout: "tempfail" | "reject" | "accept" | "continue", isObserved = false) =>
  ({ onError: "tempfail", onTimeout, isObserved }) as const;

const CIRCUMSTANCES: Circumstances = {
  cause: "blocked",
  isSuspect: false,
  filters: [TEMPFAIL],
  skippedFilters: [],
  isOffender: false,
};

function recovered(record: Partial<SlotRecord>, circumstances: Partial<Circumstances> = {}) {
  const result = recover(
    { ...RECORD, ...record },
    {
      ...CIRCUMSTANCES,
      ...circumstances,
    },
  );
  if (result.kind === "end") return result;
  const { replies, session, verdict } = result;
  return {
    replies: [...replies]
      .filter((_, index) => index % 5 === 4)
      .map((code) => String.fromCharCode(code))
      .join(""),
    verdict: verdict === null ? null : `${verdict.scope} ${verdict.outcome}`,
    pending:
      session.pending === null ? null : `${session.pending.scope} ${String.fromCharCode(session.pending.packet[4]!)}`,
    skippedFilters: session.skippedFilters,
    session,
  };
}

const code = (letter: string) => letter.charCodeAt(0);

describe("a session beside the one that its worker was lost to", () => {
  test.each([
    ["not negotiated", { state: "start", version: 0, opening: NOTHING }, "", null],
    ["before CONNECT", { state: "idle", opening: NOTHING }, "", null],
    ["between messages", {}, "", null],
    ["within a message", { state: "message" }, "", "message t"],
    ["in a message with a reply awaited", { state: "message", owed: 1, firstOwed: code("E") }, "t", "message t"],
    ["waiting at envfrom", { call: { phase: "envfrom", filter: 0 }, owed: 1, firstOwed: code("M") }, "t", "message t"],
    [
      "waiting at a content phase without a reply",
      { state: "message", call: { phase: "header", filter: 0 } },
      "",
      "message t",
    ],
    ["after a message that was decided early", { state: "decided" }, "", "message t"],
    ["with MAIL read and not worked on", { untaken: 2, owed: 1, firstOwed: code("M") }, "t", "message t"],
    ["with MAIL read that gets no reply", { untaken: 1 }, "", "message t"],
    ["waiting at unknown", { call: { phase: "unknown", filter: 0 }, owed: 1, firstOwed: code("U") }, "c", null],
    [
      "waiting at unknown in a message",
      { state: "message", call: { phase: "unknown", filter: 0 }, owed: 1, firstOwed: code("U") },
      "c",
      "message t",
    ],
    ["waiting at abort", { call: { phase: "abort", filter: 0 } }, "", null],
    ["with HELO read and not worked on", { untaken: 1, owed: 1, firstOwed: code("H") }, "t", "connection t"],
    ["whose first packets are not known", { opening: null }, "", "connection t"],
  ] as const)("%s", (_, record, replies, pending) => {
    expect(recovered(record as Partial<SlotRecord>)).toMatchObject({ replies, pending });
  });

  test("waiting at connect or helo: it is asked again, and answered by the next worker", () => {
    const result = recovered({ call: { phase: "helo", filter: 0 }, owed: 1, firstOwed: code("H") });
    expect(result).toMatchObject({ replies: "", pending: null, verdict: null, session: { answersOpening: true } });
  });

  test("a message that had its verdict is not counted again, one that had not is", () => {
    const decided = { state: "decided", pendingCode: code("r") } as const;
    expect(recovered(decided)).toMatchObject({ verdict: null, pending: "message r" });
    expect(recovered({ ...decided, untaken: 1, owed: 1 })).toMatchObject({ verdict: "message tempfail" });
    expect(recovered({ state: "message" })).toMatchObject({ verdict: "message tempfail" });
  });

  test.each([
    ["its session was over", { isOver: true }, false],
    ["a reply had left in part", { isHalfSent: true }, true],
    ["its negotiation was lost", { version: 0, owed: 1, state: "start" }, true],
    ["a packet of it was lost in part", { partial: Buffer.from([0, 0, 9, 9, code("M")]), missing: 5 }, true],
    ["a packet of it was lost in part", { partial: Buffer.from([0, 0, 9, 9, code("B")]), missing: -1 }, true],
  ] as const)("it ends where %s", (reason, record, isFailure) => {
    expect(recovered(record as Partial<SlotRecord>)).toEqual({ kind: "end", reason, isFailure });
  });
});

describe("a packet that was half read", () => {
  test("goes on whole if all of its beginning is known", () => {
    const begun = cmd.mail().subarray(0, 9);
    expect(recovered({ partial: begun, isPartialKept: true, missing: 7 })).toMatchObject({
      pending: null,
      session: { partial: begun, lost: null },
    });
  });

  test("is passed over if it is one of a message, which gets the fallback", () => {
    const begun = Buffer.from([0, 0, 255, 255, code("B")]);
    expect(recovered({ partial: begun, missing: 60_000 })).toMatchObject({
      pending: "message t",
      session: { partial: NOTHING, lost: { missing: 60_000, code: code("B") } },
    });
  });

  test("is dropped if it held macros", () => {
    const begun = Buffer.from([0, 0, 255, 255, code("D"), code("U")]);
    expect(recovered({ partial: begun, missing: 9 })).toMatchObject({
      pending: null,
      session: { lost: { missing: 9, code: 0 } },
    });
  });
});

describe("the session that its worker was lost to", () => {
  const at = (phase: "connect" | "envfrom" | "envrcpt" | "eom" | "abort" | "close", filterIndex = 0) => ({
    call: { phase, filter: filterIndex },
    owed: phase === "abort" || phase === "close" ? 0 : 1,
    firstOwed: code({ connect: "C", envfrom: "M", envrcpt: "R", eom: "E", abort: "A", close: "Q" }[phase]),
  });
  const guilty = { isSuspect: true } as const;

  test("in a message: the fallback of its filter", () => {
    for (const [onTimeout, letter] of [
      ["tempfail", "t"],
      ["reject", "r"],
      ["accept", "c"],
      ["continue", "c"],
    ] as const) {
      expect(recovered(at("eom"), { ...guilty, filters: [filter(onTimeout)] })).toMatchObject({
        replies: letter,
        pending: `message ${letter}`,
      });
    }
  });

  test("where its filter lets pass, the strictest of the others rules, since they cannot decide any more", () => {
    const filters = [filter("continue"), filter("reject"), filter("accept")];
    expect(recovered(at("eom"), { ...guilty, filters })).toMatchObject({ replies: "r" });
    expect(recovered(at("eom"), { ...guilty, filters: [...filters, filter("tempfail")] })).toMatchObject({
      replies: "t",
    });
    expect(recovered(at("eom", 1), { ...guilty, filters: [...filters, filter("tempfail")] })).toMatchObject({
      replies: "r",
    });
  });

  test("filters in observe mode decide nothing", () => {
    const filters = [filter("reject", true), filter("continue")];
    expect(recovered(at("eom"), { ...guilty, filters })).toMatchObject({ replies: "c" });
    expect(recovered(at("connect"), { ...guilty, filters })).toMatchObject({ replies: "c", pending: null });
  });

  test("a worker that died: on_error instead of on_timeout", () => {
    const filters = [{ onError: "reject", onTimeout: "continue", isObserved: false } as const];
    expect(recovered(at("eom"), { ...guilty, filters, cause: "died" })).toMatchObject({ replies: "r" });
    expect(recovered(at("eom"), { ...guilty, filters, cause: "memory" })).toMatchObject({ replies: "c" });
  });

  test("at connect: the fallback for the connection, and no handler is asked again", () => {
    expect(recovered(at("connect"), { ...guilty, filters: [TEMPFAIL, TEMPFAIL] })).toMatchObject({
      replies: "t",
      pending: "connection t",
      verdict: "connection tempfail",
      skippedFilters: [{ filter: 0 }, { filter: 1 }],
    });
  });

  test("at connect with a fallback that lets pass: asked again without that filter, and those passed over before", () => {
    const filters = [filter("continue"), filter("accept"), filter("tempfail")];
    const first = recovered(at("connect"), { ...guilty, filters });
    expect(first).toMatchObject({ replies: "c", pending: null, skippedFilters: [{ filter: 0, isOver: false }] });
    const skippedFilters = [{ filter: 0, isOver: false }];
    expect(recovered(at("connect", 1), { ...guilty, filters, skippedFilters })).toMatchObject({
      skippedFilters: [...skippedFilters, { filter: 1, isOver: true }],
    });
  });

  test("a connection that was refused stays so, whatever is lost next, and is not counted again", () => {
    expect(recovered({ state: "refused", pendingCode: code("r"), owed: 1, untaken: 1 }, guilty)).toMatchObject({
      replies: "r",
      pending: "connection r",
      verdict: null,
      skippedFilters: [{ filter: 0 }],
    });
  });

  test("a verdict that was found and not given yet is the message's, not the fallback", () => {
    for (const [letter, verdict] of [
      ["r", "reject"],
      ["d", "discard"],
      ["a", "accept"],
      ["t", "tempfail"],
    ] as const) {
      const record = { state: "message", pendingCode: code(letter), owed: 1, firstOwed: code("E") } as const;
      expect(recovered(record, { filters: [filter("continue")] })).toMatchObject({
        replies: letter,
        pending: `message ${letter}`,
        verdict: `message ${verdict}`,
      });
    }
  });

  test("at abort or close the message is over: nothing is refused", () => {
    expect(recovered({ ...at("abort"), state: "message" }, guilty)).toMatchObject({ replies: "", pending: null });
    expect(recovered({ ...at("close"), state: "message" }, guilty)).toMatchObject({ replies: "", pending: null });
  });
});

test("handOver: a session between messages goes on as it is", () => {
  expect(handOver(RECORD, [])).toEqual({
    version: 6,
    actions: 0x1ff,
    protocol: 0,
    opening: OPENING,
    answersOpening: false,
    waitedMs: 0,
    pending: null,
    nextMessage: null,
    partial: NOTHING,
    lost: null,
    skippedFilters: [],
  });
});

describe("what was known of the session before it on the connection", () => {
  const skippedFilters = [{ filter: 0, isOver: true }];

  test("is not known of the next", () => {
    expect(recovered({}, { skippedFilters })).toMatchObject({ skippedFilters });
    expect(recovered({ isAnew: true }, { skippedFilters })).toMatchObject({ skippedFilters: [] });
    expect(handOver({ ...RECORD, isAnew: true }, skippedFilters)).toMatchObject({ skippedFilters: [] });
    expect(handOver(RECORD, skippedFilters)).toMatchObject({ skippedFilters });
  });
});

describe("macros whose command has not come", () => {
  const due = (record: Partial<SlotRecord>, circumstances: Partial<Circumstances> = {}) => {
    const result = recovered(record, circumstances);
    if (!("session" in result)) throw new Error(result.reason);
    const { pending, verdict, session } = result;
    return {
      pending,
      verdict,
      nextMessage: session.nextMessage === null ? null : String.fromCharCode(session.nextMessage[4]!),
    };
  };
  const CUT = (command: string) => Buffer.from([0, 0, 9, 9, code("D"), code(command)]);

  test("are lost: the message that they were for gets the fallback", () => {
    expect(due({ hasMacrosAhead: true })).toEqual({ pending: null, verdict: "message tempfail", nextMessage: "t" });
    expect(due({ hasMacrosAhead: true }, { filters: [filter("reject")] })).toMatchObject({ nextMessage: "r" });
    expect(due({ hasMacrosAhead: true }, { filters: [filter("continue")] })).toMatchObject({ nextMessage: null });
  });

  test("are lost again: it gets what was found for it, which is not counted again", () => {
    const again = { hasMacrosAhead: true, pendingCode: code("r") };
    expect(due(again)).toEqual({ pending: null, verdict: null, nextMessage: "r" });
  });

  test("that were cut count as well, unless they are of the connection or of the message that is open", () => {
    expect(due({ partial: CUT("M"), missing: 900 })).toMatchObject({ nextMessage: "t" });
    expect(due({ partial: CUT("M").subarray(0, 5), missing: 900 })).toMatchObject({ nextMessage: "t" });
    expect(due({ partial: CUT("H"), missing: 900 })).toMatchObject({ nextMessage: null, pending: "connection t" });
    expect(due({ partial: CUT("R"), missing: 900, state: "message" })).toMatchObject({
      nextMessage: null,
      pending: "message t",
    });
  });

  test("of a refused connection change nothing", () => {
    const refused = { hasMacrosAhead: true, state: "refused", pendingCode: code("r") } as const;
    expect(due(refused)).toMatchObject({ pending: "connection r", nextMessage: null });
  });
});

describe("CONNECT or HELO that came behind and were not worked on", () => {
  const ahead = { isOpeningAhead: true, untaken: 2, owed: 1, firstOwed: code("M") } as const;

  test("nobody is asked about what follows with the client or the HELO before: the connection gets the fallback", () => {
    const atAbort = { ...ahead, call: { phase: "abort", filter: 0 } } as const;
    expect(recovered(atAbort)).toMatchObject({ replies: "t", pending: "connection t", verdict: "connection tempfail" });
    expect(recovered({ ...ahead, call: { phase: "body", filter: 0 }, state: "message" })).toMatchObject({
      pending: "connection t",
    });
  });

  test("with the CONNECT of the next session still to come, the connection ends; with it lost, it gets the fallback", () => {
    const idle = { state: "idle", call: { phase: "close", filter: 0 }, isOpeningAhead: true, untaken: 1 } as const;
    expect(recovered(idle)).toMatchObject({ kind: "end", reason: "macros of its next session were lost" });
    expect(recovered({ ...idle, untaken: 2, owed: 1, firstOwed: code("C") })).toMatchObject({
      pending: "connection t",
    });
  });

  test("of a connection that was accepted, or refused: the fallback, which lets pass nothing that was refused", () => {
    const lenient = { filters: [filter("continue")] };
    const was = (letter: string) => ({ ...ahead, state: "refused", pendingCode: code(letter) }) as const;
    expect(recovered(was("a"))).toMatchObject({ replies: "t", pending: "connection t" });
    expect(recovered(was("r"), lenient)).toMatchObject({ replies: "r", pending: "connection r" });
  });
});

describe("a second loss, while the packets that began it are worked on again", () => {
  const again = { isInOpening: true, call: { phase: "connect", filter: 0 } } as const;

  test("with nothing else read: as if nothing had happened", () => {
    expect(recovered(again)).toMatchObject({ replies: "", pending: null, verdict: null });
  });

  test("with a reply to be given at their end: it is still to be given", () => {
    const answers = { ...again, answersOpening: true, owed: 1, firstOwed: code("H") };
    expect(recovered(answers)).toMatchObject({ replies: "", pending: null, session: { answersOpening: true } });
  });

  test("with the first command of a message read: that message gets the fallback", () => {
    const behind = { ...again, owed: 1, firstOwed: code("M"), untaken: 1 };
    expect(recovered(behind)).toMatchObject({ replies: "t", pending: "message t" });
    expect(recovered({ ...again, untaken: 1 })).toMatchObject({ replies: "", pending: "message t" });
  });

  test("by its own handler, where its filter lets pass: what came behind was still seen by nobody", () => {
    const behind = { ...again, owed: 1, firstOwed: code("M"), untaken: 1 };
    const filters = [filter("accept"), filter("tempfail")];
    expect(recovered(behind, { isSuspect: true, filters })).toMatchObject({
      replies: "t",
      pending: "message t",
      skippedFilters: [{ filter: 0, isOver: true }],
    });
  });
});

describe("each rule decides on some session", () => {
  const CASES: readonly (readonly [string, Partial<SlotRecord>, Partial<Circumstances>?])[] = [
    ["session over", { isOver: true }],
    ["reply sent in part", { isHalfSent: true }],
    ["negotiation lost", { version: 0, owed: 1 }],
    ["next opening lost", { state: "idle", isOpeningAhead: true }],
    ["connection decided", { state: "refused", pendingCode: code("r") }],
    ["opening too long", { opening: null }],
    ["opening unseen", { isOpeningAhead: true }],
    ["repeats", { state: "message" }, { isOffender: true }],
    ["repeats, let pass: no message", {}, { isOffender: true, filters: [filter("accept")] }],
    ["bystander at the opening", { call: { phase: "helo", filter: 0 }, owed: 1, firstOwed: code("H") }],
    ["blocked at the opening", { call: { phase: "helo", filter: 0 } }, { isSuspect: true }],
    [
      "blocked at the opening, let pass",
      { call: { phase: "helo", filter: 0 } },
      { isSuspect: true, filters: [filter("continue")] },
    ],
    ["message: verdict found", { state: "message", pendingCode: code("r") }],
    ["message: blocked", { state: "message", call: { phase: "body", filter: 0 } }, { isSuspect: true }],
    ["message: bystander", { state: "message", call: { phase: "body", filter: 0 } }],
    ["message: no message", {}],
  ];

  test.each(CASES)("%s", (name, record, circumstances = {}) => {
    const names = rulesFor({ ...RECORD, ...record }, { ...CIRCUMSTANCES, ...circumstances });
    expect(names.join(": ")).toBe(name);
  });

  test("none is left without a case, and those of a failure have the name of its row", async () => {
    const reached = new Set(CASES.flatMap(([name]) => name.split(": ")));
    expect(RULE_NAMES.filter((name) => !reached.has(name))).toEqual([]);
    const rows = await Bun.file(`${import.meta.dir}/../../docs/failures.md`).text();
    for (const name of ["blocked", "bystander", "repeats"]) {
      expect(RULE_NAMES).toContain(name);
      expect(rows).toContain(`| \`${name}\``);
    }
  });
});
