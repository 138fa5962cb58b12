/** The soak itself: a short run of it, and that its books tell what is wrong. */
import { describe, expect, test } from "bun:test";
import { Account } from "../../soak/account.ts";
import { parseSoakArguments, SoakUsageError } from "../../soak/args.ts";
import { type Answer, judgeGreeting, judgeMessage } from "../../soak/judge.ts";
import { type MessagePlan, planSession } from "../../soak/plan.ts";
import { memoryOf, type Sample } from "../../soak/resources.ts";
import { soak } from "../../soak/run.ts";
import { Versions } from "../../soak/versions.ts";

test("a short run with every kind of fault: nothing dropped, wrong, late or left over", async () => {
  const summary = await soak(
    parseSoakArguments(["--seconds", "10", "--connections", "20", "--rate", "100"], 4),
    () => {},
  );
  expect(summary.examples).toEqual([]);
  expect(summary.problems).toEqual({ dropped: 0, wrong: 0, "accepted against a rule": 0, late: 0, server: 0 });
  expect(summary.tally["messages"]).toBeGreaterThan(200);
  expect(summary.incidents).toBeGreaterThan(0);
}, 90_000);

describe("the judge", () => {
  const session = planSession(1, 1, "mail");
  const body = new Uint8Array(0);
  const plan = (rule: MessagePlan["rule"]): MessagePlan => ({
    ...session.messages[0]!,
    rule,
    recipients: [{ address: "<pass.x.0@soak.example>", verdict: "pass" }],
    fault: null,
    isAborted: false,
    unknown: null,
  });
  const say = (phase: Answer["phase"], kind: "continue" | "accept" | "tempfail"): Answer => ({
    phase,
    reply: { kind },
  });
  const judge = (message: MessagePlan, answers: Answer[], incidents = 0) =>
    judgeMessage(message, { answers, modifications: null }, { incidents, body, session }).problems.map(
      ({ kind }) => kind,
    );

  test("a message that a rule refuses and that is accepted is the worst", () => {
    const message = plan({ verdict: "reject", phase: "envfrom" });
    expect(judge(message, [say("envfrom", "continue"), say("envrcpt", "continue"), say("eom", "continue")])).toContain(
      "accepted against a rule",
    );
  });

  test("the fallback is wrong unless a worker was lost meanwhile", () => {
    const message = plan({ verdict: "pass", phase: "eom" });
    expect(judge(message, [say("envfrom", "tempfail")])).toEqual(["wrong"]);
    expect(judge(message, [say("envfrom", "tempfail")], 1)).toEqual([]);
  });

  test("a connection that is refused without a rule is wrong", () => {
    expect(judgeGreeting({ ...session, rule: null }, say("connect", "tempfail"), 0).problems).toHaveLength(1);
    expect(judgeGreeting({ ...session, rule: null }, say("connect", "continue"), 0).problems).toEqual([]);
  });
});

test("the books: what is counted too often or too seldom shows, and so does every problem", () => {
  const account = new Account();
  account.count("messages", 5, 2);
  const isRight = (messages: number) => account.compare({ messages }, ["messages"])[0]!.isRight;
  expect([4, 5, 7, 8].map(isRight)).toEqual([false, true, true, false]);
  expect(account.hasFailed).toBe(false);
  account.problem("dropped", 0, 1, "closed");
  expect(account.hasFailed).toBe(true);
  expect(account.examples).toMatchObject([{ kind: "dropped", text: "closed" }]);
});

test("versions: an old one, a broken one, two in one message", () => {
  const versions = new Versions();
  versions.written(1, false);
  versions.serves(1, 0);
  versions.written(2, true);
  versions.written(3, false);
  versions.serves(3, 100);
  expect(versions.problemOf([3, 3, 3], 1, 3)).toBeNull();
  expect(versions.problemOf([1, 1, 3], 1, 1)).toContain("expected one");
  expect(versions.problemOf([2], 1, 1)).toContain("does not load");
  expect(versions.problemOf([1], 3, 1)).toContain("after");
  expect(versions.problemOf([1], 1, 3)).toContain("expected 3");
});

test("memory that rises in the second half is not flat, memory that only warms up is", () => {
  const samples = (residentAt: (second: number) => number): Sample[] =>
    Array.from({ length: 100 }, (_, second) => ({
      at: second * 1000,
      residentBytes: residentAt(second) * 2 ** 20,
      descriptors: 1,
      threads: 1,
      isEating: false,
    }));
  expect(memoryOf(samples((second) => 100 + Math.min(second, 40))).isFlat).toBe(true);
  expect(memoryOf(samples((second) => 100 + second)).isFlat).toBe(false);
});

test("wrong usage says what was expected", () => {
  for (const args of [["--seconds", "0"], ["--faults", "some"], ["--speed", "1"], ["now"], ["--rate"]]) {
    expect(() => parseSoakArguments(args, 1)).toThrow(SoakUsageError);
  }
});
