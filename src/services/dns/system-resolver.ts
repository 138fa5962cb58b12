/** The resolver of a configuration: it asks the servers of `[dns]`, else those of the machine. */
import type { DnsSettings } from "../../dns/servers.ts";
import { SystemServers } from "./resolv-conf.ts";
import { Resolver } from "./resolver.ts";

const RESOLV_CONF = "/etc/resolv.conf";

export function resolverOf({ attempts, cache, servers, timeoutMs }: DnsSettings): Resolver {
  const system = new SystemServers(RESOLV_CONF, () => resolver.forget());
  const resolver = new Resolver({
    servers: () => (servers.length > 0 ? servers : system.servers),
    timeoutMs,
    attempts,
    cacheSize: cache,
  });
  return resolver;
}
