/**
 * Which replies a mail server waits for, counted from the stream alone: each command once, unless its NR flag was granted.
 * Orders that make no sense are answered too, so no state is needed.
 */
import { packetsOf } from "../../protocol/wire.ts";

/** The NR flag by command; OPTNEG and BODYEOB have none. */
const NR: Readonly<Record<string, number>> = {
  O: 0,
  C: 0x1000,
  H: 0x2000,
  M: 0x4000,
  R: 0x8000,
  T: 0x10000,
  L: 0x80,
  N: 0x40000,
  B: 0x80000,
  E: 0,
  U: 0x20000,
};

/**
 * @param taken the part of the stream that was taken: whole packets
 * @param protocol the flags that were granted
 * @param isLastOpen the last packet has no reply: it was an error, or its handlers are still awaited
 * @returns the code of each command that has its reply, in order
 */
export function owedReplies(taken: Uint8Array, protocol: number, isLastOpen: boolean): string[] {
  const packets = packetsOf(taken);
  if (isLastOpen) packets.pop();
  return packets.map((packet) => packet[0]!).filter((code) => code in NR && (protocol & NR[code]!) === 0);
}
