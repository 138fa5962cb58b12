/** docs/protocol.md against the code: its tables have each code and flag that `src/protocol` has, and no other. */
import { expect, test } from "bun:test";
import { ACTION, COMMAND, PROTOCOL, REPLY, SYMLIST_STAGE } from "../../src/protocol/constants.ts";
import { PHASE_LIST } from "../../src/protocol/phases.ts";
import { MACRO_LISTS } from "../../src/testing/habits.ts";
import { page, tableRows } from "./blocks.ts";

const { text } = page("docs/protocol.md");

/** The cells of a section's first columns, without the row of titles. */
function rowsOf(section: string): string[][] {
  const [, own = ""] = new RegExp(`^##+ ${section}\\n([^]*?)(?=^##|(?![^]))`, "m").exec(text) ?? [];
  const rows = tableRows(own).slice(1);
  expect(rows.length, section).toBeGreaterThan(0);
  return rows;
}

const byCode = (codes: Readonly<Record<string, number>>) =>
  Object.entries(codes).map(([name, code]) => [`\`${String.fromCharCode(code)}\``, name]);
const hex = (bits: Readonly<Record<string, number>>, digits: number) =>
  Object.entries(bits).map(([name, bit]) => [`0x${bit.toString(16).padStart(digits, "0")}`, name]);

test("Commands: each with its code, and the flag that switches its reply off", () => {
  const rows = rowsOf("Commands");
  expect(rows.map((row) => row.slice(0, 2))).toEqual(byCode(COMMAND));
  for (const [, name, , reply] of rows) {
    const phase = PHASE_LIST.find(({ command }) => command !== 0 && command === COMMAND[name as keyof typeof COMMAND]);
    const flag = Object.keys(PROTOCOL).find((flag) => PROTOCOL[flag as keyof typeof PROTOCOL] === phase?.nr);
    if (flag !== undefined) expect(reply).toBe(`unless ${flag}`);
    else expect(reply).toMatch(/^(?:never|always|OPTNEG)$/);
  }
});

test("Replies: each with its code", () => {
  const rows = rowsOf("Replies").map((row) => row.slice(0, 2));
  expect(rows.toSorted()).toEqual(byCode(REPLY).toSorted());
});

test("Action flags and Protocol flags: each with its bit", () => {
  expect(rowsOf("Action flags").map((row) => row.slice(0, 2))).toEqual(hex(ACTION, 3));
  expect(rowsOf("Protocol flags").map((row) => row.slice(0, 2))).toEqual(hex(PROTOCOL, 6));
});

test("Default macro lists: those that the client of the testing kit sends", () => {
  const names = (cell = ""): readonly string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, name]) => name!);
  const rows = rowsOf("Default macro lists").map(([, sendmail, postfix]) => ({
    sendmail: names(sendmail),
    postfix: names(postfix === "the same" ? sendmail : postfix),
  }));
  for (const habit of ["sendmail", "postfix"] as const) {
    expect(rows.map((row) => row[habit])).toEqual(Object.values(MACRO_LISTS[habit]));
  }
});

test("Asking for macros: the numbers of the stages", () => {
  for (const [stage, number] of Object.entries(SYMLIST_STAGE)) expect(text).toContain(`${number} ${stage}`);
});
