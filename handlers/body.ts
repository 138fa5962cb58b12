// body: the first chunk of the body, and no more of it. The counterpart of the original's body.rb.
import { skip, type Session } from "pmilter";

export default function body(_session: Session<"body">, chunk: Uint8Array) {
  console.log(`body chunk; ${new TextDecoder().decode(chunk).trimEnd()}`);
  return skip();
}
