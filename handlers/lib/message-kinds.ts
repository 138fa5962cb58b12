/** Messages as attachments: in which wrapping they come, and what of mail cannot be looked into. */
import type { Part } from "pmilter";
import { bufferOf } from "./archives/archive.ts";

const MESSAGE_NAME = /\.(?:eml|emlx|mht|mhtml|nws)[.\s]*$/i;

/** Whether programs open a file of that name as a message. */
export function isMessageName(name: string): boolean {
  return MESSAGE_NAME.test(name);
}

/** A line in front of a message: that of a mailbox, or its length in a file of Apple Mail. */
const FROM_LINE = /^(?:>?From [^\n]*|[0-9]+[ \t]*\r?)\n/;
const FIRST_FIELD =
  /^(?:Received|Return-Path|Delivered-To|From|To|Cc|Subject|Date|Message-ID|Reply-To|MIME-Version|Content-Type|X-[\w-]+)[ \t]*:/i;
const MESSAGE_FIELD = /^(?:From|Subject|Date|Message-ID|Received|MIME-Version)[ \t]*:/im;

/** Whether a file begins as a message does, whatever its name and its type. */
export function startsAsMessage(head: Uint8Array): boolean {
  const text = latin1(head.subarray(0, 4096)).replace(FROM_LINE, "");
  return (
    FIRST_FIELD.test(text) && MESSAGE_FIELD.test(text.split(/\r?\n\r?\n/, 1)[0]!) && /^Content-Type[ \t]*:/im.test(text)
  );
}

/** A message without the line of a mailbox in front of it. */
export function withoutFromLine(message: Uint8Array): Uint8Array {
  const line = FROM_LINE.exec(latin1(message.subarray(0, 1000)));
  return line === null ? message : message.subarray(line[0].length);
}

function latin1(bytes: Uint8Array): string {
  return bufferOf(bytes).toString("latin1");
}

/** Why a part cannot be looked into; null if it can. */
export function unlistedPart({ parent, type }: Part): string | null {
  if (type === "message/partial") return "a piece of a message is not looked into";
  if (type === "message/external-body") return "its content is elsewhere, and not looked into";
  if (/^application\/(?:x-)?pkcs7-mime$/.test(type)) return "S/MIME messages are not looked into";
  if (parent?.type === "multipart/encrypted" && type !== "application/pgp-encrypted") {
    return "encrypted messages are not looked into";
  }
  return null;
}
