/**
 * The configuration as the rest of the server sees it: camelCase, times in milliseconds, paths absolute. It is made
 * from a file that has passed every check; nothing here can fail.
 */
import { basename, extname, resolve } from "node:path";
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";
import type { ShippedName } from "../shipped.ts";
import { formatAddress, type ListenAddress, type Network } from "./address.ts";
import type { Notice } from "./keys.ts";
import type { LogFormat } from "../admin/log.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { When } from "../handler/conditions.ts";
import type { Fallback } from "../handler/fallback.ts";
import type { DnsSettings } from "../dns/servers.ts";
import type { StoreSettings } from "../store/settings.ts";
import { defaultControl, defaultState, type Environment } from "./places.ts";
import type { ConfigFile } from "./schema.ts";

export interface ServerConfig {
  listen: ListenAddress[];
  /** Permission bits, 0o660. */
  socketMode: number;
  socketUser: string | null;
  socketGroup: string | null;
  user: string | null;
  group: string | null;
  /** Null admits every address, an empty list none. */
  allow: Network[] | null;
  control: string;
  /** The folder for files that outlive the process; made when first needed. */
  state: string;
  /** The folder for large bodies; null for the state folder. */
  spool: string | null;
  timeoutMs: number;
  logLevel: LogLevel;
  logFormat: LogFormat;
  handler: boolean;
  listenBacklog: number;
  debug: number;
  workers: number | "auto";
  handlerTimeoutMs: number;
  eomTimeoutMs: number;
  blockTimeoutMs: number;
  onError: Fallback;
  onTimeout: Fallback;
  deferContent: boolean;
  /** Null: as many as fit, at most `MAX_CONNECTIONS`. */
  maxConnections: number | null;
  /** May be 0. */
  drainTimeoutMs: number;
  /** May be 0. */
  stopTimeoutMs: number;
  watch: boolean;
}

/** Bytes, except `headers` and `recipients`, which are numbers of them. */
export interface LimitsConfig {
  packet: number;
  headers: number;
  headerBytes: number;
  recipients: number;
  macros: number;
  body: number;
  workerMemory: number;
}

export interface HandlerConfig {
  postconfig: string | null;
  masterExit: string | null;
  session: Partial<Record<Phase, string>>;
}

/** Null in `onError`, `onTimeout` and `handlerTimeoutMs` means the server's; in `name`, the module's. */
export interface FilterConfig {
  /** The absolute path of the file that its table stands in: the configuration, or a file that it includes. */
  file: string;
  /** Which of the `[[filter]]` tables of that file it is, from 0; those that are switched off count. */
  table: number;
  /** Its module; null for a shipped filter. */
  path: string | null;
  /** The shipped filter that it is; null for one with a path. */
  use: ShippedName | null;
  name: string | null;
  onError: Fallback | null;
  onTimeout: Fallback | null;
  handlerTimeoutMs: number | null;
  mode: "enforce" | "observe";
  options: Record<string, unknown>;
  /** Null without conditions. */
  when: When | null;
}

export interface Config {
  /** The absolute path of the file it came from. */
  file: string;
  /** The files that `include` names: paths and patterns as they are written. */
  include: string[];
  /** The absolute paths of the files that were found for it, in order. */
  included: string[];
  server: ServerConfig;
  limits: LimitsConfig;
  dns: DnsSettings;
  store: StoreSettings;
  handler: HandlerConfig;
  /** Those that are switched on, in the order of the file; behind them those of included files. */
  filters: FilterConfig[];
  /** Names of filters without a name in the configuration: the module's file. */
  switchedOff: string[];
  notices: Notice[];
}

/**
 * @param file the absolute path of the configuration file
 * @param folder relative paths are relative to it
 * @param places the files that it includes, and for each filter where its table stands
 */
export function toConfig(
  file: string,
  folder: string,
  from: ConfigFile,
  places: { readonly files: string[]; readonly tables: readonly Pick<FilterConfig, "file" | "table">[] },
  env: Environment,
  notices: Notice[],
): Config {
  const { server, limits } = from;
  const filters = from.filter.map((filter, index) => ({ ...filter, ...places.tables[index]! }));
  const path = (relative: string): string => resolve(folder, relative);
  const pathOrNull = (relative: string | undefined): string | null => (relative === undefined ? null : path(relative));
  return {
    file,
    include: from.include ?? [],
    included: places.files,
    server: {
      listen: server.listen.map((address) => resolveAddress(address, folder)),
      socketMode: server.socket_mode,
      socketUser: server.socket_user ?? null,
      socketGroup: server.socket_group ?? null,
      user: server.user ?? null,
      group: server.group ?? null,
      allow: server.allow ?? null,
      control: pathOrNull(server.control) ?? defaultControl(file, env),
      state: pathOrNull(server.state) ?? defaultState(file, env),
      spool: pathOrNull(server.spool),
      timeoutMs: server.timeout,
      logLevel: server.log_level,
      logFormat: server.log_format,
      handler: server.handler,
      listenBacklog: server.listen_backlog,
      debug: server.debug,
      workers: server.workers,
      handlerTimeoutMs: server.handler_timeout,
      eomTimeoutMs: server.eom_timeout,
      blockTimeoutMs: server.block_timeout,
      onError: server.on_error,
      onTimeout: server.on_timeout,
      deferContent: server.defer_content,
      maxConnections: server.max_connections ?? null,
      drainTimeoutMs: server.drain_timeout,
      stopTimeoutMs: server.stop_timeout,
      watch: server.watch,
    },
    limits: {
      packet: limits.packet,
      headers: limits.headers,
      headerBytes: limits.header_bytes,
      recipients: limits.recipients,
      macros: limits.macros,
      body: limits.body,
      workerMemory: limits.worker_memory,
    },
    dns: {
      servers: from.dns.servers,
      timeoutMs: from.dns.timeout,
      attempts: from.dns.attempts,
      cache: from.dns.cache,
    },
    store: { url: from.store.url, timeoutMs: from.store.timeout, maxBytes: from.store.max_size },
    handler: {
      postconfig: pathOrNull(from.handler.config.postconfig_handler),
      masterExit: pathOrNull(from.handler.config.master_exit_handler),
      session: Object.fromEntries(
        PHASE_NAMES.flatMap((phase) => {
          const relative = from.handler.session[`${phase}_handler`];
          return relative === undefined ? [] : [[phase, path(relative)]];
        }),
      ),
    },
    filters: filters
      .filter(({ enabled }) => enabled)
      .map((filter) => ({
        file: filter.file,
        table: filter.table,
        path: pathOrNull(filter.path),
        use: filter.use ?? null,
        name: filter.name ?? null,
        onError: filter.on_error ?? null,
        onTimeout: filter.on_timeout ?? null,
        handlerTimeoutMs: filter.handler_timeout ?? null,
        mode: filter.mode,
        options: filter.options,
        when: filter.when === undefined ? null : whenOf(filter.when, folder),
      })),
    switchedOff: filters
      .filter(({ enabled }) => !enabled)
      .map((filter) => filter.name ?? filter.use ?? moduleName(filter.path!)),
    notices,
  };
}

function whenOf(when: NonNullable<ConfigFile["filter"][number]["when"]>, folder: string): When {
  return {
    listeners: when.listeners?.map((address) => formatAddress(resolveAddress(address, folder))) ?? null,
    share: when.share ?? null,
    clients: when.clients ?? null,
    notClients: when.not_clients ?? null,
    local: when.local ?? null,
    helos: when.helos ?? null,
    tls: when.tls ?? null,
    authenticated: when.authenticated ?? null,
    users: when.users ?? null,
    senders: when.senders ?? null,
    notSenders: when.not_senders ?? null,
    recipients: when.recipients ?? null,
    notRecipients: when.not_recipients ?? null,
    recipientsMatch: when.recipients_match,
  };
}

/** The name of a filter that has none: that of its file. */
export function moduleName(path: string): string {
  return basename(path, extname(path));
}

/** The same address with the path of a unix socket made absolute. */
export function resolveAddress(address: ListenAddress, folder: string): ListenAddress {
  return address.kind === "unix" ? { kind: "unix", path: resolve(folder, address.path) } : address;
}

/** The files of the handlers, in their order. */
export function entryFiles({ filters, handler, server }: Config): string[] {
  if (!server.handler) return [];
  return [...Object.values(handler.session), ...filters.flatMap(({ path }) => path ?? [])];
}

/** The shipped filters that are used. */
export function shippedFilters({ filters, server }: Config): ShippedName[] {
  return server.handler ? filters.flatMap(({ use }) => use ?? []) : [];
}
