// header: each header field. The counterpart of the original's header.rb.
import type { Session } from "pmilter";

export default function header(_session: Session<"header">, name: string, value: string) {
  console.log(`header: {"${name}"=>"${value}"}`);
}
