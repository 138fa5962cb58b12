/** eom: reads the values that `handlers/eom.ts` prints, prints nothing, and adds the same header. */
import type { Session } from "pmilter";
import { keep, keepNumber } from "./keep.ts";

export default function eom(session: Session<"eom">) {
  const { message } = session;
  keep(session.myHostname, session.queueId);
  keepNumber(message.receivedAt.getTime());
  message.addHeader("X-Pmilter", "Enable");
}
