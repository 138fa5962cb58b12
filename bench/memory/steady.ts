/** Whether memory stays as it is over many messages. */
import { residentBytes } from "../support/process.ts";
import { startReal } from "../support/servers.ts";
import { formatNumber } from "../support/stats.ts";
import type { Plan, SuiteResult } from "../support/suite.ts";
import { measureGenerators, startGenerators } from "../wire/load.ts";

const MESSAGES = 1_000_000;
const QUICK_MESSAGES = 10_000;
const POINTS = 10;
/** So long is counted at a time. */
const STEP_MS = 250;
/** Growth is the last three points less these three: the first points still fill the heap. */
const EARLY = [2, 3, 4];
const LATE = [8, 9, 10];

interface Point {
  readonly messages: number;
  readonly bytes: number;
}

export async function measureSteady(plan: Plan): Promise<SuiteResult> {
  const messages = plan.isQuick ? QUICK_MESSAGES : MESSAGES;
  await using server = await startReal({ handlers: "ten", workers: plan.workers, signal: plan.signal });
  await using generators = await startGenerators(plan, server, {
    kind: "mail",
    connections: plan.connections,
    changes: 1,
  });
  const points: Point[] = [];
  for (let done = 0; points.length < POINTS;) {
    plan.signal.throwIfAborted();
    done += (await measureGenerators(generators, STEP_MS)).completed;
    while (points.length < POINTS && done >= (messages / POINTS) * (points.length + 1)) {
      points.push({ messages: done, bytes: residentBytes(server.pid) });
    }
  }
  const mean = (at: readonly number[], key: keyof Point) =>
    at.reduce((sum, point) => sum + points[point - 1]![key], 0) / at.length;
  const growth = mean(LATE, "bytes") - mean(EARLY, "bytes");
  const each = growth / Math.max(1, mean(LATE, "messages") - mean(EARLY, "messages"));
  plan.note(`memory steady: ${formatNumber(growth / 2 ** 20)} MiB more in the last three tenths than in the first`);
  return {
    commands: [server.command],
    raw: { messages, points, growth },
    tables: [
      {
        title: `memory: resident MiB over ${formatNumber(messages)} messages, ${plan.connections} connections, 10 messages each`,
        columns: ["messages", ...points.map((point) => `${formatNumber(point.messages / 1000)}k`)],
        rows: [["resident MiB", ...points.map(({ bytes }) => formatNumber(bytes / 2 ** 20))]],
        notes: [
          `points 8 to 10 against 2 to 4: ${formatNumber(growth / 2 ** 20)} MiB more, ${formatNumber(each)} bytes a message; target: flat`,
        ],
      },
    ],
  };
}
