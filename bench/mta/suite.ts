/**
 * The figure that counts: a private Postfix that takes mail from smtp-source and throws it away, without a filter and
 * with one. What Postfix itself costs is most of it, so the ratio to no filter is what to look at.
 */
import { chmod, readdir } from "node:fs/promises";
import { join } from "node:path";
import { outsideTool } from "../../test/support/available.ts";
import { type Postfix, postfixTool, startPostfix } from "../../test/support/postfix.ts";
import { tempDir, waitFor } from "../../test/support/temp.ts";
import { packageVersions } from "../support/machine.ts";
import { barPlot } from "../support/plot.ts";
import { cpuMicros } from "../support/process.ts";
import { type HandlerSet, startReal } from "../support/servers.ts";
import { formatNumber, formatSpread, ratioOf, spreadOf } from "../support/stats.ts";
import { startGenerators } from "../wire/load.ts";
import { interleave, type Plan, type SuiteResult } from "../support/suite.ts";

const smtpSource = outsideTool("smtp-source", { paths: ["/usr/sbin/smtp-source"] });

const SESSIONS = 10;
const BODY_BYTES = 2048;

/** A variant is a service of Postfix with a port of its own. */
interface Variant {
  readonly name: string;
  readonly service: string;
  readonly handlers: HandlerSet | null;
}

const NO_FILTER: Variant = { name: "Postfix alone", service: "smtp", handlers: null };
const VARIANTS: readonly Variant[] = [
  NO_FILTER,
  { name: "pmilter, ten handlers", service: "ten", handlers: "ten" },
  { name: "pmilter, eom only", service: "eom", handlers: "eom" },
];

interface Measurement {
  readonly perSecond: number;
  /** Processor time of pmilter for a message, in microseconds; 0 without it. */
  readonly cpuMicros: number;
}

export async function runMta(plan: Plan): Promise<SuiteResult> {
  const missing = [postfixTool, smtpSource].filter((tool) => !tool.available).map((tool) => tool.reason);
  if (missing.length > 0) return { tables: [], raw: null, commands: [], skipped: missing.join("; ") };

  const messages = plan.isQuick ? 200 : 2000;
  await using dir = await tempDir("bench-mta");
  const socketOf = (service: string) => join(dir.path, `${service}.sock`);
  await using postfix = await startPostfix({
    services: VARIANTS.filter((variant) => variant.handlers !== null).map(({ service }) => ({
      name: service,
      milters: `unix:${socketOf(service)}`,
    })),
  });
  await chmod(dir.path, 0o755);

  const commands = new Set<string>();
  const send = async (variant: Variant, count: number): Promise<number> => {
    const args = ["-s", SESSIONS, "-m", count, "-l", BODY_BYTES, "-f", "from@example.com", "-t", "to@example.com"];
    const cmd = [smtpSource.path, ...args.map(String), `127.0.0.1:${postfix.port(variant.service)}`];
    const began = performance.now();
    const child = Bun.spawn(cmd, { stdout: "ignore", stderr: "pipe", signal: plan.signal });
    const [exitCode, errors] = await Promise.all([child.exited, child.stderr.text()]);
    const seconds = (performance.now() - began) / 1000;
    // It ends with an error at the first reply it does not like, so every message was accepted.
    if (exitCode !== 0) throw new Error(`smtp-source (${variant.name}) ended with ${exitCode}: ${errors}`);
    if (count === messages) commands.add(["smtp-source", ...args, "127.0.0.1:PORT"].join(" "));
    await emptied(postfix);
    return seconds;
  };

  const results = await interleave(plan, VARIANTS, async (variant, round): Promise<Measurement> => {
    await using stack = new AsyncDisposableStack();
    const server =
      variant.handlers === null
        ? null
        : stack.use(
            await startReal({
              handlers: variant.handlers,
              workers: plan.workers,
              socket: socketOf(variant.service),
              signal: plan.signal,
            }),
          );
    if (server !== null) {
      commands.add(server.command);
      // A server that runs for days has its code compiled; Postfix would take minutes to bring a fresh one there.
      await using _ = await startGenerators(plan, server, { kind: "mail", connections: SESSIONS, changes: 1 });
    }
    await send(variant, messages / 5);
    const before = server === null ? 0 : cpuMicros(server.pid);
    const seconds = await send(variant, messages);
    const cpu = server === null ? 0 : cpuMicros(server.pid) - before;
    if (server !== null && cpu === 0) throw new Error(`${variant.name}: pmilter had nothing to do`);
    const perSecond = messages / seconds;
    plan.note(`mta ${round + 1}/${plan.rounds} ${variant.name}: ${formatNumber(perSecond)} messages/s`);
    return { perSecond, cpuMicros: cpu / messages };
  });

  const of = (variant: Variant, key: keyof Measurement) => results.get(variant)!.map((measurement) => measurement[key]);
  const ratio = (variant: Variant) => ratioOf(of(variant, "perSecond"), of(NO_FILTER, "perSecond"));
  return {
    commands: [...commands],
    raw: VARIANTS.map((variant) => ({ variant: variant.name, rounds: results.get(variant) })),
    versions: packageVersions(["postfix"]),
    plots: [
      barPlot(
        {
          name: "mta-ratio",
          title: `Messages/s through Postfix, to no filter, ${SESSIONS} sessions`,
          scale: "linear",
          unit: "ratio to no filter (more is better)",
        },
        VARIANTS.map((variant) => [variant.name, ratio(variant)]),
      ),
    ],
    tables: [
      {
        title: `mta: smtp-source, ${SESSIONS} sessions, ${messages} messages of ${BODY_BYTES} bytes, one a connection`,
        columns: ["Postfix with", "messages/s", "ratio to no filter", "CPU µs/message of pmilter"],
        rows: VARIANTS.map((variant) => [
          variant.name,
          formatSpread(spreadOf(of(variant, "perSecond"))),
          variant === NO_FILTER ? "1" : formatSpread(ratio(variant)),
          variant.handlers === null ? "-" : formatSpread(spreadOf(of(variant, "cpuMicros"))),
        ]),
        notes: ["queue on disk, delivery to the discard transport, in_flow_delay = 0"],
      },
    ],
  };
}

/** Waits until everything is delivered, so that no run works off what the one before left. */
async function emptied(postfix: Postfix): Promise<void> {
  const queues = ["incoming", "active", "deferred"].map((name) => join(postfix.dir, "spool", name));
  await waitFor(
    async () => {
      const entries = await Promise.all(
        queues.map((queue) => readdir(queue, { recursive: true, withFileTypes: true })),
      );
      return entries.flat().every((entry) => !entry.isFile());
    },
    { what: "Postfix to deliver its queue", timeoutMs: 60_000, intervalMs: 50 },
  );
}
