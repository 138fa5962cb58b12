/**
 * Session and conversation in memory: one whole message from MAIL to the end, twelve headers, 2 KB body, macros, in
 * the pieces in which a Postfix writes it. A process of its own, see `cases.ts`.
 */
import { Conversation } from "../../src/handler/conversation.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { type Exchange, OPTNEG } from "../support/traffic.ts";
import { type Case, runCases } from "./cases.ts";
import { chainOf, mailTraffic } from "./sample.ts";

function message(name: string, handlers: "ten" | "eom"): Case {
  const traffic = mailTraffic(handlers);
  const writer = new ReplyWriter(64 * 1024);
  const conversation = new Conversation(chainOf(handlers), writer, {
    resume() {},
    flush() {},
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
  return {
    name: `message, ${name}`,
    unit: "message",
    count: 1,
    run() {
      if (play(traffic.next) !== replied) throw new Error("the replies are not those of the first time");
    },
  };
}

await runCases([message("ten handlers", "ten"), message("eom only", "eom")]);
