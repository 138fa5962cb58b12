/**
 * Every phase with every verdict, sync and async: what goes over the wire at which packet, and what a verdict that the
 * phase lacks becomes.
 */
import { describe, expect, test } from "bun:test";
import { accept, discard, reject, skip, tempfail } from "../../src/index.ts";
import type { Fallback } from "../../src/handler/fallback.ts";
import type { Phase } from "../../src/protocol/phases.ts";
import { ALL, SKIP } from "../protocol/wire.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line, NO_NR, play, type Setting, settled, type StepName } from "./harness.ts";

const VERDICTS = {
  nothing: () => undefined,
  accept: () => accept(),
  reject: () => reject(),
  tempfail: () => tempfail(),
  discard: () => discard(),
  skip: () => skip(),
  "a reply": () => reject("550 5.1.1 No\n100%"),
  "a tempfail reply": () => tempfail("421 4.7.0 Bye"),
} as const;
type VerdictName = keyof typeof VERDICTS;
const REPLY = "y550-5.1.1 No\r\n550 5.1.1 100%%\0";
const REPLY_421 = "y421 4.7.0 Bye\0";

/** A filter that returns this at one phase; its handlers elsewhere pass, and keep all phases on the wire. */
function filterAt(phase: Phase, give: () => unknown, isAsync: boolean): AnyFilter {
  const pass = () => undefined;
  const filter: Record<string, unknown> = {};
  for (const name of ["connect", "helo", "envfrom", "envrcpt", "data", "header", "eoh", "body", "eom"])
    filter[name] = pass;
  filter[phase] = isAsync
    ? async () => {
        await Promise.resolve();
        return give();
      }
    : give;
  return filter as AnyFilter;
}

const ALL_STEPS = "connect helo envfrom envrcpt data header eoh body eom".split(" ") as StepName[];

/** What each step is answered if `reply` comes at `phase` and again from then on. */
function from(phase: StepName, reply: string): string {
  const at = ALL_STEPS.indexOf(phase);
  return ALL_STEPS.map((step, index) => `${step}:${index < at ? "c" : reply}`).join(" ");
}

/** What each step is answered if `reply` comes at `phase` alone. */
function only(phase: StepName, reply: string): string {
  return ALL_STEPS.map((step) => `${step}:${step === phase ? reply : "c"}`).join(" ");
}

/** What a verdict looks like when no reply is taken away: by phase and verdict; null: the phase lacks it. */
function expectedAt(phase: StepName, verdict: VerdictName): string | null {
  const reply = {
    nothing: "c",
    accept: "a",
    reject: "r",
    tempfail: "t",
    discard: "d",
    skip: "s",
    "a reply": REPLY,
    "a tempfail reply": REPLY_421,
  }[verdict];
  if (verdict === "nothing") return only(phase, "c");
  if (verdict === "skip") return phase === "body" ? only("body", "s") : null;
  if (verdict === "discard" && (phase === "connect" || phase === "helo")) return null;
  // At envrcpt these are about the recipient alone.
  if (phase === "envrcpt" && verdict !== "accept" && verdict !== "discard") return only("envrcpt", reply);
  return phase === "eom" ? only("eom", verdict === "accept" ? "c" : reply) : from(phase, reply);
}

describe.each([
  ["sync", false],
  ["async", true],
])("Conversation, %s verdicts where every event is answered", (_name, isAsync) => {
  describe.each(ALL_STEPS)("%s", (phase) => {
    test.each(Object.keys(VERDICTS) as VerdictName[])("%s", async (verdict) => {
      // SKIP is offered only where it is looked at: with it, a body that nobody wants is skipped rather than accepted.
      const protocol = verdict === "skip" ? NO_NR : NO_NR & ~SKIP;
      const line = Line.to([filterAt(phase, VERDICTS[verdict], isAsync)], { protocol });
      line.replies();
      const seen = await play(line);
      const expected = expectedAt(phase, verdict);
      if (expected !== null) {
        // The end of a message that was accepted is CONTINUE or ACCEPT, the same to both mail servers.
        expect(phase === "eom" && verdict === "accept" ? seen.replace("eom:a", "eom:c") : seen).toBe(expected);
        expect(line.failures).toEqual([]);
        return;
      }
      const scope = phase === "envrcpt" ? only("envrcpt", "t") : phase === "eom" ? only("eom", "t") : from(phase, "t");
      expect(seen).toBe(scope);
      expect(line.failures).toHaveLength(1);
      expect(line.failures[0]).toMatchObject({ cause: "error", phase, fallback: "tempfail", filter: "filter1" });
      expect(line.failures[0]!.message).toContain(`${verdict}() is no verdict of phase ${phase}`);
    });
  });
});

describe("Conversation, values that are no verdicts", () => {
  test.each([
    ["a string", "reject"],
    ["true", true],
    ["false", false],
    ["null", null],
    ["a number", 550],
    ["an object that looks like one", { kind: "reject" }],
    ["a function", reject],
  ])("%s is an error of the handler", async (_name, value) => {
    for (const isAsync of [false, true]) {
      const line = Line.to([filterAt("envfrom", () => value, isAsync)], { protocol: NO_NR });
      expect(await play(line, ["envfrom"])).toBe("envfrom:t");
      expect(line.failures).toHaveLength(1);
      expect(line.failures[0]!.message).toStartWith("UsageError: the envfrom handler returned ");
    }
  });

  test("unknown takes reject and tempfail alone, and a failure there is only logged", () => {
    const answers = { accept, discard, skip, reject, tempfail } as const;
    for (const [name, make] of Object.entries(answers)) {
      const line = Line.to([{ unknown: () => make() as never }], { protocol: NO_NR });
      const isAllowed = name === "reject" || name === "tempfail";
      expect(line.send(cmd.connect(), cmd.unknown()).at(-1)).toBe(isAllowed ? name[0]! : "c");
      expect(line.failures.map((failure) => failure.fallback)).toEqual(isAllowed ? [] : ["none"]);
      // It ends nothing: the next command is asked about again.
      expect(line.send(cmd.unknown())).toEqual([isAllowed ? name[0]! : "c"]);
    }
  });

  test("unknown gives the reply text", () => {
    const line = Line.to([{ unknown: (_session, command) => reject(`500 5.5.1 No ${command}`) }]);
    expect(line.send(cmd.connect(), cmd.unknown("XYZ")).at(-1)).toBe("y500 5.5.1 No XYZ\0");
  });

  test("abort and close decide nothing: a verdict there is an error that is only logged", () => {
    for (const phase of ["abort", "close"] as const) {
      const line = Line.to([{ [phase]: () => reject() }]);
      line.send(cmd.connect(), cmd.mail());
      line.replies();
      expect(line.send(cmd.abort(), cmd.quit())).toEqual([]);
      expect(line.failures.map((failure) => [failure.phase, failure.fallback])).toEqual([[phase, "none"]]);
      expect(line.conversation.isOver).toBe(true);
    }
  });
});

describe("Conversation, deferral", () => {
  const CONTENT = ["header", "eoh", "body"] as const;
  const verdicts: readonly VerdictName[] = ["accept", "reject", "tempfail", "discard", "a reply", "a tempfail reply"];

  describe.each(CONTENT)("a verdict of %s", (phase) => {
    test.each([...verdicts])("%s is given at eom where no reply is awaited, at once where one is", async (verdict) => {
      const reply = expectedAt("eoh", verdict)!.split("eoh:")[1]!.split(" body:")[0]!;
      const give = (setting: Setting) => play(Line.to([{ [phase]: VERDICTS[verdict] }], setting));
      const atEnd = await give({});
      expect(atEnd).toEndWith(`eom:${reply}`);
      expect(atEnd.match(/\b(header|eoh|body):/g)).toBeNull();
      expect(await give({ deferContent: false, protocol: ALL & ~SKIP })).toContain(`${phase}:${reply}`);
      expect(await give({ protocol: NO_NR & ~SKIP })).toContain(`${phase}:${reply}`);
    });
  });

  test("a verdict found where no reply is awaited is given at the next event that has one", async () => {
    const filter: AnyFilter = { header: () => reject("550 5.1.1 No"), eoh: () => undefined, body: () => undefined };
    const line = Line.to([filter], { protocol: NO_NR | 0x80 });
    expect(await play(line, ["envfrom", "header", "eoh", "body", "eom"])).toBe(
      "envfrom:c eoh:y550 5.1.1 No\0 body:y550 5.1.1 No\0 eom:y550 5.1.1 No\0",
    );
  });

  test("nothing of the message reaches a handler once the verdict is known", async () => {
    const seen: string[] = [];
    const filter: AnyFilter = {
      header: (_session, name) => {
        seen.push(name);
        return reject();
      },
      eoh: () => void seen.push("eoh"),
      body: () => void seen.push("body"),
      eom: () => void seen.push("eom"),
    };
    const line = Line.to([filter]);
    expect(line.send(cmd.mail(), cmd.header("A"), cmd.header("B"), cmd.eoh(), cmd.body(), cmd.eom())).toEqual(["r"]);
    expect(seen).toEqual(["A"]);
    // The next message is looked at again.
    line.send(cmd.mail(), cmd.header("C"));
    expect(seen).toEqual(["A", "C"]);
  });

  test("changes made before a deferred refusal are dropped", async () => {
    const filter: AnyFilter = {
      envfrom: (session) => session.message.addHeader("X", "y"),
      body: () => discard(),
    };
    expect(await play(Line.to([filter]))).toEndWith("eom:d");
  });

  test("a piece of body in the end of the message is decided with one reply", async () => {
    for (const protocol of [ALL, NO_NR]) {
      const line = Line.to([{ body: () => reject(), eom: () => accept() }], { protocol });
      line.send(cmd.mail());
      line.replies();
      expect(line.send(cmd.eom("Bye\r\n"))).toEqual(["r"]);
    }
  });

  test("a message that is aborted takes its verdict with it", () => {
    const line = Line.to([{ header: (_session, name) => (name === "Bad" ? reject() : undefined) }]);
    line.send(cmd.mail(), cmd.header("Bad"), cmd.abort());
    line.replies();
    expect(line.send(cmd.mail(), cmd.header("Good"), cmd.eom())).toEqual(["c"]);
  });
});

describe("Conversation, fallbacks", () => {
  const FALLBACKS: readonly Fallback[] = ["tempfail", "reject", "accept", "continue"];
  const LETTER = { tempfail: "t", reject: "r", accept: "a", continue: "c" } as const;

  /** The wire at all steps if the handler of `phase` fails: `accept` of the only filter ends all. */
  function fallbackAt(phase: StepName, fallback: Fallback): string {
    const letter = LETTER[fallback];
    if (fallback === "continue" || phase === "eom") return only(phase, fallback === "accept" ? "c" : letter);
    if (phase === "envrcpt" && fallback !== "accept") return only("envrcpt", letter);
    return from(phase, letter);
  }

  describe.each(ALL_STEPS)("at %s", (phase) => {
    test.each([...FALLBACKS])("on_error = %s", async (fallback) => {
      const failings = [
        () => {
          throw new Error("broken");
        },
        () => Promise.reject(new Error("broken")),
      ];
      for (const give of failings) {
        const filter = filterAt(phase, give, false);
        const line = Line.to([[filter, { onError: fallback, onTimeout: "reject" }]], { protocol: NO_NR & ~SKIP });
        line.replies();
        expect(await play(line)).toBe(fallbackAt(phase, fallback));
        const failure = line.failures[0]!;
        expect([failure.cause, failure.phase, failure.fallback, failure.message]).toEqual([
          "error",
          phase,
          fallback,
          "Error: broken",
        ]);
      }
    });

    test.each([...FALLBACKS])("on_timeout = %s", async (fallback) => {
      const filter = filterAt(phase, () => new Promise(() => undefined), false);
      const line = Line.to([[filter, { onError: "reject", onTimeout: fallback }]], { protocol: NO_NR & ~SKIP });
      const words: string[] = [];
      line.replies();
      for (const step of ALL_STEPS) {
        const before = await play(line, [step]);
        if (before !== "") {
          words.push(before);
          continue;
        }
        line.host.advance(240_000);
        words.push(
          `${step}:${line
            .replies()
            .filter((reply) => reply !== "p")
            .join(",")}`,
        );
      }
      expect(words.join(" ")).toBe(fallbackAt(phase, fallback));
      expect(line.failures[0]).toMatchObject({ cause: "timeout", phase, fallback });
    });
  });

  test.each(["abort", "close", "unknown"] as const)("a failure at %s is only logged", async (phase) => {
    const line = Line.to([
      [
        {
          [phase]: () => {
            throw new Error("broken");
          },
        },
        { onError: "reject" },
      ],
    ]);
    const replies = line.send(cmd.connect(), cmd.mail(), cmd.unknown(), cmd.abort(), cmd.quit());
    await settled();
    expect(replies.filter((reply) => !/^[Oc]/.test(reply))).toEqual([]);
    expect(line.failures).toMatchObject([{ cause: "error", phase, fallback: "none" }]);
  });

  test("what is thrown and is no Error is reported too", async () => {
    for (const thrown of ["text", undefined, null, 7, Symbol("s")]) {
      const line = Line.to([
        {
          envfrom: () => {
            throw thrown;
          },
        },
      ]);
      expect(await play(line, ["envfrom"])).toBe("envfrom:t");
      expect(line.failures[0]!.message).toStartWith("thrown: ");
    }
  });
});

test("accept at body, where it is answered at once: the whole message is accepted, and no more of it is asked for", () => {
  const line = Line.to([{ body: () => accept() }], { deferContent: false });
  expect(line.send(cmd.mail(), cmd.header(), cmd.body())).toEqual(["a"]);
});

test("a filter that accepted the message is asked about an unknown command all the same, one that accepted the connection is not", () => {
  const asked: string[] = [];
  const filter: AnyFilter = {
    helo: (_, name) => (name === "all" ? accept() : undefined),
    envfrom: () => accept(),
    eom: () => undefined,
    unknown: (_, command) => void asked.push(command),
  };
  for (const name of ["some", "all"]) {
    const line = Line.to([filter, { eom: () => undefined }]);
    line.send(cmd.connect(), cmd.helo(name), cmd.mail(), cmd.unknown(name));
  }
  expect(asked).toEqual(["some"]);
});
