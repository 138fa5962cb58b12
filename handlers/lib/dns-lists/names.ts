/** The names that are looked up in lists of domains: of hosts, senders and links. */
import { isIP } from "node:net";
import { nameEntry, normalDomain } from "../access-names.ts";

/**
 * Lists of domains have registered domains, and their names below them only where those differ. What a registered domain is
 * cannot be told from a name alone (`example.co.uk`), so the last two, three and four labels are asked for.
 */
const MIN_LABELS = 2;
const MAX_LABELS = 4;

/** A name, the most specific first, and the domains above it; empty for text that is no name of a host. */
export function namesFor(host: string): string[] {
  const name = normalDomain(host);
  const labels = name.split(".");
  if (nameEntry(name) === null || name.startsWith(".") || labels.length < MIN_LABELS) return [];
  // No top-level domain is a number.
  if (/^\d+$/.test(labels.at(-1)!)) return [];
  const names = labels.length > MAX_LABELS ? [name] : [];
  for (let count = Math.min(MAX_LABELS, labels.length); count >= MIN_LABELS; count--) {
    names.push(labels.slice(-count).join("."));
  }
  return names;
}

/** Stands for the host of links that have none. */
const NO_HOST = "no-host.invalid";

/** The hosts of links as a browser opens them: names and addresses, each once, in order. Of `mailto:`, the domain. */
export function hostsOf(links: Iterable<{ readonly url: string }>): string[] {
  const hosts = new Set<string>();
  for (const { url } of links) {
    const host = hostOf(url);
    if (host !== "") hosts.add(host);
  }
  return [...hosts];
}

function hostOf(url: string): string {
  const [, mailto] = /^mailto:[^?]*@([^?,;>\s]+)/i.exec(url) ?? [];
  if (mailto !== undefined) return normalDomain(mailto);
  const parsed = URL.parse(/^www\./i.test(url) ? `http://${url}` : url, `http://${NO_HOST}`);
  const host = parsed?.hostname.replace(/^\[(.*)\]$/, "$1") ?? "";
  if (host === NO_HOST) return "";
  return isIP(host) === 0 ? normalDomain(host) : host;
}

/**
 * At most so many of these hosts. Which ones depends on the hosts themselves and not on their order: a hundred good ones in
 * front hide none.
 */
export function someOf(hosts: readonly string[], most: number): readonly string[] {
  if (hosts.length <= most) return hosts;
  const order = new Map(hosts.map((host) => [host, Bun.hash.wyhash(host)]));
  return hosts.toSorted((one, other) => (order.get(one)! < order.get(other)! ? -1 : 1)).slice(0, most);
}
