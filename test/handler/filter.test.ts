/** What a module may export, what it is told otherwise, and what verdict functions refuse where they are called. */
import { describe, expect, test } from "bun:test";
import { runFilter } from "../../src/testing/index.ts";
import { checkFilter, checkPhaseHandler, defineFilter } from "../../src/handler/filter.ts";
import { accept, discard, reject, skip, tempfail, UsageError } from "../../src/index.ts";

const pass = () => undefined;

function problemOf(run: () => unknown): { code: string; message: string } {
  try {
    run();
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    return { code: error.code, message: error.message };
  }
  return { code: "none", message: "" };
}

describe("defineFilter", () => {
  test("gives the same object", () => {
    const filter = { eom: pass };
    expect(defineFilter(filter)).toBe(filter);
  });
});

describe("checkFilter", () => {
  test("takes each phase, with the fallback name or the filter's own", () => {
    for (const phase of "connect helo envfrom envrcpt data header eoh body eom unknown abort close".split(" ")) {
      const loaded = checkFilter({ [phase]: pass }, "file");
      expect([loaded.name, Object.keys(loaded.handlers)]).toEqual(["file", [phase]]);
    }
    expect(checkFilter({ name: "own", eom: pass }, "file").name).toBe("own");
  });

  test("start is called as a method of the filter, with its options and the configuration's folder", async () => {
    const calls: unknown[] = [];
    const filter = {
      eom: pass,
      start(this: unknown, options: unknown, home: unknown) {
        calls.push([this, options, home]);
      },
    };
    await runFilter(filter, { eml: "Subject: x\n\n", options: { a: 1 }, folder: "/etc/pmilter" });
    expect(calls).toMatchObject([[filter, { a: 1 }, { folder: "/etc/pmilter", isCheck: false }]]);
    expect(checkFilter(filter, "x").stop).toBeNull();
  });

  test.each([
    ["nothing", undefined, "got undefined"],
    ["null", null, "got null"],
    ["a list", [], "got an array"],
    ["a function", pass, "[handler.session]"],
    ["no handler", {}, "no handler"],
    ["only options", { name: "x", collectBody: true }, "no handler"],
    ["a phase misspelt", { envFrom: pass }, '"envFrom"'],
    ["a handler that is no function", { eom: true }, '"eom"'],
    ["a name that is no string", { eom: pass, name: 1 }, '"name"'],
    ["a name with a line break", { eom: pass, name: "a\nb" }, "name"],
    ["an empty name", { eom: pass, name: "" }, "name"],
    ["a name of 65 characters", { eom: pass, name: "x".repeat(65) }, "name"],
    ["collectBody that is no boolean", { eom: pass, collectBody: "yes" }, '"collectBody"'],
    ["macros that are no object", { eom: pass, macros: "i" }, '"macros"'],
    ["macros of a phase that has none", { eom: pass, macros: { header: ["i"] } }, '"header"'],
    [
      "a macro name without braces",
      { eom: pass, macros: { eom: ["i", "auth_type"] } },
      'got "auth_type"; write "{auth_type}"',
    ],
    [
      "macro names that are none",
      { eom: pass, macros: { eom: ["{auth type}"] } },
      'names such as "i" or "{auth_type}", got "{auth type}"',
    ],
    [
      "macro names that are no text",
      { eom: pass, macros: { eom: [null] } },
      'names such as "i" or "{auth_type}", got null',
    ],
    ["macros that are no list", { eom: pass, macros: { eom: "i" } }, "macros.eom must be a list"],
    ["51 macros", { eom: pass, macros: { eom: Array.from({ length: 51 }, () => "i") } }, "macros.eom"],
  ])("refuses %s", (_name, exported, expected) => {
    const { code, message } = problemOf(() => checkFilter(exported, "x"));
    expect(code).toBe("PMILTER_ERR_MODULE");
    expect(message).toContain(expected);
  });

  test("takes macro names with and without braces, and as many as Sendmail", () => {
    const macros = { eom: Array.from({ length: 50 }, () => "{msg_id}"), connect: ["i", "_"] };
    expect(checkFilter({ eom: pass, macros }, "x").macros).toEqual(macros);
  });
});

describe("checkPhaseHandler", () => {
  test("takes a function alone", () => {
    expect(checkPhaseHandler(pass, "eom")).toBe(pass);
    for (const exported of [undefined, null, "x", { eom: pass }]) {
      expect(problemOf(() => checkPhaseHandler(exported, "eom")).code).toBe("PMILTER_ERR_MODULE");
    }
    expect(problemOf(() => checkPhaseHandler({ eom: pass }, "eom")).message).toContain("[[filter]]");
  });
});

describe("reject and tempfail", () => {
  test.each([
    ["text without a code", () => reject("No")],
    ["a code of the other class", () => reject("450 4.7.1 Later")],
    ["a code of the other class in tempfail", () => tempfail("550 5.7.1 No")],
    ["421 in reject", () => reject("421 4.7.0 Bye")],
    ["another class in the enhanced code", () => tempfail("450 5.7.1 No")],
    ["a control character", () => reject("550 5.7.1 a\rb")],
    ["33 lines", () => reject(`550 5.7.1 ${"x\n".repeat(33)}`)],
    ["a number", () => reject(550 as never)],
    ["null", () => tempfail(null as never)],
  ])("throw where they are called: %s", (_name, make) => {
    expect(problemOf(make).code).toBe("PMILTER_ERR_REPLY_TEXT");
  });

  test("each function makes its own kind", () => {
    expect([accept, discard, skip, reject, tempfail].map((make) => make().kind)).toEqual([
      "accept",
      "discard",
      "skip",
      "reject",
      "tempfail",
    ]);
  });
});
