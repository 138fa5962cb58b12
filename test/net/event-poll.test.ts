/** An event loop is not told of a socket whose number means another file by now. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { descriptorOf } from "../../src/net/bun-listen.ts";
import { findEventPoll } from "../../src/net/event-poll.ts";
import { close, deadSocket, dup, removeFromEventPoll, replaceDescriptor } from "../../src/net/libc.ts";
import { IS_LINUX } from "../support/available.ts";
import { tempDir } from "../support/temp.ts";

setDefaultTimeout(120_000);

/** Whether an event poll has an entry for the number. */
const has = (eventPoll: number, descriptor: number): boolean =>
  new RegExp(`^tfd: +${descriptor} `, "m").test(readFileSync(`/proc/self/fdinfo/${eventPoll}`, "utf8"));

test.skipIf(!IS_LINUX)("it is found, the same each time, and nothing of the search is left in it", async () => {
  const eventPoll = findEventPoll()!;
  const entries = () => readFileSync(`/proc/self/fdinfo/${eventPoll}`, "utf8").split("\n").length;
  await Bun.sleep(0);
  const before = entries();
  expect(findEventPoll()).toBe(eventPoll);
  while (entries() > before) await Bun.sleep(1);
  expect(entries()).toBe(before);
});

test.skipIf(!IS_LINUX)("a descriptor that is replaced leaves no entry behind, and its bytes wake nobody", async () => {
  await using folder = await tempDir("event-poll");
  const eventPoll = findEventPoll()!;
  const accepted = Promise.withResolvers<Bun.Socket<undefined>>();
  const events: string[] = [];
  const handlers = {
    open: accepted.resolve,
    data: () => void events.push("data"),
    close: () => void events.push("close"),
    error: () => void events.push("error"),
  };
  using listener = Bun.listen({ unix: join(folder.path, "s"), socket: handlers });
  const client = await Bun.connect({ unix: join(folder.path, "s"), socket: { data() {} } });
  const descriptor = descriptorOf(await accepted.promise);
  const [duplicate, nothing] = [dup(descriptor), deadSocket()];
  expect(has(eventPoll, descriptor)).toBe(true);

  replaceDescriptor(nothing, descriptor, eventPoll);
  expect(has(eventPoll, descriptor)).toBe(false);
  expect(removeFromEventPoll(eventPoll, descriptor)).toBe(false);
  client.write("what the next owner reads");
  await client.flush();
  await Bun.sleep(0);
  await Bun.sleep(0);
  expect(events).toEqual([]);
  expect(listener.unix).toEndWith("s");

  for (const each of [duplicate, nothing]) close(each);
  client.terminate();
});
