/** Sends messages through a conversation, and prints how many objects of each type that made. Argument: how many messages. */
import { heapStats } from "bun:jsc";
import { chainOf, mailTraffic } from "../../bench/micro/sample.ts";
import { Conversation } from "../../src/handler/conversation.ts";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { OPTNEG } from "../../bench/support/traffic.ts";
import { FakeHost } from "./harness.ts";

const messages = Number(process.argv[2]);
const traffic = mailTraffic("ten");
const writer = new ReplyWriter();
const conversation = new Conversation(chainOf("ten"), writer, new FakeHost(false));
const send = (bytes: Uint8Array) => {
  conversation.session.push(bytes);
  conversation.pump();
  writer.clear();
};
const sendAll = (exchanges: typeof traffic.next) => {
  for (const { bytes } of exchanges) send(bytes);
};

send(OPTNEG);
sendAll(traffic.start);
// The first ones fill what is kept from message to message.
for (const exchanges of [traffic.first, traffic.next, traffic.next]) sendAll(exchanges);
const { objectTypeCounts: before } = heapStats();
for (let message = 0; message < messages; message++) sendAll(traffic.next);
const { objectTypeCounts: after } = heapStats();
const made = Object.entries(after).map(([type, count]) => [type, count - (before[type] ?? 0)]);
process.stdout.write(`${JSON.stringify(Object.fromEntries(made))}\n`);
