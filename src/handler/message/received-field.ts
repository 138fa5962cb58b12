/**
 * A Received field that is made from a session (RFC 5321 4.4). Both mail servers hide their own Received from milters, and
 * programs that read a message learn the client from that field.
 */
import type { Client } from "../../protocol/client.ts";

/** The facts of a session that the field names. */
export interface TraceFacts {
  readonly client: Client;
  readonly helo: string;
  readonly myHostname: string;
  /** "" if it is not known. */
  readonly queueId: string;
  /** Without brackets. */
  readonly sender: string;
  readonly isEncrypted: boolean;
  readonly isAuthenticated: boolean;
  readonly at: Date;
}

/** A client chooses most of these texts: none of them may look like another part of the field, or end it. */
function word(text: string, fallback: string): string {
  const safe = text.replace(/[^\w.:[\]@!#$%&'*+\-/=?^`{|}~]/g, "?").slice(0, 255);
  return safe === "" ? fallback : safe;
}

/** `192.0.2.1`, or `IPv6:2001:db8::1` as in an address literal. */
function literal({ address, family }: Client): string {
  const shown = word(address, "unknown");
  return family === "inet6" ? `IPv6:${shown}` : shown;
}

/** @returns the field with its name, lines separated by LF, without a line end at the end */
export function receivedField(facts: TraceFacts): string {
  const { client, helo, myHostname, queueId, sender, isEncrypted, isAuthenticated, at } = facts;
  // RFC 3848. Whether the client said HELO or EHLO is not known.
  const protocol = `ESMTP${isEncrypted ? "S" : ""}${isAuthenticated ? "A" : ""}`;
  const from = `from ${word(helo, "unknown")} (${word(client.hostname, "unknown")} [${literal(client)}])`;
  const by = `by ${word(myHostname, "localhost")} (pmilter) with ${protocol}${queueId === "" ? "" : ` id ${word(queueId, "")}`}`;
  const envelope = `(envelope-from <${word(sender, "")}>)`;
  return `Received: ${from}\n\t${by}\n\t${envelope}; ${dateTime(at)}`;
}

/** RFC 5322 3.3, in UTC. */
function dateTime(at: Date): string {
  return at.toUTCString().replace("GMT", "+0000");
}
