/** Negotiation: the answer to a Postfix's offer, alone and by a new session. A process of its own, see `cases.ts`. */
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { negotiate } from "../../src/protocol/negotiate.ts";
import { MilterSession } from "../../src/protocol/session.ts";
import { defaultOffer } from "../../src/testing/habits.ts";
import { OPTNEG } from "../support/traffic.ts";
import { type Case, runCases } from "./cases.ts";
import { chainOf } from "./sample.ts";

const LIMITS = { packet: 1024 * 1024, macros: 64 * 1024 };
const OFFER = defaultOffer(6);
const { wants } = chainOf("ten");
const writer = new ReplyWriter(64 * 1024);

function answers(name: string, answer: () => void): Case {
  answer();
  const expected = writer.length;
  writer.clear();
  return {
    name: `negotiation, ${name}`,
    unit: "packet",
    count: 1,
    run() {
      answer();
      if (writer.length !== expected) throw new Error("the answer is not that of the first time");
      writer.clear();
    },
  };
}

await runCases([
  answers("the answer", () => {
    const { version, actions, protocol, lists } = negotiate(OFFER, wants);
    writer.optneg(version, actions, protocol, lists);
  }),
  answers("a new session", () => {
    const session = new MilterSession(wants, LIMITS, writer);
    session.push(OPTNEG);
    if (session.next() !== null) throw new Error("OPTNEG has no event");
  }),
]);
