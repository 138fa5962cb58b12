/** Verdicts that a handler makes and does not return: told once they can be returned no more, and never for those that are. */
import { beforeEach, describe, expect, test } from "bun:test";
import { accept, discard, reject, skip, tempfail, type Verdict } from "../../src/index.ts";
import type { WarningReport } from "../../src/handler/report.ts";
import { placeNext } from "../../src/handler/verdict.ts";
import { runFilter } from "../../src/testing/index.ts";
import { cmd } from "../protocol/wire.ts";
import { type AnyFilter, Line, settled } from "./harness.ts";

const MESSAGE = [cmd.connect(), cmd.helo(), cmd.mail(), cmd.rcpt(), cmd.data(), cmd.header(), cmd.eoh(), cmd.body()];

beforeEach(placeNext);

/** What is warned of in one message, and the session's end. */
async function warned(...filters: AnyFilter[]): Promise<WarningReport[]> {
  const line = Line.to(filters);
  for (const packet of [...MESSAGE, cmd.eom(), cmd.quit()]) {
    line.send(packet);
    await settled();
  }
  const warnings = line.host.reports.filter((report) => report.kind === "warning");
  expect(line.host.counts.unreturned ?? 0).toBe(warnings.length);
  expect(line.failures).toEqual([]);
  return warnings;
}

/** Line of this file where `text` stands the first time. */
const source = await Bun.file(import.meta.path).text();
const lineOf = (text: string) => source.slice(0, source.indexOf(text)).split("\n").length;

describe("a forgotten return is told, with filter, phase, file and line", () => {
  const cases: readonly (readonly [string, AnyFilter, number])[] = [
    ["connect", { connect: () => void reject("550 5.7.1 at connect") }, lineOf('void reject("550 5.7.1 at connect')],
    ["helo", { helo: () => void tempfail() }, lineOf("void tempfail() }, lineOf")],
    ["envfrom", { envfrom: () => void reject("550 5.7.1 at envfrom") }, lineOf('void reject("550 5.7.1 at envfrom')],
    ["envrcpt", { envrcpt: () => void reject("550 5.7.1 at envrcpt") }, lineOf('void reject("550 5.7.1 at envrcpt')],
    ["header", { header: () => void discard() }, lineOf("void discard() }, lineOf")],
    ["body", { body: () => void skip() }, lineOf("void skip() }, lineOf")],
    ["eom", { eom: () => void accept() }, lineOf("void accept() }, lineOf")],
    ["eom", { eom: async () => void reject("550 5.7.1 async") }, lineOf('void reject("550 5.7.1 async')],
  ];
  test.each([...cases])("%s", async (phase, filter, line) => {
    expect(await warned({ name: "rules", ...filter })).toEqual([
      expect.objectContaining({
        filter: "rules",
        phase,
        site: expect.objectContaining({ file: import.meta.path, line }),
      }),
    ]);
  });

  test("where another filter decides, or the same one later", async () => {
    expect(await warned({ envfrom: () => void reject() }, { eom: () => reject() })).toHaveLength(1);
    expect(await warned({ envfrom: () => void reject(), eom: () => reject() })).toHaveLength(1);
    expect(await warned({ helo: () => void accept() }, { envfrom: () => accept() })).toHaveLength(1);
  });

  test("in an async helper that is not awaited, as far as it has come", async () => {
    const helper = async () => reject("550 5.7.1 helper");
    const warnings = await warned({ eom: () => void helper() });
    expect(warnings).toMatchObject([{ phase: "eom", site: { line: lineOf('reject("550 5.7.1 helper') } }]);
  });

  test("once the message is over, with what is known of it", async () => {
    const line = Line.to([{ envfrom: () => void reject(), eom: () => undefined }]);
    line.send(...MESSAGE);
    expect(line.host.reports).toEqual([]);
    line.send(cmd.eom());
    expect(line.host.reports).toMatchObject([{ kind: "warning", sender: "<a@c.test>", recipients: ["<b@mx.test>"] }]);
  });

  test("of an accept() whose place is not known any more: filter and phase, and the next time its line", async () => {
    for (let n = 0; n < 200; n++) accept();
    const filter: AnyFilter = { name: "rules", eom: () => void accept() };
    expect(await warned(filter)).toMatchObject([{ filter: "rules", phase: "eom", verdict: "accept", site: null }]);
    expect(await warned(filter)).toMatchObject([{ site: { line: lineOf('"rules", eom: () => void accept()') } }]);
  });
});

describe("nothing is told", () => {
  const constant = reject("550 5.7.1 constant");
  const quiet: readonly (readonly [string, readonly AnyFilter[]])[] = [
    ["of a constant, returned or not", [{ envfrom: () => void constant, eom: () => constant }]],
    ["of verdicts that are returned", [{ envfrom: () => undefined, eom: async () => await Promise.resolve(reject()) }]],
    ["where another was returned", [{ eom: () => (reject(), tempfail()) }]],
  ];
  test.each([...quiet])("%s", async (_, filters) => {
    expect(await warned(...filters)).toEqual([]);
  });

  test("of one that a later call gives back: of the filter, of another, in a state, for the whole session", async () => {
    let kept: Verdict<"reject"> | undefined;
    const keep = () => void (kept = reject());
    expect(await warned({ envfrom: keep, eom: () => kept })).toEqual([]);
    expect(await warned({ envfrom: keep }, { eom: () => kept })).toEqual([]);
    expect(await warned({ connect: keep, eom: () => kept })).toEqual([]);
    expect(await warned({ envfrom: async () => keep(), eom: async () => kept })).toEqual([]);
    let accepted: Verdict<"accept"> | undefined;
    expect(await warned({ envfrom: () => void (accepted = accept()), eom: () => accepted })).toEqual([]);
    for (let n = 0; n < 200; n++) accept();
    expect(await warned({ envfrom: () => void (accepted = accept()), eom: () => accepted })).toEqual([]);
  });

  test("of one that another session made meanwhile", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waits = Line.to([{ eom: () => promise }]);
    waits.send(...MESSAGE, cmd.eom());
    const other = Line.to([{ eom: () => reject() }]);
    other.send(...MESSAGE, cmd.eom());
    resolve();
    await settled();
    expect([...waits.host.reports, ...other.host.reports].map(({ kind }) => kind)).toEqual(["verdict"]);
  });
});

test("runFilter gives them as warnings, once for each place", async () => {
  const filter: AnyFilter = {
    name: "rules",
    envrcpt: () => void reject(),
    eom: () => void tempfail(),
  };
  const { verdict, warnings } = await runFilter(filter, { eml: "Subject: a\n\nb\n", to: ["a@b.c", "d@e.f"] });
  expect(verdict).toBe("accept");
  expect(warnings.map(({ filter, phase, site, verdict }) => [filter, phase, site?.file, verdict])).toEqual([
    ["rules", "envrcpt", import.meta.path, "reject"],
    ["rules", "eom", import.meta.path, "tempfail"],
  ]);
  expect((await runFilter({ eom: () => reject() }, { eml: "Subject: a\n\nb\n" })).warnings).toEqual([]);
});
