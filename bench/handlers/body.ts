/** body: decodes the first chunk, as `handlers/body.ts` does to print it, and wants no more of them. */
import { skip, type Session } from "pmilter";
import { keep } from "./keep.ts";

const decoder = new TextDecoder();

export default function body(_session: Session<"body">, chunk: Uint8Array) {
  keep(decoder.decode(chunk));
  return skip();
}
