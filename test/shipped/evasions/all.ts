/** All evasions, and what shows that a program opens the file. */
import { archives } from "./archives.ts";
import { boundaries } from "./boundaries.ts";
import { encodings } from "./encodings.ts";
import type { Evasion } from "./evasion.ts";
import { names } from "./names.ts";
import { nesting } from "./nesting.ts";
import { partHeaders } from "./part-headers.ts";

export { type ArchiveEvasion, archives } from "./archives.ts";
export { type Evasion, KINDS, type Kind } from "./evasion.ts";

/** By kind, in the order of KINDS; the same ones each time. */
export function allEvasions(): Evasion[] {
  return [...names(), ...partHeaders(), ...boundaries(), ...nesting(), ...encodings(), ...archives()];
}

/** Whether a system would run a file of that name: dots, spaces and NUL at its end do not count. */
export function isTheFile(name: string): boolean {
  // oxlint-disable-next-line no-control-regex
  return /\.js[.\s\0]*$/i.test(name);
}
