/** connect: reads the values that `handlers/connect.ts` prints, and prints nothing. */
import type { Session } from "pmilter";
import { keep } from "./keep.ts";

export default function connect(session: Session<"connect">) {
  keep(session.client.address, session.client.hostname, session.daemonName, session.phase);
}
