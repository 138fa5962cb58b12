/**
 * Every key of pmilter.toml: its kind, default, unit and meaning, and the types that follow from them. Defaults stand
 * here and nowhere else; the reference in docs/configuration.md is checked against this file. values.ts judges single
 * values, checks.ts keys together.
 */
import * as v from "valibot";
import { LOG_FORMATS } from "../admin/log.ts";
import { LOG_LEVELS } from "../admin/log-level.ts";
import { RECIPIENTS_MATCH } from "../handler/conditions.ts";
import { FALLBACKS } from "../handler/fallback.ts";
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";
import { SHIPPED_NAMES } from "../shipped.ts";
import {
  anyTable,
  boolean,
  clients,
  duration,
  durationOrZero,
  filePatterns,
  folderPath,
  helos,
  listenAddresses,
  mode,
  handlerPath,
  modulePath,
  nameServers,
  networks,
  oneOf,
  recipients,
  senders,
  share,
  shippedName,
  size,
  socketPath,
  storeUrl,
  text,
  users,
  whole,
  workers,
} from "./values.ts";

/** Facts of a key for the reference, besides its description and default. */
export interface About {
  readonly unit?: "s" | "bytes";
  /** The key's name in the original pmilter, accepted as well. */
  readonly alias?: string;
  /** The value that holds when a key without a default is not set, in words. */
  readonly unset?: string;
  /** A start alone reads it: a reload that finds it changed says that it needs a restart. */
  readonly restart?: true;
}

/** A key that has a default, written as it would be in the file. */
function key<const S extends v.GenericSchema, const D extends v.InferInput<S>>(
  schema: S,
  fallback: D,
  meaning: string,
  about: About = {},
) {
  return v.pipe(v.optional(schema, fallback), v.description(meaning), v.metadata({ ...about }));
}

/** A key that may be absent. */
function unset<const S extends v.GenericSchema>(schema: S, meaning: string, about: About = {}) {
  return v.pipe(v.optional(schema), v.description(meaning), v.metadata({ ...about }));
}

/** The largest buffer that a limit may ask for. */
const MAX_BYTES = 2 ** 31 - 1;
/** Postfix sends body packets of 65,536 bytes and headers of up to 102,400: a smaller limit breaks real mail. */
const MIN_PACKET = 128 * 1024;
const MiB = 1024 * 1024;

const ServerSchema = v.strictObject({
  listen: key(
    listenAddresses(),
    "inet:127.0.0.1:8891",
    "Where mail servers connect: one address or a list. The forms are listed below the table.",
    { restart: true },
  ),
  socket_mode: key(
    mode(),
    "0660",
    "Permissions of a unix socket, octal digits in quotes, set before anyone can connect to it.",
    { restart: true },
  ),
  socket_user: unset(text("a user name"), "Owner of a unix socket.", { restart: true, unset: "the process's" }),
  socket_group: unset(text("a group name"), "Group of a unix socket.", { restart: true, unset: "the process's" }),
  user: unset(text("a user name"), "User to become after the sockets are bound, when started as root.", {
    restart: true,
  }),
  group: unset(text("a group name"), "Group to become after the sockets are bound, when started as root.", {
    restart: true,
  }),
  allow: unset(
    networks(),
    "List of the addresses and networks that may connect by TCP; an empty list admits none. Unix sockets have their permissions instead.",
    { unset: "all" },
  ),
  control: unset(socketPath(), "Unix socket, with mode 0600, for `pmilter status` and `pmilter reload`.", {
    restart: true,
    unset:
      "a name made from the configuration's path, in `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`, else beside it",
  }),
  state: unset(folderPath(), "Folder, with mode 0700, for what outlives the process. Made when something needs it.", {
    restart: true,
    unset: "`$STATE_DIRECTORY`, else `.pmilter/NAME` beside the configuration, NAME being its file name",
  }),
  spool: unset(
    folderPath(),
    "Folder for collected bodies of more than 1 MB, while their messages last. It has to be there; its files have no name. [Where it should be](deployment.md#large-bodies).",
    { restart: true, unset: "the state folder, else `$TMPDIR`" },
  ),
  timeout: key(duration(), 7210, "Maximum time that a connection may be idle.", { unit: "s" }),
  log_level: key(oneOf(LOG_LEVELS), "notice", `The lowest level that is logged: ${LOG_LEVELS.join(", ")}.`),
  log_format: key(
    oneOf(LOG_FORMATS),
    "text",
    "`text`: the original's format; `plain`: local time in ISO 8601; `json`: one object per line. See [the log](log.md).",
  ),
  handler: key(boolean(), true, "Master switch: false runs no handler and no filter.", { alias: "mruby_handler" }),
  listen_backlog: key(whole(1, 65535), 128, "Connections that the kernel keeps waiting.", { restart: true }),
  debug: key(whole(0, 6), 0, "0 to 6; from 1 on the log has every packet, at level `debug`."),
  workers: key(
    workers(),
    "auto",
    'Number of workers, at most 1024; `"auto"`: the number of cores that this process may use.',
  ),
  handler_timeout: key(
    duration(),
    8,
    "Maximum time that a phase may spend awaiting handlers, for the whole filter chain. Keep it below 10 s, Sendmail's timeout.",
    { unit: "s" },
  ),
  eom_timeout: key(
    duration(),
    240,
    "The same for `eom`, from the end of the message; the server sends progress meanwhile. Keep it below 300 s: Sendmail waits no longer for the end, even with progress.",
    { unit: "s" },
  ),
  block_timeout: key(
    duration(),
    2,
    "Maximum time that a worker may run without returning to its event loop, in any phase. After it the fallback is sent and the worker replaced.",
    { unit: "s" },
  ),
  on_error: key(
    oneOf(FALLBACKS),
    "tempfail",
    "The fallback when a handler throws: tempfail, reject, accept or continue.",
  ),
  on_timeout: key(
    oneOf(FALLBACKS),
    "tempfail",
    "The fallback when a handler is too slow: tempfail, reject, accept or continue.",
  ),
  defer_content: key(
    boolean(),
    true,
    "Gives verdicts of `header`, `eoh` and `body` at `eom`, where the mail server allows it: fewer round trips, the same result.",
  ),
  max_connections: unset(
    whole(1, 1_000_000),
    "Further connections wait in the backlog. Each takes two descriptors: a number that does not fit the limit of open files is lowered at start, with a warning.",
    { restart: true, unset: "10000, or what fits" },
  ),
  drain_timeout: key(
    durationOrZero(),
    300,
    "Maximum time that a session stays with the old code after a reload. It is then moved, between two messages, to the new code.",
    { unit: "s" },
  ),
  stop_timeout: key(durationOrZero(), 20, "Time that open sessions have to end at a stop.", { unit: "s" }),
  watch: key(
    boolean(),
    true,
    "Reload when a handler, or a file that it imports, changes. Changes of the configuration itself wait for SIGHUP or `pmilter reload`.",
  ),
});

const LimitsSchema = v.strictObject({
  packet: key(
    size(MIN_PACKET, MAX_BYTES),
    MiB,
    `One packet, with its command byte; over it the connection is closed. At least ${MIN_PACKET}: smaller breaks real mail.`,
    { unit: "bytes" },
  ),
  headers: key(whole(1, MAX_BYTES), 5000, "Header fields of one message."),
  header_bytes: key(size(1, MAX_BYTES), 2 * MiB, "Names and values of all header fields of one message.", {
    unit: "bytes",
  }),
  recipients: key(whole(1, MAX_BYTES), 10_000, "Recipients of one message."),
  macros: key(size(1, MAX_BYTES), 65_536, "Names and values of the macros of one stage.", { unit: "bytes" }),
  body: key(
    size(1, MAX_BYTES),
    64 * MiB,
    "The body of one message, if a filter collects it; a larger body is refused with 552 5.3.4. No filter may ask for more.",
    {
      unit: "bytes",
    },
  ),
  worker_memory: key(
    size(64 * MiB, 2 ** 40),
    1024 * MiB,
    "The heap of one worker. A worker that stays over it is replaced, and finishes its sessions. A worker that stays over twice as much is ended.",
    { unit: "bytes" },
  ),
});

const DnsSchema = v.strictObject({
  servers: key(
    nameServers(),
    [],
    "Name servers, asked in this order; without any those of `/etc/resolv.conf`, which is read again when it changes.",
    { restart: true },
  ),
  timeout: key(duration(), 2, "Maximum time for the answer of one server.", { unit: "s", restart: true }),
  attempts: key(whole(1, 10), 2, "How often each server is asked.", { restart: true }),
  cache: key(whole(0, 10_000_000), 10_000, "Answers that are kept, for all workers together.", { restart: true }),
});

const StoreSchema = v.strictObject({
  url: key(
    storeUrl(),
    "sqlite:store.db",
    "Where filters remember: `sqlite:` and a file, relative to the state folder, or a server: `redis://`, `rediss://`, `valkey://`.",
    { restart: true },
  ),
  timeout: key(duration(), 0.5, "Maximum time of one operation; over it the filter gets a `StoreError`.", {
    unit: "s",
    restart: true,
  }),
  max_size: key(
    size(MiB, 2 ** 50),
    2048 * MiB,
    "Bytes of a SQLite store; above them what expires first is dropped, with a warning.",
    { unit: "bytes", restart: true },
  ),
});

const HandlerConfigSchema = v.strictObject({
  postconfig_handler: unset(
    handlerPath(),
    "A module with a default function, or a Ruby script. It runs without arguments, in a worker of its own, at each successful load; its error is a configuration error.",
    { alias: "mruby_postconfig_handler" },
  ),
  master_exit_handler: unset(handlerPath(), "The same, but it runs once at exit, for at most 5 s.", {
    alias: "mruby_master_exit_handler",
  }),
});

const phaseFile = (phase: Phase) =>
  unset(handlerPath(), `The file that handles \`${phase}\`: its default function, or a Ruby script.`, {
    alias: `mruby_${phase}_handler`,
  });

const HandlerSessionSchema = v.strictObject(
  Object.fromEntries(PHASE_NAMES.map((phase) => [`${phase}_handler`, phaseFile(phase)])) as Record<
    `${Phase}_handler`,
    ReturnType<typeof phaseFile>
  >,
);

/** A condition: without it the filter runs everywhere. */
const condition = <const S extends v.GenericSchema>(schema: S, meaning: string) =>
  unset(schema, meaning, { unset: "all" });

const WhenSchema = v.strictObject({
  listeners: condition(
    listenAddresses(),
    "Listening sockets by which the session came, as `server.listen` has them. Known at negotiation.",
  ),
  share: condition(
    share(),
    'A share of the sessions in percent, such as `"10%"` or `"0.5%"`, drawn once for each. Known at negotiation.',
  ),
  clients: condition(
    clients(),
    "Addresses and networks, or names of clients: confirmed names only. Known at `connect`.",
  ),
  not_clients: condition(clients(), "Clients that it does not run for. Known at `connect`."),
  local: condition(
    boolean(),
    "true: only mail that Postfix takes from its `sendmail` command; false: only mail by SMTP. Sendmail shows all mail as SMTP. Known at `connect`.",
  ),
  helos: condition(helos(), "Names that clients give in HELO or EHLO. Known at `helo`."),
  tls: condition(boolean(), "true: only with TLS; false: only without. Known at `envfrom`."),
  authenticated: condition(
    boolean(),
    "true: only clients that have authenticated; false: only others. Known at `envfrom`.",
  ),
  users: condition(users(), "Login names, in the case that the mail server gives. Known at `envfrom`."),
  senders: condition(senders(), 'Domains, mailboxes, or `"<>"` for the null sender. Known at `envfrom`.'),
  not_senders: condition(senders(), "Senders that it does not run for. Known at `envfrom`."),
  recipients: condition(recipients(), "Domains or mailboxes. Known at each `envrcpt`, and as a whole at `data`."),
  not_recipients: condition(recipients(), "Recipients that do not match. Known as `recipients` is."),
  recipients_match: key(
    oneOf(RECIPIENTS_MATCH),
    "any",
    "Which accepted recipients of a message have to match for the phases behind `envrcpt`: `any`, `every`, or `split`.",
  ),
});

const FilterSchema = v.strictObject({
  path: unset(modulePath(), "The filter's module: its default export is `defineFilter({…})`.", {
    unset: "this, or `use`",
  }),
  use: unset(
    shippedName(),
    `A filter that comes with pmilter, by name: ${SHIPPED_NAMES.map((name) => `\`${name}\``).join(", ")}.`,
    { unset: "this, or `path`" },
  ),
  enabled: key(boolean(), true, "false switches the filter off: its module is not loaded."),
  name: unset(text("a name of one line"), "Name in the log and in `pmilter status`.", { unset: "the module's" }),
  on_error: unset(oneOf(FALLBACKS), "The fallback when this filter throws.", { unset: "the server's" }),
  on_timeout: unset(oneOf(FALLBACKS), "The fallback when this filter is too slow.", { unset: "the server's" }),
  handler_timeout: unset(
    duration(),
    "Maximum time that a phase of this filter may spend awaiting its handler: at most `server.handler_timeout`.",
    {
      unit: "s",
      unset: "the server's",
    },
  ),
  mode: key(
    oneOf(["enforce", "observe"]),
    "enforce",
    "`enforce`, or `observe`: verdicts and changes are logged, not applied.",
  ),
  options: key(
    anyTable(),
    {},
    "Any table, given to this filter as `session.options`, after its own schema if it has one. A time with an offset arrives as a `Date`, a local date or time as text.",
  ),
  when: v.optional(WhenSchema),
});

export const ConfigSchema = v.strictObject({
  include: unset(
    filePatterns(),
    'Files with further `[[filter]]` tables: a path or a list, whose file names may be patterns, as in `"rules.d/*.toml"`. It stands before the first table.',
  ),
  server: v.optional(ServerSchema, {}),
  limits: v.optional(LimitsSchema, {}),
  dns: v.optional(DnsSchema, {}),
  store: v.optional(StoreSchema, {}),
  handler: v.optional(
    v.strictObject({
      config: v.optional(HandlerConfigSchema, {}),
      session: v.optional(HandlerSessionSchema, {}),
    }),
    {},
  ),
  filter: v.optional(v.array(FilterSchema), []),
});

/** A valid file with its defaults, in the spelling of the file; times are milliseconds, addresses are parsed. */
export type ConfigFile = v.InferOutput<typeof ConfigSchema>;
