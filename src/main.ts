#!/usr/bin/env bun
/**
 * The executable: arguments to a command, its result to an exit code. The only file that knows where the worker's code
 * is: a compiled binary resolves such an address only from its entry file.
 */
import { ArgumentError, parseArguments } from "./cli/args.ts";
import { AskError, reload, status } from "./cli/ask.ts";
import { check } from "./cli/check.ts";
import { convert, ConvertError } from "./cli/convert.ts";
import { helpText } from "./cli/help.ts";
import { send, SendError } from "./cli/send.ts";
import { serve } from "./cli/serve.ts";
import { types, TypesError } from "./cli/types.ts";
import { ConfigError } from "./config/errors.ts";
import { ListenError } from "./server/listen-error.ts";
import { PrivilegeError } from "./server/privileges.ts";
import { VERSION } from "./version.ts";
import { LoadError } from "./worker/load-failure.ts";

const WORKER_URL = new URL("./worker/entry.ts", import.meta.url);

const EXIT_WRONG = 1;
const EXIT_USAGE = 2;

async function run(args: readonly string[]): Promise<number> {
  const command = parseArguments(args);
  switch (command.name) {
    case "help":
      process.stdout.write(helpText(command.of));
      return 0;
    case "version":
      process.stdout.write(`pmilter ${VERSION} (Bun ${Bun.version})\n`);
      return 0;
    case "serve":
      return serve(command.config, WORKER_URL);
    case "check":
      return check(command.config, WORKER_URL);
    case "send":
      return send(command.config, command.mail);
    case "status":
      return status(command.config, command.json);
    case "reload":
      return reload(command.config, command.json);
    case "types":
      return types(command.folder);
    case "convert":
      return convert(command.script);
    default:
      return command satisfies never;
  }
}

/** What is wrong with a configuration, a handler or an address is said without a stack: it is not ours. */
function isExpected(error: unknown): error is Error {
  return (
    error instanceof ConfigError ||
    error instanceof LoadError ||
    error instanceof ListenError ||
    error instanceof PrivilegeError ||
    error instanceof SendError ||
    error instanceof AskError ||
    error instanceof TypesError ||
    error instanceof ConvertError
  );
}

try {
  process.exitCode = await run(process.argv.slice(2));
} catch (error) {
  if (error instanceof ArgumentError) {
    process.stderr.write(
      `pmilter: ${error.message}\nTry: pmilter help${error.command === null ? "" : ` ${error.command}`}\n`,
    );
    process.exitCode = EXIT_USAGE;
  } else {
    process.stderr.write(
      `pmilter: ${isExpected(error) ? error.message : error instanceof Error ? error.stack : String(error)}\n`,
    );
    process.exitCode = EXIT_WRONG;
  }
}
process.exit();
