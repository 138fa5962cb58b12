/** `session.log`: a line of the log with where it comes from, whatever a handler says and whenever. */
import { describe, expect, test } from "bun:test";
import { MAX_NOTES } from "../../src/handler/notes.ts";
import { logLine } from "../../src/handler/log-lines.ts";
import type { NoteReport } from "../../src/handler/report.ts";
import { runFilter } from "../../src/testing/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line } from "./harness.ts";

const CODE = { folder: import.meta.dir, version: "0123456789ab" };
const BEGIN = [
  cmd.macro("C", { j: "mx.test" }),
  cmd.connect("c.test", "192.0.2.7"),
  cmd.macro("M", { i: "4ZB1" }),
  cmd.mail("<a@c.test>"),
];

const notesOf = (line: Line) => line.host.reports.filter((report): report is NoteReport => report.kind === "note");
const linesOf = (line: Line) => notesOf(line).map((report) => logLine(report, CODE));

/** What is logged by a handler of `envfrom`. */
function said(handler: AnyFilter["envfrom"] & {}) {
  const line = Line.to([{ envfrom: handler }]);
  line.send(...BEGIN);
  expect(line.failures).toEqual([]);
  return linesOf(line);
}

// A call that is the last of a function leaves no frame of that function: the handlers here have braces.
describe("session.log", () => {
  test("has queue id, client, filter, phase, file and line, then what the handler says", () => {
    const [line] = said((session) => {
      session.log("on the list", { list: "block", score: 3, of: ["a", "b"] });
    });
    expect(line!.level).toBe("info");
    expect(line!.text).toMatch(
      /^a handler says: queue_id=4ZB1 client="c\.test \[192\.0\.2\.7\]" filter=filter1 phase=envfrom at=notes\.test\.ts:\d+ text="on the list" list=block score=3 of="\[\\"a\\",\\"b\\"\]"$/,
    );
    expect(line!.fields).toMatchObject({
      queue_id: "4ZB1",
      filter: "filter1",
      text: "on the list",
      fields: { list: "block", score: 3, of: '["a","b"]' },
    });
  });

  test("has a level of its own for each of its functions", () => {
    const lines = said(({ log }) => {
      log.debug("d");
      log("i");
      log.warn("w");
      log.error("e");
    });
    expect(lines.map(({ level, text }) => `${level} ${text.at(-1)}`)).toEqual([
      "debug d",
      "info i",
      "warn w",
      "error e",
    ]);
  });

  test("cannot be made to write a second line, or a field, by what a client sends", () => {
    const [line] = said((session) => session.log('x" filter=forged\r\nemerg: \u202e\udc80', { "a=b\nc": 'v" w=x' }));
    expect(line!.text).not.toMatch(/[\r\n\u202e]/);
    expect(line!.text).toEndWith(String.raw`text="x\" filter=forged\r\nemerg: \u202e\x80" "a=b\nc"="v\" w=x"`);
  });

  test("is cut at 1 KB, between characters, with its facts whole", () => {
    for (const text of ["x".repeat(5000), "é".repeat(5000), "\n".repeat(5000)]) {
      const [line] = said((session) => {
        session.log(text, { more: text });
      });
      expect(Buffer.byteLength(line!.text)).toBeLessThanOrEqual(1024);
      expect(Buffer.byteLength(line!.text)).toBeGreaterThan(1000);
      expect(line!.text).toContain(" phase=envfrom at=notes.test.ts:");
      expect(line!.text).toEndWith("…");
      expect(line!.text).not.toContain("�");
      expect(JSON.stringify(line!.fields).length).toBeLessThan(16 * 1024);
    }
    const [many] = said((session) =>
      session.log("many", Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field${index}`, index]))),
    );
    expect(Object.keys(many!.fields["fields"] as object).length).toBeLessThan(200);
  });

  test("takes any value, and never throws", () => {
    const circle: Record<string, unknown> = {};
    circle["circle"] = circle;
    const hostile = {
      get odd(): never {
        throw new Error("odd");
      },
    };
    const lines = said(({ log }) => {
      log("all", {
        circle,
        nothing: undefined,
        none: null,
        big: 1n,
        nan: Number.NaN,
        bytes: new Uint8Array(3),
        error: new TypeError("no"),
        at: new Date(0),
        symbol: Symbol("s"),
      });
      log("hostile", hostile);
      log(new Error("as text") as never);
      log(undefined as never, "no object" as never);
      log(Object.assign(() => {}, { toString: () => hostile.odd }) as never);
    });
    expect(lines[0]!.fields["fields"]).toEqual({
      circle: "a value that cannot be shown",
      none: null,
      big: "1",
      nan: "NaN",
      bytes: "3 bytes",
      error: "TypeError: no",
      at: '"1970-01-01T00:00:00.000Z"',
      symbol: "Symbol(s)",
    });
    expect(lines[1]!.fields["fields"]).toEqual({ fields: "cannot be read: Error: odd" });
    expect(lines.slice(2).map(({ fields }) => fields["text"])).toEqual([
      "Error: as text",
      "undefined",
      "a value that cannot be shown",
    ]);
  });

  test("works where a handler has kept it: at the connection's end, and for a later message", () => {
    let log: ((text: string) => void) | null = null;
    const line = Line.to([
      { connect: (session) => void ({ log } = session), abort: () => log!("kept"), close: () => log!("kept") },
    ]);
    line.send(...BEGIN);
    line.hangUp();
    log!("after");
    expect(notesOf(line).map(({ phase }) => phase)).toEqual(["abort", "close", "close"]);
  });

  test("below the level of the log makes nothing: not even the values are read", () => {
    const line = Line.to([
      {
        envfrom(session) {
          session.log.debug("x", {
            get value(): never {
              throw new Error("read");
            },
          });
          session.log.warn("y");
        },
      },
    ]);
    line.host.logs = (level) => level !== "debug";
    line.send(...BEGIN);
    expect(notesOf(line).map(({ level, text }) => `${level} ${text}`)).toEqual(["warn y"]);
  });

  test("the first twenty of a message are kept, whichever filters they are of; then those of the next", () => {
    const filter: AnyFilter = {
      envfrom(session) {
        for (let index = 0; index < 15; index++) session.log(`${index}`);
      },
    };
    const line = Line.to([filter, filter]);
    line.send(...BEGIN, cmd.abort(), cmd.mail());
    const kept = notesOf(line).map(({ isKept }) => isKept);
    expect(kept).toHaveLength(60);
    expect([kept.slice(0, 30), kept.slice(30)].map((each) => each.filter(Boolean).length)).toEqual([
      MAX_NOTES,
      MAX_NOTES,
    ]);
    expect(kept[0]).toBe(true);
    // At connect there is no message to keep them.
    const early = Line.to([{ connect: (session) => session.log("x") }]);
    early.send(...BEGIN);
    expect(notesOf(early).map(({ isKept }) => isKept)).toEqual([false]);
  });

  test("is given by runFilter as notes", async () => {
    const { notes } = await runFilter(
      { name: "chatty", eom: (session) => session.log.warn("odd", { count: 2 }) },
      { eml: "Subject: x\n\n" },
    );
    expect(notes).toEqual([
      expect.objectContaining({ level: "warn", text: "odd", fields: { count: 2 }, filter: "chatty", phase: "eom" }),
    ]);
    expect(notes[0]!.site?.file).toBe(import.meta.path);
  });
});
