// connect: the client. The counterpart of the original's connect.rb.
import type { Session } from "pmilter";

export default function connect(session: Session<"connect">) {
  console.log("hello pmilter handler called from pmilter");
  console.log(`client ipaddr ${session.client.address}`);
  console.log(`client hostname ${session.client.hostname}`);
  console.log(`client daemon ${session.daemonName}`);
  console.log(`handler phase name: ${session.phase}`);
}
