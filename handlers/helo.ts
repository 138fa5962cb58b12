// helo: the name the client gives, and its TLS session. The counterpart of the original's helo.rb.
import type { Session } from "pmilter";

export default function helo(session: Session<"helo">, hostname: string) {
  console.log(`helo hostname: ${hostname}`);
  console.log(`tls client issuer: ${session.tls.certIssuer}`);
  console.log(`tls client subject: ${session.tls.certSubject}`);
  console.log(`tls session key size: ${session.tls.cipherBits}`);
  console.log(`tls encrypt method: ${session.tls.cipher}`);
  console.log(`tls version: ${session.tls.version}`);
}
