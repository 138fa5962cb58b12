/** Addresses that no list can have: of networks that are not routed (RFC 6890). Those of documentation are left to tests. */
import { NetworkTable } from "../access-networks.ts";

const NETWORKS = [
  "0.0.0.0/8",
  "10.0.0.0/8",
  "100.64.0.0/10",
  "127.0.0.0/8",
  "169.254.0.0/16",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "224.0.0.0/3",
  "::/127",
  "fc00::/7",
  "fe80::/10",
  "ff00::/8",
];

const TABLE = new NetworkTable<true>();
for (const network of NETWORKS) TABLE.add(network, true);

/** Whether it is the address of a machine in one's own house, or of none. */
export function isPrivate(address: string): boolean {
  return TABLE.find(address) === true;
}
