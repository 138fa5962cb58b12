/** What it costs a message to ask the services: one operation of the store, or one question that the cache answers. */
import { join } from "node:path";
import { startNameServer, type TestNameServer } from "../../test/services/dns/server.ts";
import { redisTool, startRedis, type TestRedis } from "../../test/support/redis.ts";
import { type RunningServer, startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";
import type { Table } from "../support/table.ts";
import { type Load, LONG, measureLoad, type Measurement } from "../wire/load.ts";

const FILTERS = join(import.meta.dir, "..", "filters", "asks");

interface Variant {
  readonly name: string;
  /** The file of its filter, without `.ts`. */
  readonly filter: "nothing" | "store" | "dns";
  /** Further tables of the configuration. */
  readonly config: string;
}

const NOTHING: Variant = { name: "asks nothing", filter: "nothing", config: "" };
const SQLITE: Variant = { name: "take, SQLite", filter: "store", config: "" };

/** Messages a second where latency is measured: far from the limit. */
const PACED = 500;

export async function runServices(plan: Plan): Promise<SuiteResult> {
  await using stack = new AsyncDisposableStack();
  const names: TestNameServer = stack.use(
    await startNameServer((name) => ({ answers: [{ type: "TXT", name, ttl: 86_400, data: "v=spf1 -all" }] })),
  );
  const dns = `[dns]\nservers = ["${names.address}:${names.port}"]\n`;
  const variants: Variant[] = [NOTHING, { name: "TXT, cached", filter: "dns", config: dns }, SQLITE];
  const redis = await redisVariant(plan, stack);
  if (redis !== null) variants.push(redis);
  const commands = new Set<string>();
  const start = async ({ config, filter, name }: Variant): Promise<RunningServer> => {
    const path = JSON.stringify(join(FILTERS, `${filter}.ts`));
    const server = await startReal({
      handlers: "eom",
      config: `[[filter]]\npath = ${path}\n\n${config}`,
      workers: plan.workers,
      signal: plan.signal,
    });
    commands.add(
      `bun src/main.ts -c pmilter.toml   # bench/filters/asks/${filter}.ts (${name}), workers = ${plan.workers}`,
    );
    return server;
  };
  const measure = async (title: string, load: Load): Promise<Map<Variant, Measurement[]>> =>
    await interleave(plan, variants, async (variant, round) => {
      await using server = await start(variant);
      const measurement = await measureLoad(plan, server, load);
      const rate = formatNumber(measurement.perSecond);
      plan.note(`${title} ${round + 1}/${plan.rounds} ${variant.name}: ${rate} messages/s`);
      return measurement;
    });
  const mail: Load = { kind: "mail", connections: plan.connections, messagesPerConnection: LONG, changes: 0 };
  const full = await measure("services, as many as go", mail);
  const paced = await measure(`services, ${PACED} a second`, { ...mail, perSecond: PACED });
  return {
    commands: [...commands],
    tables: [
      tableOf(`services: a question for each message, ${plan.connections} connections, as many as go`, full),
      tableOf(`services: the same, ${PACED} messages a second`, paced),
    ],
    raw: { full: rawOf(full), paced: rawOf(paced) },
  };
}

/** Starts a Redis, if it can be had. */
async function redisVariant(plan: Plan, stack: AsyncDisposableStack): Promise<Variant | null> {
  const tool = redisTool();
  if (!tool.available) {
    plan.note(`services: without Redis: ${tool.reason}`);
    return null;
  }
  const { url }: TestRedis = stack.use(await startRedis());
  return { name: "take, Redis", filter: "store", config: `[store]\nurl = "${url}"\n` };
}

function rawOf(results: ReadonlyMap<Variant, Measurement[]>): unknown {
  return Object.fromEntries([...results].map(([{ name }, rounds]) => [name, rounds]));
}

function tableOf(title: string, results: ReadonlyMap<Variant, Measurement[]>): Table {
  const of = (variant: Variant, key: keyof Measurement): number[] =>
    results.get(variant)!.map((measurement) => measurement[key]);
  const spread = (variant: Variant, key: keyof Measurement): string => formatSpread(spreadOf(of(variant, key)));
  return {
    title,
    columns: ["the filter", "messages/s", "CPU µs/message", "p50 µs", "p99 µs", "CPU ratio"],
    rows: [...results.keys()].map((variant) => [
      variant.name,
      spread(variant, "perSecond"),
      spread(variant, "cpuMicros"),
      spread(variant, "p50"),
      spread(variant, "p99"),
      formatSpread(ratioOf(of(variant, "cpuMicros"), of(NOTHING, "cpuMicros"))),
    ]),
    notes: ["p50 and p99 are of each reply; a message has about ten, and asks at MAIL"],
  };
}
