// envfrom: the sender; a certain sender is not welcome. The counterpart of the original's mail_from.rb.
import { reject, type Session } from "pmilter";

export default function envfrom(session: Session<"envfrom">, sender: string) {
  console.log(`env from from args: ${sender}`);
  console.log(`env from from symval: ${session.macros.get("{mail_addr}") ?? ""}`);
  console.log(`SASL login name: ${session.auth.authen}`);
  console.log(`SASL login sender: ${session.auth.author}`);
  console.log(`SASL login type: ${session.auth.type}`);

  if (sender === "<spam-from@example.com>") return reject();
}
