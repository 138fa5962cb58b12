/**
 * Plays messages through a conversation in memory, as a Postfix writes them: one connection, one message after the other.
 */
import { TIMERS } from "../../src/testing/in-memory.ts";
import { testServices } from "../../src/testing/services.ts";
import { RunningOutcomes } from "../../src/handler/outcomes.ts";
import { Conversation } from "../../src/handler/conversation.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { type Exchange, OPTNEG } from "../support/traffic.ts";
import { chainOf, mailTraffic } from "./sample.ts";

/** @returns plays another message; the first two, which fill what is kept from message to message, are through */
export function messagePlayer(handlers: "ten" | "eom"): () => void {
  const traffic = mailTraffic(handlers);
  const writer = new ReplyWriter(64 * 1024);
  const conversation = new Conversation(chainOf(handlers), writer, {
    resume() {},
    flush() {},
    failed: (error) => {
      throw error;
    },
    after: () => () => {},
    now: () => 0,
    report: (report) => {
      throw new Error(`a message was not simply accepted: ${JSON.stringify(report)}`);
    },
    count() {},
    calling() {},
    suspended() {},
    isTurnOver: false,
    reportsAccepted: false,
    isTrial: false,
    outcomes: new RunningOutcomes(),
    logs: () => false,
    services: testServices(TIMERS),
    spool: null,
    arrivedAt: 0,
  });
  const play = (exchanges: readonly Exchange[]): number => {
    let replied = 0;
    for (const { bytes } of exchanges) {
      conversation.session.push(bytes);
      conversation.pump();
      replied += writer.length;
      writer.clear();
    }
    return replied;
  };
  play([{ bytes: OPTNEG, awaits: "continue" }]);
  play(traffic.start);
  play(traffic.first);
  const replied = play(traffic.next);
  return () => {
    if (play(traffic.next) !== replied) throw new Error("the replies are not those of the first time");
  };
}
