/**
 * Which packets of content are answered, for everything that a mail server may offer, and that the end of the message is
 * the same whatever it offers: with all, some and none of NR_HDR, NR_EOH and NR_BODY, deferral on and off.
 */
import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { accept, discard, reject, skip, tempfail } from "../../src/index.ts";
import { NR, SKIP } from "../protocol/wire.ts";
import { type AnyFilter, Line, NO_NR, play, type StepName } from "./harness.ts";

setDefaultTimeout(120_000);

type Content = "header" | "eoh" | "body";
const CONTENT: readonly Content[] = ["header", "eoh", "body"];
const OFFERS: readonly (readonly Content[])[] = Array.from({ length: 8 }, (_, bits) =>
  CONTENT.filter((_, at) => (bits & (1 << at)) !== 0),
);
const STEPS: readonly StepName[] = ["envfrom", "header", "header", "eoh", "body", "body", "eom"];

/** What a handler gives, and the packet that says it. */
const VERDICTS: readonly (readonly [name: string, give: () => unknown, reply: string])[] = [
  ["nothing", () => undefined, "c"],
  ["accept", () => accept(), "a"],
  ["reject", () => reject(), "r"],
  ["tempfail", () => tempfail(), "t"],
  ["discard", () => discard(), "d"],
  ["a text", () => reject("550 5.1.1 No"), "y550 5.1.1 No\0"],
];

/** Gives something at the step of this index, and nothing elsewhere. */
function filterAt(at: number, give: () => unknown, isAsync: boolean): { filter: AnyFilter; calls: () => number } {
  let calls = 0;
  const step = (): unknown => (calls++ === at ? give() : undefined);
  const handler = isAsync ? () => Promise.resolve().then(step) : step;
  const filter = { envfrom: handler, header: handler, eoh: handler, body: handler } as AnyFilter;
  return { filter, calls: () => calls };
}

describe.each(OFFERS.map((offered) => [offered.join(" ") || "nothing", offered] as const))(
  "Conversation, where no reply is offered for: %s",
  (_, offered) => {
    const offer = NO_NR | offered.reduce((flags, phase) => flags | NR[phase], 0);

    test.each([...VERDICTS])("%s: a reply to each of the others, and one end", async (name, give, reply) => {
      for (let at = 1; at < STEPS.length - 1; at++) {
        for (const deferContent of [true, false]) {
          for (const isAsync of [true, false]) {
            const { filter, calls } = filterAt(at, give, isAsync);
            const line = Line.to([filter], { deferContent, protocol: offer & ~SKIP });
            line.replies();
            const silent: readonly string[] = deferContent ? offered : [];
            const { protocol } = line.conversation.session.options;
            expect(CONTENT.filter((phase) => (protocol & NR[phase]) !== 0)).toEqual([...silent] as Content[]);
            const expected = STEPS.flatMap((step, index) =>
              silent.includes(step) ? [] : [`${step}:${index < at ? "c" : reply}`],
            );
            expect(await play(line, STEPS)).toBe(expected.join(" "));
            // What came behind the verdict was dropped unread.
            expect(calls()).toBe(name === "nothing" ? STEPS.length - 1 : at + 1);
            // The next message is not concerned.
            expect(await play(line, ["envfrom", "eom"])).toBe("envfrom:c eom:c");
            expect(line.failures).toEqual([]);
          }
        }
      }
    });

    test("skip: said at once where the body is answered, and no chunk more either way", async () => {
      for (const deferContent of [true, false]) {
        let chunks = 0;
        const line = Line.to([{ body: () => (chunks++, skip()) }], { deferContent, protocol: offer });
        line.replies();
        const isSilent = deferContent && offered.includes("body");
        expect(await play(line, ["body", "body", "eom"])).toBe(isSilent ? "eom:c" : "body:s body:s eom:c");
        expect(chunks).toBe(1);
      }
    });
  },
);
