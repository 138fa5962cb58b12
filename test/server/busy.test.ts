/** Many connections at work at once. */
import { expect, setDefaultTimeout, test } from "bun:test";
import { startPmilter } from "../support/pmilter.ts";
import { OPTNEG, RawClient, UNKNOWN } from "./wire.ts";

setDefaultTimeout(120_000);

/** More than Bun takes from one poll: as long as so many are ready it polls again, and no timer runs (Bun 1.4.5). */
const CONNECTIONS = 1100;
const ROUNDS = 8;
/** A fraction of the default backlog. */
const AT_ONCE = 50;

test("a worker that more connections keep at work than one poll finds is not taken for one that does not return", async () => {
  await using server = await startPmilter({
    server: { workers: 1, block_timeout: 1.5 },
    files: {
      "spin.ts": `import { defineFilter } from "pmilter";
export default defineFilter({
  name: "spin",
  unknown() {
    for (const until = performance.now() + 0.5; performance.now() < until;);
  },
});`,
    },
    config: `[[filter]]\npath = "spin.ts"`,
  });
  using clients = new DisposableStack();
  const all: RawClient[] = [];
  while (all.length < CONNECTIONS) {
    const some = await Promise.all(
      Array.from({ length: AT_ONCE }, async () => {
        const client = await RawClient.connect(server.addresses[0]!);
        await client.send(OPTNEG);
        expect((await client.reply()).code).toBe("O");
        return client;
      }),
    );
    for (const client of some) all.push(clients.use(client));
  }
  await Promise.all(
    all.map(async (client) => {
      for (let round = 0; round < ROUNDS; round++) {
        await client.send(UNKNOWN);
        expect((await client.reply()).code).toBe("c");
      }
    }),
  );
  expect(server.log.all.filter((line) => /\]\[(error|crit)\]/.test(line))).toEqual([]);
});
