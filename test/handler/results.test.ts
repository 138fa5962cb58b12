/** `message.results`: what filters leave for later ones. */
import { describe, expect, test } from "bun:test";
import { accept, UsageError } from "../../src/index.ts";
import type { Results } from "../../src/handler/types.ts";
import type { JsonValue } from "../../src/json.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line, type Placed } from "./harness.ts";

const BEGIN = [cmd.connect(), cmd.mail()];

/** What the last of the filters reads at `eom`. */
function read(filters: readonly Placed[], name = "spf"): JsonValue | undefined {
  let value: JsonValue | undefined;
  Line.to([...filters, { eom: (session) => void (value = session.message.results.get(name)) }]).send(
    ...BEGIN,
    cmd.eom(),
  );
  return value;
}

const sets = (value: JsonValue, also: AnyFilter = {}): AnyFilter => ({
  ...also,
  envfrom: (session) => session.message.results.set("spf", value),
});

describe("message.results", () => {
  test("are seen by later filters and phases, the last one wins", () => {
    expect(read([])).toBeUndefined();
    expect(read([sets("pass")])).toBe("pass");
    expect(read([sets("pass"), sets("fail")])).toBe("fail");
    // By time, not by place in the chain.
    const later: AnyFilter = { eom: (session) => session.message.results.set("spf", "later") };
    expect(read([later, sets("earlier")])).toBe("later");
    const twice: AnyFilter = { ...sets("a"), eom: (session) => session.message.results.set("spf", "again") };
    expect(read([twice, sets("b")])).toBe("again");
  });

  test("any JSON value, as a copy that no one can change", () => {
    const given = { list: [1, "two", null, { three: true }], empty: {}, gone: undefined };
    const value = read([sets(given)]) as { list: JsonValue[] };
    given.list.push("later");
    expect(JSON.stringify(value)).toBe('{"list":[1,"two",null,{"three":true}],"empty":{}}');
    expect(() => value.list.push(1)).toThrow(TypeError);
  });

  test("of a filter that fails do not count, and uncover those before", () => {
    const fails = (): never => {
      throw new Error("no");
    };
    const place = { onError: "continue" } as const;
    expect(read([sets("pass"), [sets("fail", { eom: fails }), place]])).toBe("pass");
    expect(read([[sets("fail", { eom: fails }), place]])).toBeUndefined();
    // Left by accept(): they stay.
    expect(read([{ envfrom: (session) => (session.message.results.set("spf", "x"), accept()) }])).toBe("x");
  });

  test("of a filter in observe mode are seen by itself alone", () => {
    const seen: unknown[] = [];
    const observed: AnyFilter = { ...sets("x"), eom: (session) => void seen.push(session.message.results.get("spf")) };
    expect(read([sets("pass"), [observed, { isObserved: true }]])).toBe("pass");
    expect(seen).toEqual(["x"]);
  });

  test("belong to their message", () => {
    const seen: unknown[] = [];
    const kept: Results[] = [];
    const filter: AnyFilter = {
      envfrom({ message }) {
        seen.push(message.results.get("n"));
        message.results.set("n", seen.length);
        kept.push(message.results);
      },
    };
    const line = Line.to([filter]);
    line.send(...BEGIN, cmd.abort(), cmd.mail(), cmd.eom());
    expect(seen).toEqual([undefined, undefined]);
    // What was kept still reads its own, and sets nothing any more.
    expect(kept.map((results) => results.get("n"))).toEqual([1, 2]);
    expect(() => kept[1]!.set("n", 3)).toThrow("the message is over");
  });

  test.each([
    ["undefined", undefined, "x is undefined"],
    ["a function", () => 1, "x is function"],
    ["a function in it", { a: [() => 1] }, "x.a[0] is function"],
    ["NaN", { score: Number.NaN }, "x.score is NaN"],
    ["a bigint", 1n, "x is bigint"],
    ["a Date", new Date(), "x is an object of a class"],
    ["a Map", { map: new Map() }, "x.map is an object of a class"],
    ["a circle", circle(), "at most 20 values within one another"],
    ["17 KB", "x".repeat(17 * 1024), "more than 16384 bytes as JSON"],
    ["escapes that make 17 KB", "\n".repeat(9 * 1024), "more than 16384 bytes as JSON"],
  ])("refuse %s where it is written", (_name, value, says) => {
    const error = thrownBy((results) => results.set("x", value as never));
    expect([error?.code, error?.message]).toEqual(["PMILTER_ERR_ARGUMENT", expect.stringContaining(says)]);
  });

  // Each list holds the list below it twice: copied whole it would be 2^19 values.
  test("a value that is far too large is not copied whole", () => {
    let reads = 0;
    let value: JsonValue[] = new Proxy<JsonValue[]>([1], {
      get(target, key) {
        if (key === "0") reads += 1;
        return Reflect.get(target, key) as unknown;
      },
    });
    for (let depth = 0; depth < 18; depth++) value = [value, value];
    const error = thrownBy((results) => results.set("x", value));
    expect(error?.message).toContain("more than 16384 bytes as JSON");
    expect(reads).toBeLessThan(16 * 1024);
  });

  test.each(["", "a b", "x".repeat(65), "ü", "a\n", 1, null])("refuse the name %p", (name) => {
    const error = thrownBy((results) => results.set(name as never, 1));
    expect([error?.code, error?.message]).toEqual([
      "PMILTER_ERR_ARGUMENT",
      expect.stringContaining("the name of a result has 1 to 64"),
    ]);
  });

  test("are at most fifty; a name that is there may be set again", () => {
    const error = thrownBy((results) => {
      for (let index = 0; index < 50; index++) results.set(`n${index}`, index);
      results.set("n7", "again");
      results.set("one-more", 1);
    });
    expect(error?.message).toContain('at most 50 results; there is no room for "one-more"');
  });
});

function circle(): object {
  const value: Record<string, unknown> = {};
  value["again"] = value;
  return value;
}

function thrownBy(use: (results: Results) => void): UsageError | null {
  let thrown: UsageError | null = null;
  const line = Line.to([
    {
      envfrom(session) {
        try {
          use(session.message.results);
        } catch (error) {
          if (error instanceof UsageError) thrown = error;
          else throw error;
        }
      },
    },
  ]);
  line.send(...BEGIN);
  expect(line.failures).toEqual([]);
  return thrown;
}
