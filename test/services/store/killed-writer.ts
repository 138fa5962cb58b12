/** Writes to a store as fast as it can, and says each number once it is kept, until it is killed. */
import { writeSync } from "node:fs";
import { StoreKeeper } from "../../../src/services/store/keeper.ts";

const keeper = new StoreKeeper(
  { url: `sqlite:${process.argv[2]!}`, timeoutMs: 500, maxBytes: 2 ** 31 },
  { folder: "/", dropped: () => {}, log: (level, text) => process.stderr.write(`${level}: ${text}\n`) },
);
const increment = (key: string) => ({ kind: "increment", filter: "f", key, by: 1, ttl: null }) as const;

for (;;) {
  let said = "";
  keeper.run([increment("count"), increment("twin")], (at, outcome) => {
    if ("problem" in outcome) throw new Error(outcome.problem);
    if (at === 0) said = `${String(outcome.result)}\n`;
  });
  writeSync(1, said);
}
