/** DNS and store, as the filters of a thread reach them. */
import { type DnsSource, dnsOf } from "../dns/client.ts";
import type { Dns } from "../dns/types.ts";
import { storeOf, type StoreSource } from "../store/client.ts";
import type { Store } from "../store/types.ts";

export interface Services {
  readonly dns: DnsSource;
  readonly store: StoreSource;
}

/** `dns` and `store` of a filter. @param signal of the call at hand */
export function servicesOf(
  { dns, store }: Services,
  filter: string,
  signal: () => AbortSignal,
): { readonly dns: Dns; readonly store: Store } {
  return { dns: dnsOf(dns, signal), store: storeOf(store, filter, signal) };
}
