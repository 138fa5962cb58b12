/**
 * Where a message comes from: from one's own clients, or from outside. The sender's address does not tell, since any client may
 * claim any address.
 */
import type { Session } from "pmilter";
import { picklist } from "pmilter/options";
import type { NetworkTable } from "./access-networks.ts";
import { networks, option } from "./options.ts";

/** The option of all filters that ask for it. */
export const OWN_NETWORKS = option(
  networks(),
  [],
  "clients that count as your own although they do not log in, such as `10.0.0.0/8`",
);

export const ORIGINS = ["any", "own", "outside"] as const;

/** An option that chooses messages by their origin. */
export function originOption(fallback: (typeof ORIGINS)[number]) {
  return option(
    picklist(ORIGINS),
    fallback,
    "`own`: only mail from your own clients; `outside`: only other mail; `any`: all mail",
  );
}

/** What a session says of where a message comes from. */
export type Origin = Pick<Session<"eom">, "auth" | "client" | "isLocal">;

/** Whether the client is one's own: it has logged in, is in one's own networks, or runs on the mail server's machine. */
export function isOwn({ auth, client, isLocal }: Origin, ownNetworks: NetworkTable<true>): boolean {
  if (isLocal || auth.authen !== "" || auth.type !== "") return true;
  // Sendmail has no address for mail from a pipe.
  return client.family === "unknown" ? client.hostname === "localhost" : ownNetworks.find(client.address) === true;
}

interface OriginOptions {
  readonly origin: (typeof ORIGINS)[number];
  readonly own_networks: NetworkTable<true>;
}

/** Whether a message has the origin that the options ask for. */
export function hasOrigin(session: Origin, { origin, own_networks }: OriginOptions): boolean {
  return origin === "any" || isOwn(session, own_networks) === (origin === "own");
}
