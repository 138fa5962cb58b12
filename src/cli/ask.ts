/** `pmilter status` and `pmilter reload`: ask the running server over its control socket. */
import { PlainError } from "../errors.ts";
import { formatStatus, type Status } from "../server/control/status.ts";
import { asMark, harmless } from "../terminal.ts";
import { askServerOf } from "./find-server.ts";

/** The server could not be asked; said to the user as it is. */
export class AskError extends PlainError {
  override readonly name = "AskError";
}

/**
 * @param asked `health`: whether the exit code tells how the server is
 * @returns the exit code: 0 if a server answers; with `health`, 1 unless its health is `ok`
 */
export async function status(
  configFile: string,
  { health, json: asJson }: { readonly health: boolean; readonly json: boolean },
): Promise<number> {
  const answer = (await ask(configFile, "status")) as Status;
  process.stdout.write(asJson ? `${JSON.stringify(answer, null, 2)}\n` : printable(formatStatus(answer)));
  return health && answer.health !== "ok" ? 1 : 0;
}

/** @returns the exit code: 1 if the reload failed and the old generation keeps serving */
export async function reload(configFile: string, asJson: boolean): Promise<number> {
  const answer = (await ask(configFile, "reload")) as NonNullable<Status["reload"]>;
  if (asJson) process.stdout.write(`${JSON.stringify(answer, null, 2)}\n`);
  else
    (answer.ok ? process.stdout : process.stderr).write(
      printable(`${answer.ok ? "reloaded" : "not reloaded"}: ${answer.message}\n`),
    );
  return answer.ok ? 0 : 1;
}

/** The answer may come from another program than pmilter. */
function printable(text: string): string {
  return harmless(text, asMark, "\n");
}

async function ask(configFile: string, command: "status" | "reload"): Promise<unknown> {
  try {
    return await askServerOf(configFile, command);
  } catch (error) {
    throw new AskError(printable(error instanceof Error ? error.message : String(error)), { cause: error });
  }
}
