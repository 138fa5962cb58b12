/** The options of a filter by its schema: any that follows Standard Schema 1, whoever made it. */
import { describe, expect, test } from "bun:test";
import { checkFilter } from "../../src/handler/filter.ts";
import { applySchema, OptionsError } from "../../src/handler/options.ts";
import type { OptionsSchema } from "../../src/handler/types.ts";
import { defineFilter } from "../../src/index.ts";
import { runFilter } from "../../src/testing/index.ts";

/** A schema by hand. */
function schema<O>(validate: (value: unknown) => unknown): OptionsSchema<O> {
  return {
    "~standard": { version: 1, vendor: "hand", validate: validate as OptionsSchema<O>["~standard"]["validate"] },
  };
}

const problemsOf = async (validate: (value: unknown) => unknown, given: unknown = {}) => {
  const error = await applySchema(schema(validate), "f", given).then(
    () => null,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof OptionsError)) throw error;
  return error;
};

describe("a schema", () => {
  test("gives the options, at once or later", async () => {
    expect(
      await applySchema(
        schema(() => ({ value: { a: 1 } })),
        "f",
        {},
      ),
    ).toEqual({ a: 1 });
    expect(
      await applySchema(
        schema(async () => ({ value: { a: 2 } })),
        "f",
        {},
      ),
    ).toEqual({ a: 2 });
  });

  test("may be a function, as those of ArkType are", async () => {
    const callable = Object.assign(
      () => null,
      schema(() => ({ value: { a: 1 } })),
    );
    const { schema: found } = checkFilter({ options: callable, connect() {} }, "f");
    expect(await applySchema(found!, "f", {})).toEqual({ a: 1 });
  });

  test("gets the options of the configuration as a copy, which it may change and return", async () => {
    const given = { list: [{ a: 1 }], at: new Date(0) };
    const result = await applySchema(
      schema((value) => {
        (value as { list: unknown[] }).list.push(2);
        return { value };
      }),
      "f",
      given,
    );
    expect(result).toEqual({ list: [{ a: 1 }, 2], at: new Date(0) });
    expect(given).toEqual({ list: [{ a: 1 }], at: new Date(0) });
    expect(Object.isFrozen(given)).toBe(false);
  });

  test("gives options that are frozen in depth, but for values of classes", async () => {
    const pattern = /x/g;
    const cyclic: Record<string, unknown> = { set: new Set([1]), pattern, bytes: new Uint8Array(2) };
    cyclic["self"] = cyclic;
    const result = (await applySchema(
      schema(() => ({ value: { deep: [{ cyclic }], from: Object.freeze([{}]) } })),
      "f",
      {},
    )) as {
      deep: [{ cyclic: typeof cyclic }];
      from: object[];
    };
    for (const frozen of [result, result.deep, result.deep[0], cyclic, result.from[0]]) {
      expect(Object.isFrozen(frozen)).toBe(true);
    }
    expect("x x".replace(pattern, "y")).toBe("y y");
    expect(() => result.deep.push(result.deep[0])).toThrow(TypeError);
  });

  test("refuses with each issue, in every form of path", async () => {
    const error = await problemsOf(
      () => ({
        issues: [
          { message: "no path" },
          { message: "keys", path: ["list", 1, "name"] },
          { message: "objects", path: [{ key: "list" }, { key: 0 }] },
          { message: "digits", path: ["list", "1"] },
          { message: "digits of a table", path: ["table", "1"] },
          { message: "a symbol", path: [Symbol("s")] },
          "no issue",
        ],
      }),
      { list: [1, 2], table: { 1: 2 } },
    );
    expect(error.problems).toEqual([
      { path: [], text: "no path" },
      { path: ["list", 1, "name"], text: "keys" },
      { path: ["list", 0], text: "objects" },
      { path: ["list", 1], text: "digits" },
      { path: ["table", "1"], text: "digits of a table" },
      { path: ["Symbol(s)"], text: "a symbol" },
      { path: [], text: "thrown: no issue" },
    ]);
    expect(error).toMatchObject({ name: "UsageError", code: "PMILTER_ERR_OPTIONS" });
    expect(error.message).toStartWith("filter f: options: no path\noptions.list.1.name: keys\n");
  });

  test.each<[string, () => unknown]>([
    ["nothing", () => undefined],
    ["a text", () => "fine"],
    ["an empty list of issues", () => ({ issues: [] })],
    ["issues that are no list", () => ({ issues: "wrong" })],
    ["an object without a value", () => ({})],
  ])("that returns %s is an error, not options", async (_, validate) => {
    const result = applySchema(schema(validate), "f", {});
    await expect(result).rejects.toThrow("expected a result of Standard Schema 1 from the schema");
  });

  test("that throws, rejects or never ends is an error", async () => {
    const broken = new Error("broken");
    await expect(
      applySchema(
        schema(() => {
          throw broken;
        }),
        "f",
        {},
      ),
    ).rejects.toBe(broken);
    await expect(
      applySchema(
        schema(() => Promise.reject(broken)),
        "f",
        {},
      ),
    ).rejects.toBe(broken);
    await expect(
      applySchema(
        schema(() => new Promise(() => {})),
        "f",
        {},
        5,
      ),
    ).rejects.toThrow("timed out after 0.005 s");
  });
});

describe("a filter", () => {
  test.each<[unknown, string]>([
    [{}, "got object"],
    ["x", "got string"],
    [null, "got null"],
    [{ "~standard": { version: 2, validate() {} } }, "got object"],
    [{ "~standard": { version: 1 } }, "got object"],
  ])("with options = %j is refused", (options, got) => {
    expect(() => checkFilter({ options, connect() {} }, "f")).toThrow(
      `"options" of the filter must be a schema, such as table({ … }) of pmilter/options, or any of Standard Schema 1; ${got}`,
    );
  });

  test("gets the result in start() and in its handlers, and each in a chain its own", async () => {
    const seen: unknown[] = [];
    const counting = (name: string) =>
      defineFilter({
        name,
        options: schema<{ n: number }>((value) => ({ value: { n: Number((value as { n: string }).n), name } })),
        start(options) {
          seen.push(options);
        },
        connect({ options }) {
          seen.push(options);
        },
      });
    const { failures } = await runFilter([counting("a"), counting("b")], { eml: "\n", options: { n: "7" } });
    expect(failures).toEqual([]);
    expect(seen).toEqual([
      { n: 7, name: "a" },
      { n: 7, name: "b" },
      { n: 7, name: "a" },
      { n: 7, name: "b" },
    ]);
    expect(seen[0]).toBe(seen[2]);
  });

  test("without a schema gets the options as they are", async () => {
    const options = { n: "7" };
    let seen: unknown;
    const plain = defineFilter({
      connect(session) {
        seen = session.options;
      },
    });
    await runFilter(plain, { eml: "\n", options });
    expect(seen).toBe(options);
    expect(Object.isFrozen(options)).toBe(false);
  });

  test("does not run with options that its schema refuses", async () => {
    let hasStarted = false;
    const strict = defineFilter({
      name: "strict",
      options: schema(() => ({ issues: [{ message: "not so", path: ["a"] }] })),
      start() {
        hasStarted = true;
      },
      connect() {},
    });
    await expect(runFilter(strict, { eml: "\n" })).rejects.toThrow("filter strict: options.a: not so");
    expect(hasStarted).toBe(false);
  });
});
