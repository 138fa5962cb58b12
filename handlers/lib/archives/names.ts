/** Names in archives: bytes in no certain charset. */
import { isUtf8 } from "node:buffer";

/** UTF-8 if it can be, else a character for each byte: an ending is ASCII in all charsets that archives use. */
export function textOf(bytes: Buffer): string {
  return bytes.toString(isUtf8(bytes) ? "utf8" : "latin1");
}

/** Each name and, if it holds a NUL, the part in front of it, at which many programs cut it. Each once. */
export function namesOf(raw: Iterable<Buffer>): Set<string> {
  const names = new Set<string>();
  for (const bytes of raw) {
    names.add(textOf(bytes));
    const nul = bytes.indexOf(0);
    if (nul > 0) names.add(textOf(bytes.subarray(0, nul)));
  }
  return names;
}
