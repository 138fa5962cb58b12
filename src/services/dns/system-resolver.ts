/** The resolver of a configuration: it asks the servers of `[dns]`, else those of the machine. */
import type { DnsSettings } from "../../dns/servers.ts";
import { SystemServers } from "./resolv-conf.ts";
import { Resolver } from "./resolver.ts";

const RESOLV_CONF = "/etc/resolv.conf";

/** @param log what an administrator should know */
export function resolverOf(
  { attempts, cache, servers, timeoutMs }: DnsSettings,
  log?: (level: "warn" | "info", text: string) => void,
): Resolver {
  const system = new SystemServers(RESOLV_CONF, () => resolver.forget());
  const resolver = new Resolver({
    servers: () => (servers.length > 0 ? servers : system.settings.servers),
    rotates: () => servers.length === 0 && system.settings.rotates,
    timeoutMs,
    attempts,
    cacheSize: cache,
    ...(log !== undefined && { log }),
  });
  return resolver;
}
