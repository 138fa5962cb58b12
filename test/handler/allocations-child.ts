/** Plays messages through ten handlers, and prints how many objects of each type that made. Argument: how many messages. */
import { heapStats } from "bun:jsc";
import { messagePlayer } from "../../bench/micro/message-player.ts";

const messages = Number(process.argv[2]);
const play = messagePlayer("ten");
const { objectTypeCounts: before } = heapStats();
for (let message = 0; message < messages; message++) play();
const { objectTypeCounts: after } = heapStats();
const made = Object.entries(after).map(([type, count]) => [type, count - (before[type] ?? 0)]);
process.stdout.write(`${JSON.stringify(Object.fromEntries(made))}\n`);
