/** The message and the session that `send` and `try` play, from a file and the options of the command line. */
import { readFileSync, statSync } from "node:fs";
import { PlainError, whyNotRead } from "../errors.ts";
import { EMPTY } from "../protocol/bytes.ts";
import type { Habit, Mail } from "../testing/index.ts";
import type { MailArguments } from "./args.ts";

/** A file has no message that can be sent; said to the user as it is. */
export class MessageError extends PlainError {
  override readonly name = "MessageError";

  /** @param file `-` for standard input */
  constructor(file: string, why: string) {
    super(`the message cannot be read: ${file === "-" ? "standard input" : file}: ${why}`);
  }
}

const EXPECTED = "a file with a message";
/** The largest message that is read: far more than mail servers take. */
const MAX_MESSAGE_BYTES = 256 * 2 ** 20;

/**
 * @param file `-` for standard input
 * @throws MessageError
 */
export function readMessage(file: string): Uint8Array {
  let size = 0;
  let bytes: Uint8Array = EMPTY;
  try {
    if (file !== "-") {
      const stats = statSync(file);
      // It may never end. A named pipe does: `pmilter try <(…)`.
      if (stats.isCharacterDevice() || stats.isBlockDevice()) throw new Error(`expected ${EXPECTED}, got a device`);
      ({ size } = stats);
    }
    if (size <= MAX_MESSAGE_BYTES) bytes = readFileSync(file === "-" ? 0 : file);
  } catch (error) {
    throw new MessageError(file, whyNotRead(error, { expected: EXPECTED }));
  }
  // The size of a pipe is only known once it has been read.
  if (Math.max(size, bytes.length) > MAX_MESSAGE_BYTES) {
    throw new MessageError(file, `expected at most ${MAX_MESSAGE_BYTES / 2 ** 20} MiB, got more`);
  }
  // Empty standard input is an empty message; an empty file is the wrong file.
  if (bytes.length === 0 && file !== "-") throw new MessageError(file, "expected headers and a body, got nothing");
  return bytes;
}

export function habitOf({ asSendmail }: MailArguments): Habit {
  return asSendmail ? "sendmail" : "postfix";
}

/** The macros of a message, among them a queue id of its own unless one is given. @param prefix of the queue id */
export function macrosOf({ macros }: MailArguments, prefix: string): Readonly<Record<string, string>> & { i: string } {
  // As long as Postfix's.
  const random = crypto.randomUUID().replaceAll("-", "").toUpperCase();
  const queueId = `${prefix}${random}`.slice(0, 12);
  return { ...macros, i: macros["i"] ?? queueId };
}

export function mailOf(mail: MailArguments, eml: Uint8Array): Mail {
  const { hostname = "localhost" } = mail;
  return {
    client: { address: mail.client ?? "127.0.0.1", hostname },
    helo: mail.helo ?? hostname,
    eml,
    ...(mail.from === undefined ? {} : { from: mail.from }),
    ...(mail.to.length === 0 ? {} : { to: mail.to }),
  };
}
