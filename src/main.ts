#!/usr/bin/env bun
/**
 * The executable: arguments to a command, its result to an exit code. The only file that knows where the code of threads
 * is: a compiled binary resolves such an address only from its entry file.
 */
import { ArgumentError, parseArguments } from "./cli/args.ts";
import { keepFrames } from "./cli/keep-frames.ts";
import { PlainError } from "./errors.ts";
import { VERSION } from "./version.ts";

const WORKER_URL = new URL("./worker/entry.ts", import.meta.url);
const SERVICES_URL = new URL("./services/entry.ts", import.meta.url);
const SPOOL_URL = new URL("./spool/entry.ts", import.meta.url);
const WATCH_URL = new URL("./server/files/watch-entry.ts", import.meta.url);

const EXIT_WRONG = 1;
const EXIT_USAGE = 2;

/** Each command loads only its own code: the server's first answer does not wait for the code of other commands. */
async function run(args: readonly string[]): Promise<number> {
  const command = parseArguments(args);
  if (command.name !== "serve") ignoreBrokenPipes();
  switch (command.name) {
    case "help": {
      const { helpText } = await import("./cli/help.ts");
      process.stdout.write(helpText(command.of));
      return 0;
    }
    case "version":
      process.stdout.write(`pmilter ${VERSION} (Bun ${Bun.version})\n`);
      return 0;
    case "serve": {
      // It may begin anew here, with nothing loaded yet.
      const incomplete = keepFrames();
      const { serve } = await import("./cli/serve.ts");
      return serve(
        command.config,
        { workerUrl: WORKER_URL, watchUrl: WATCH_URL, spoolUrl: SPOOL_URL, servicesUrl: SERVICES_URL },
        incomplete,
      );
    }
    case "check": {
      const { check } = await import("./cli/check.ts");
      return check(command, WORKER_URL);
    }
    case "send": {
      const { send } = await import("./cli/send.ts");
      return send(command.config, command.mail);
    }
    case "try": {
      const incomplete = keepFrames();
      if (incomplete !== null) process.stderr.write(`warn: the lines of verdicts are not known: ${incomplete}\n`);
      const { tryMessages } = await import("./cli/try.ts");
      return tryMessages(command.config, command.mail, WORKER_URL);
    }
    case "status": {
      const { status } = await import("./cli/ask.ts");
      return status(command.config, command);
    }
    case "reload": {
      const { reload } = await import("./cli/ask.ts");
      return reload(command.config, command.json);
    }
    case "store": {
      const { store } = await import("./cli/store.ts");
      return store(command.config, command.store);
    }
    case "dkim": {
      const { dkim } = await import("./cli/dkim/dkim.ts");
      return dkim(command.config, command.dkim);
    }
    case "types": {
      const { types } = await import("./cli/types.ts");
      return types(command.folder);
    }
    case "convert": {
      const { convert } = await import("./cli/convert.ts");
      return convert(command.script);
    }
    default:
      return command satisfies never;
  }
}

/** A reader that has gone away, as in `pmilter send … | head`, wants no more: that is no error. */
function ignoreBrokenPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error) => {
      if (!isBrokenPipe(error)) throw error;
    });
  }
}

function isBrokenPipe(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EPIPE";
}

function problemsOf(error: unknown): readonly unknown[] {
  if (error instanceof PlainError) return error.problems;
  if (!(error instanceof ResolveMessage)) return [error instanceof Error ? error.stack : error];
  // Of its own code: handlers are loaded in workers.
  return [`${error.message}\nThe packages that pmilter needs are not installed: run "bun install --frozen-lockfile".`];
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  if (error instanceof ArgumentError) {
    process.stderr.write(
      `pmilter: ${error.message}\nTry: pmilter help${error.command === null ? "" : ` ${error.command}`}\n`,
    );
    process.exitCode = EXIT_USAGE;
  } else if (!isBrokenPipe(error)) {
    const problems = problemsOf(error);
    for (const problem of problems) process.stderr.write(`pmilter: ${problem}\n`);
    process.exitCode = EXIT_WRONG;
  }
}
process.exit();
