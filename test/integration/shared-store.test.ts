/** Two servers on one Redis, each behind a Postfix of its own: a limit is exact over both, and nothing that fails opens it. */
import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { describeWith } from "../support/available.ts";
import { postfixTool } from "../support/postfix.ts";
import { redisTool, startRedis, type TestRedis } from "../support/redis.ts";
import { waitFor } from "../support/temp.ts";
import { type Site, startSite } from "./support.ts";

setDefaultTimeout(180_000);

const LIMIT = 40;
/** Of each server, that send at once. */
const CLIENTS = 4;

describeWith(postfixTool, "two servers", () => {
  describeWith(redisTool(), "on one Redis", () => {
    let redis: TestRedis;
    let one: Site;
    let other: Site;
    beforeAll(async () => {
      redis = await startRedis(["--maxmemory-policy", "noeviction", "--requirepass", "secret"]);
      [one, other] = await Promise.all([startServer(), startServer()]);
    });
    afterAll(async () => {
      await Promise.all([one?.[Symbol.asyncDispose](), other?.[Symbol.asyncDispose]()]);
      await redis?.[Symbol.asyncDispose]();
    });

    const startServer = () =>
      startSite({
        filters: {
          limit: {
            config: `[[filter]]
use = "rate-limit"
options = { on_store_failure = "tempfail", rules = [{ key = "sender", limit = ${LIMIT}, per = "1d", count = "messages" }] }

[store]
url = "${redis.url.replace("redis://", "redis://:secret@")}/1"
timeout = "2s"
`,
            server: { workers: 2 },
          },
        },
      });

    /** Messages of one sender over a server, several at once. @param sent told of each that was answered */
    async function send(site: Site, from: string, count: number, sent: () => void = () => {}): Promise<number[]> {
      const codes: number[] = [];
      let left = count;
      const client = async (): Promise<void> => {
        while (left-- > 0) {
          codes.push((await site.send({ from })).last.code);
          sent();
        }
      };
      await Promise.all(Array.from({ length: CLIENTS }, client));
      return codes;
    }
    const passed = (codes: readonly number[]): number => codes.filter((code) => code === 250).length;

    test("exactly the limit passes, over both", async () => {
      const codes = await Promise.all([one, other].map((site) => send(site, "both@example.test", LIMIT)));
      expect(codes.map(passed).every((count) => count > 0)).toBe(true);
      expect(passed(codes.flat())).toBe(LIMIT);
      expect(new Set(codes.flat())).toEqual(new Set([250, 451]));
    });

    test("a Redis that hangs: mail is put off, and goes on by itself when it is back", async () => {
      const from = "hangs@example.test";
      expect(passed(await send(one, from, 4))).toBe(4);
      process.kill(redis.pid, "SIGSTOP");
      let held: number[];
      try {
        held = (await Promise.all([one, other].map((site) => send(site, from, CLIENTS)))).flat();
      } finally {
        process.kill(redis.pid, "SIGCONT");
      }
      expect(new Set(held)).toEqual(new Set([451]));
      let later = 0;
      await waitFor(async () => (later += passed(await send(one, from, 1))) > 0, { what: "mail to pass again" });
      const rest = await Promise.all([one, other].map((site) => send(site, from, LIMIT)));
      const all = 4 + later + passed(rest.flat());
      expect(all).toBeLessThanOrEqual(LIMIT);
      // What was under way may have been counted.
      expect(all).toBeGreaterThanOrEqual(LIMIT - 2 * CLIENTS);
    });

    test("a server that is killed under load lets nothing through, and the other goes on to the limit", async () => {
      const from = "killed@example.test";
      let answered = 0;
      const { process: victim } = one.pmilter();
      const killing = send(one, from, LIMIT, () => {
        if (++answered === 5) victim.kill("SIGKILL");
      });
      const codes = await Promise.all([killing, send(other, from, 2 * LIMIT)]);
      await victim.exited;
      const [dead, alive] = codes.map(passed) as [number, number];
      expect(dead).toBeLessThan(LIMIT);
      expect(dead + alive).toBeLessThanOrEqual(LIMIT);
      expect(dead + alive).toBeGreaterThanOrEqual(LIMIT - CLIENTS);
      expect(passed(await send(other, from, 2))).toBe(0);
      expect(new Set(codes.flat())).toEqual(new Set([250, 451]));
      await waitFor(() => deliveredOf(one, from) + deliveredOf(other, from) === dead + alive, {
        what: "all deliveries",
      });
    });

    const deliveredOf = (site: Site, from: string): number =>
      site.sink.messages.filter((message) => message.from === from).length;
  });
});
