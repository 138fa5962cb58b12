// envrcpt: each recipient. The counterpart of the original's rcpt_to.rb.
import type { Session } from "pmilter";

export default function envrcpt(session: Session<"envrcpt">, recipient: string) {
  console.log(`env to from arg: ${recipient}`);
  console.log(`env to from symval: ${session.macros.get("{rcpt_addr}") ?? ""}`);
}
