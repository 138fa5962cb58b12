/** Which messages come from one's own people, for all filters that ask for it. */
import { expect, test } from "bun:test";
import { NetworkTable } from "../../handlers/lib/access-networks.ts";
import { hasOrigin, isOwn, ORIGINS } from "../../handlers/lib/origin.ts";

const NETWORKS = new NetworkTable<true>();
NETWORKS.add("192.0.2.0/24", true);
NETWORKS.add("2001:db8::/32", true);

const CLIENT = { hostname: "mx.example.net", address: "198.51.100.7", port: 25, family: "inet" } as const;
const SESSION = { auth: { type: "", authen: "", author: "" }, client: CLIENT, isLocal: false };

type Case = [string, Partial<typeof SESSION> | { client: Parameters<typeof isOwn>[0]["client"] }, boolean];

test.each<Case>([
  ["a client from elsewhere", {}, false],
  ["a client that has logged in", { auth: { type: "PLAIN", authen: "jane", author: "" } }, true],
  ["one of which only the mechanism is known", { auth: { type: "EXTERNAL", authen: "", author: "" } }, true],
  ["a client that only claims a user", { auth: { type: "", authen: "", author: "jane" } }, false],
  ["Postfix's sendmail command", { isLocal: true }, true],
  ["a network", { client: { ...CLIENT, address: "192.0.2.7" } }, true],
  ["a network, IPv6", { client: { ...CLIENT, address: "2001:db8::1", family: "inet6" } }, true],
  [
    "Sendmail reading from a pipe",
    { client: { hostname: "localhost", address: "", port: 0, family: "unknown" } },
    true,
  ],
  ["a client that nothing is known of", { client: { hostname: "", address: "", port: 0, family: "unknown" } }, false],
  ["a client that calls itself localhost", { client: { ...CLIENT, hostname: "localhost" } }, false],
])("%s", (_, session, expected) => {
  expect(isOwn({ ...SESSION, ...session }, NETWORKS)).toBe(expected);
  const fitting = ORIGINS.filter((origin) => hasOrigin({ ...SESSION, ...session }, { origin, own_networks: NETWORKS }));
  expect(fitting).toEqual(["any", expected ? "own" : "outside"]);
});
