/** `pmilter send`: plays the mail server for one message against the running server. */
import { readFileSync } from "node:fs";
import { AddressError, formatAddress, type ListenAddress } from "../config/address.ts";
import { loadConfig } from "../config/load.ts";
import { PlainError } from "../plain-error.ts";
import { ProtocolError } from "../protocol/errors.ts";
import { ClientUsageError, ConversationError, MilterClient, type Outcome } from "../testing/index.ts";
import type { SendArguments } from "./args.ts";
import { formatJson, formatOutcome } from "./send-report.ts";

/** What `send` could not do; said to the user as it is. */
export class SendError extends PlainError {
  override readonly name = "SendError";
}

/**
 * @returns the exit code: 0 whatever the verdict
 * @throws ConfigError; SendError: the conversation failed
 */
export async function send(configFile: string, mail: SendArguments): Promise<number> {
  const config = loadConfig(configFile);
  const eml = readMessage(mail.file);
  const address = reachable(config.server.listen);
  let outcome: Outcome;
  try {
    await using client = await MilterClient.connect(address, {
      as: mail.asSendmail ? "sendmail" : "postfix",
      // A filter may take all its time, and is asked for a little more.
      timeoutMs: Math.max(config.server.handlerTimeoutMs, 10_000) + 5000,
      macros: mail.macros,
    });
    const hostname = mail.hostname ?? "localhost";
    outcome = await client.send({
      client: { address: mail.client ?? "127.0.0.1", hostname },
      helo: mail.helo ?? hostname,
      eml,
      ...(mail.from === undefined ? {} : { from: mail.from }),
      ...(mail.to.length === 0 ? {} : { to: mail.to }),
    });
  } catch (error) {
    throw explain(error, address);
  }
  await Bun.write(Bun.stdout, mail.json ? formatJson(outcome) : formatOutcome(outcome));
  return 0;
}

function readMessage(file: string): Uint8Array {
  try {
    return readFileSync(file === "-" ? 0 : file);
  } catch (error) {
    throw new SendError(`the message cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
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
  const hint =
    isConversation && error.code === "PMILTER_ERR_CONNECT" ? "; is the server running with this configuration?" : "";
  return new SendError(`${formatAddress(address)}: ${error.message}${hint}`);
}
