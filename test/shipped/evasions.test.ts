/** attachments: messages that hide a file from the filter and not from the programs that open it. */
import { expect, test } from "bun:test";
import { allEvasions, KINDS } from "./evasions/all.ts";

test("there are at least 500 evasions, each once, the same ones each time", () => {
  const all = allEvasions();
  expect(all.length).toBeGreaterThanOrEqual(500);
  expect(new Set(all.map(({ kind }) => kind))).toEqual(new Set(KINDS));
  expect(new Set(all.map(({ kind, name }) => `${kind}: ${name}`)).size).toBe(all.length);
  expect(allEvasions()).toEqual(all);
});
