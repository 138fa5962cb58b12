/** `pmilter serve`: from the configuration to a running server, and to its end on a signal. */
import { Log } from "../admin/log.ts";
import { Output } from "../admin/output.ts";
import { formatAddress } from "../config/address.ts";
import { loadConfig } from "../config/load.ts";
import { describeFilters, logNotices } from "../server/reload.ts";
import { FilterServer, type ServerOptions } from "../server/server.ts";
import { VERSION } from "../version.ts";

const STDOUT = 1;
const STDERR = 2;
/** The server cannot go on; a supervisor starts it again. */
const EXIT_FATAL = 1;
/** How long the end of the process waits for the last log lines to be taken. */
const FLUSH_TIMEOUT_MS = 1000;
/** A second signal within this time is the first one again: `bun run` of Bun 1.4.5 passes it on (docs/bun.md, "Threads"). */
const SAME_SIGNAL_MS = 500;

/**
 * Runs until a signal ends it.
 * @param incomplete why lines are missing in stack traces, null if none are: see `keepFrames`
 * @returns the exit code
 * @throws ConfigError, ListenError, PrivilegeError, LoadError: it did not start
 */
export async function serve(
  configFile: string,
  threads: Pick<ServerOptions, "workerUrl" | "watchUrl" | "spoolUrl" | "servicesUrl">,
  incomplete: string | null,
): Promise<number> {
  const config = loadConfig(configFile);
  const { logFormat, logLevel } = config.server;
  const errors = new Output(STDERR, (lines) =>
    log.format("warn", `${lines} log lines were dropped: they could not be written in time`),
  );
  const prints = new Output(
    STDOUT,
    (lines) => `pmilter: ${lines} printed lines were dropped: they could not be written in time\n`,
  );
  const log = new Log(errors, logLevel, logFormat);
  const flush = () => Promise.all([errors.flush(FLUSH_TIMEOUT_MS), prints.flush(FLUSH_TIMEOUT_MS)]);

  log.write("notice", `pmilter/${VERSION} starting (using Bun ${Bun.version})`);
  if (incomplete !== null) log.write("warn", `the log names the file of a verdict, but not its line: ${incomplete}`);
  logNotices(log, config);
  if (process.getuid?.() === 0 && config.server.user === null) {
    log.write("warn", "running as root: set server.user, so that handlers have no more rights than they need");
  }
  const onFatal = (reason: string) => {
    log.end();
    log.write("emerg", `${reason}; the server ends`);
    void flush().then(() => process.exit(EXIT_FATAL));
  };
  try {
    const server = new FilterServer(config, { ...threads, log, prints, onFatal });
    const stopping = untilSignal(server, log);
    // Until there is something to reload it waits: the default would end the process.
    process.on("SIGHUP", () => void server.reload());
    // A reader of our output that goes away must not end the server.
    process.on("SIGPIPE", () => {});

    const starting = server.start();
    const early = await Promise.race([stopping, starting]);
    if (early === undefined) {
      const { summary, loads } = server.generation;
      log.write(
        "notice",
        `ready: listening on ${server.addresses.map(formatAddress).join(", ")}; ${loads.length} workers; filters: ${describeFilters(summary)}`,
      );
    }
    // A start that is abandoned fails; that is of no interest any more.
    starting.catch(() => {});
    const signal = early ?? (await stopping);
    const what = server.isStarting ? "the start is abandoned" : "stopping";
    log.write("notice", `${signal}: ${what}, ${server.connections} connections open`);
    await server.stop();
    log.end();
    log.write("notice", "stopped");
    return 0;
  } finally {
    await flush();
  }
}

/** Settles with the first signal that asks the server to stop; the next signal ends the wait. */
function untilSignal(server: FilterServer, log: Log): Promise<string> {
  const first = Promise.withResolvers<string>();
  let since: number | null = null;
  const onSignal = (signal: string) => {
    const now = performance.now();
    if (since === null) {
      since = now;
      first.resolve(signal);
    } else if (now - since > SAME_SIGNAL_MS) {
      // `bun run` passes on a signal that the terminal has sent to both: that is one Ctrl-C, not impatience.
      log.write("warn", `${signal} again: open sessions are cut`);
      server.cut();
    }
  };
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
  return first.promise;
}
