/** `pmilter send`: plays the mail server for a message against the running server. */
import { existsSync } from "node:fs";
import { AddressError, formatAddress, type ListenAddress } from "../config/address.ts";
import { loadConfig } from "../config/load.ts";
import { codeOf, PlainError } from "../errors.ts";
import { ProtocolError } from "../protocol/errors.ts";
import { ClientUsageError, ConversationError, MilterClient, type Outcome } from "../testing/index.ts";
import type { SendArguments } from "./args.ts";
import { askServerOf } from "./find-server.ts";
import { habitOf, macrosOf, mailOf, readMessage } from "./mail.ts";
import type { HandlerFailure, RecentFailure } from "../server/control/recent-failures.ts";
import type { Status } from "../server/control/status.ts";
import { isSocket } from "../server/listening/unix-socket.ts";
import { formatJson, formatOutcome } from "./send-report.ts";

/** `send` failed; said to the user as it is. */
export class SendError extends PlainError {
  override readonly name = "SendError";
}

/**
 * @returns the exit code: 0 with any verdict
 * @throws ConfigError; SendError: the conversation failed
 */
export async function send(configFile: string, mail: SendArguments): Promise<number> {
  const config = loadConfig(configFile);
  const eml = readMessage(mail.file);
  const address = reachable(config.server.listen);
  const { hostname = "localhost" } = mail;
  // By it the failures of this message are found.
  const macros = macrosOf(mail, "SEND");
  const queueId = macros["i"];
  const startedAt = Date.now();
  let outcome: Outcome;
  try {
    await using client = await MilterClient.connect(address, {
      as: habitOf(mail),
      // A filter may take all its time, and is asked for a little more.
      timeoutMs: Math.max(config.server.handlerTimeoutMs, 10_000) + 5000,
      macros,
    });
    outcome = await client.send(mailOf(mail, eml));
  } catch (error) {
    throw explain(error, address);
  }
  const failures = await failuresOf(configFile, outcome, (failure) => {
    const isOfMessage = failure.queueId === queueId || failure.queueId === "";
    return isOfMessage && Date.parse(failure.at) >= startedAt && failure.client.startsWith(`${hostname} [`);
  });
  const report = { ...outcome, failures };
  await Bun.write(Bun.stdout, mail.json ? formatJson(report) : formatOutcome(report));
  return 0;
}

/** How often the server is asked for the failure that a fallback must have: a worker tells of it a little later. */
const MAX_ASKED = 10;
const ASK_AGAIN_MS = 50;

/** The failures of this message, from the server's status, which has the last. None if the server cannot be asked. */
async function failuresOf(
  configFile: string,
  outcome: Outcome,
  isOurs: (failure: RecentFailure) => boolean,
): Promise<HandlerFailure[]> {
  // The reply texts are handlers' own: a fallback has none.
  const isExpected =
    outcome.reply === null && (outcome.verdict !== "accept" || outcome.recipients.some(isRefusedWithoutText));
  for (let asked = 1; ; asked++) {
    let status: Partial<Status>;
    try {
      status = (await askServerOf(configFile, "status")) as Partial<Status>;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (isExpected) process.stderr.write(`whether a handler failed is not known: ${reason}\n`);
      return [];
    }
    const found = (status.failures ?? []).filter(isOurs);
    if (found.length > 0 || !isExpected || asked === MAX_ASKED) {
      return found.map(({ cause, fallback, filter, message, phase, place }) => ({
        filter,
        phase,
        cause,
        message,
        place,
        fallback,
      }));
    }
    await Bun.sleep(ASK_AGAIN_MS);
  }
}

function isRefusedWithoutText({ reply, verdict }: Outcome["recipients"][number]): boolean {
  return verdict !== "accept" && reply === null;
}

/** The first address that a client can connect to; `::` and `0.0.0.0` are reached through loopback. */
function reachable(listen: readonly ListenAddress[]): Exclude<ListenAddress, { kind: "fd" }> {
  const address = listen.find((candidate) => candidate.kind !== "fd");
  if (address === undefined)
    throw new SendError("server.listen has only inherited descriptors: there is no address to connect to");
  if (address.kind !== "tcp") return address;
  if (address.port === 0) throw new SendError("server.listen has port 0: only the running server knows its port");
  if (address.host === "0.0.0.0") return { ...address, host: "127.0.0.1" };
  return address.host === "::" ? { ...address, host: "::1" } : address;
}

function explain(error: unknown, address: ListenAddress): unknown {
  const isConversation = error instanceof ConversationError;
  if (
    !isConversation &&
    !(error instanceof ProtocolError) &&
    !(error instanceof ClientUsageError) &&
    !(error instanceof AddressError)
  ) {
    return error;
  }
  const isConnecting = isConversation && error.code === "PMILTER_ERR_CONNECT";
  const message = isConnecting ? whyNotConnected(error, address) : error.message;
  return new SendError(`${formatAddress(address)}: ${message}`);
}

/** Why the server cannot be connected to, and a remedy. */
function whyNotConnected({ cause, message }: ConversationError, address: ListenAddress): string {
  const isRunning = "is the server running with this configuration?";
  switch (codeOf(cause)) {
    case "ENOENT":
      return `cannot connect: there is no such socket; ${isRunning}`;
    case "ECONNREFUSED":
      return address.kind === "unix" && !isSocket(address.path)
        ? `cannot connect: expected a socket there, got ${existsSync(address.path) ? "something else" : "nothing"}; ${isRunning}`
        : `cannot connect: nobody listens there; ${isRunning}`;
    case "EACCES":
    case "EPERM":
      return `cannot connect: no permission as uid ${process.geteuid?.()}; server.socket_mode and socket_group say who may`;
    case "ENOTFOUND":
      return "cannot connect: the host of server.listen is not known";
    default:
      return `${message}; ${isRunning}`;
  }
}
