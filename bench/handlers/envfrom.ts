/** envfrom: reads the values that `handlers/mail_from.ts` prints, and prints nothing. */
import { reject, type Session } from "pmilter";
import { keep } from "./keep.ts";

export default function envfrom(session: Session<"envfrom">, sender: string) {
  const { auth } = session;
  keep(sender, session.macros.get("{mail_addr}") ?? "", auth.authen, auth.author, auth.type);
  if (sender === "<spam-from@example.com>") return reject();
}
