/** helo: reads the values that `handlers/helo.ts` prints, and prints nothing. */
import type { Session } from "pmilter";
import { keep } from "./keep.ts";

export default function helo(session: Session<"helo">, hostname: string) {
  const { tls } = session;
  keep(hostname, tls.certIssuer, tls.certSubject, tls.cipherBits, tls.cipher, tls.version);
}
