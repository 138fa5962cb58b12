/** envrcpt: reads the values that `handlers/rcpt_to.ts` prints, and prints nothing. */
import type { Session } from "pmilter";
import { keep } from "./keep.ts";

export default function envrcpt(session: Session<"envrcpt">, recipient: string) {
  keep(recipient, session.macros.get("{rcpt_addr}") ?? "");
}
