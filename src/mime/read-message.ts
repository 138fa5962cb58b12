/** `readMessage`: the structure of a message in bytes. The reader and its libraries are loaded at the first call. */
import { UsageError } from "../usage-error.ts";
import type { Mime } from "./types.ts";

type Reader = typeof import("./mime.ts");

/**
 * The structure of a whole message in bytes, header and body: only to be read, edits throw UsageError
 * PMILTER_ERR_NOT_HERE. A mailbox's line `From ` in front is left out. The bytes are not copied.
 * @throws UsageError PMILTER_ERR_ARGUMENT for anything but a Uint8Array
 * @example const { text, attachments } = readMessage(await Bun.file("message.eml").bytes());
 */
export function readMessage(bytes: Uint8Array): Mime {
  if (!(bytes instanceof Uint8Array)) {
    throw new UsageError("PMILTER_ERR_ARGUMENT", `readMessage takes a message as a Uint8Array, got ${typeof bytes}`);
  }
  return (require("./mime.ts") as Reader).mimeOfMessage(bytes);
}
