/** What a filter leaves out, by its options and by its conditions. */
import { expect, test } from "bun:test";
import { defineFilter, type Phase } from "../../src/index.ts";
import { runFilter } from "../../src/testing/index.ts";
import type { AnyFilter } from "./harness.ts";

const MAIL = { from: "a@example.com", eml: "From: a@example.com\n\nHello\n" };

/** Notes its calls, and whether it has the body at the end. */
function noting(leaveOut: NonNullable<AnyFilter["leaveOut"]>) {
  const calls: string[] = [];
  const filter = defineFilter<Record<string, unknown>, Record<string, unknown>>({
    collectBody: { over: "reject" },
    leaveOut,
    connect: () => void calls.push("connect"),
    helo: () => void calls.push("helo"),
    envfrom: () => void calls.push("envfrom"),
    eom({ message }) {
      try {
        calls.push(`eom ${message.body().length}`);
      } catch (error) {
        calls.push(`eom ${(error as { readonly code: string }).code}`);
      }
    },
  });
  return { calls, filter };
}

test("handlers and the body, by the options", async () => {
  const leaveOut: AnyFilter["leaveOut"] = (options) => (options as { readonly without: Phase[] }).without;
  for (const [without, expected] of [
    [[], ["connect", "helo", "envfrom", "eom 7"]],
    [
      ["helo", "collectBody", "close"],
      ["connect", "envfrom", "eom PMILTER_ERR_NOT_HERE"],
    ],
  ]) {
    const { calls, filter } = noting(leaveOut!);
    expect(await runFilter(filter, { ...MAIL, options: { without } })).toMatchObject({ failures: [] });
    expect(calls).toEqual(expected!);
  }
});

test("handlers that are too early for the conditions, and no others", async () => {
  const early: readonly Phase[] = ["connect", "helo", "envfrom"];
  for (const [when, expected] of [
    [{}, ["connect", "helo", "envfrom"]],
    [{ clients: ["127.0.0.0/8"] }, ["connect", "helo", "envfrom"]],
    [{ helos: ["localhost"] }, ["helo", "envfrom"]],
    [{ senders: ["example.com"] }, ["envfrom"]],
    [{ recipients: ["example.org"] }, []],
  ] as const) {
    const { calls, filter } = noting((_, isTooEarly) => early.filter(isTooEarly));
    await runFilter(filter, { ...MAIL, helo: "localhost", to: ["b@example.org"], when });
    expect(calls).toEqual([...expected, "eom 7"]);
  }
  // Without it, such a filter is refused.
  const { filter } = noting(() => ["connect", "helo"]);
  await expect(runFilter(filter, { ...MAIL, when: { recipients: ["example.org"] } })).rejects.toThrow(
    "the envfrom handler may run before its condition recipients is known",
  );
});

test.each([
  [["conect"], '"conect"'],
  [[1], "number"],
  ["connect", "string"],
  [undefined, "undefined"],
])("a result that is none: %p", async (result, seen) => {
  const { filter } = noting((() => result) as never);
  await expect(runFilter(filter, MAIL)).rejects.toThrow(
    `leaveOut() of the filter must return a list of phases, "collectBody" among them, got ${seen}`,
  );
});
