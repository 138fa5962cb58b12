/**
 * Every key of pmilter.toml: its kind, default, unit and meaning, and the types that follow from them. Defaults stand
 * here and nowhere else; the reference in docs/configuration.md is checked against this file. values.ts judges single
 * values, checks.ts keys together.
 */
import * as v from "valibot";
import { LOG_FORMATS } from "../admin/log.ts";
import { LOG_LEVELS } from "../admin/log-level.ts";
import { FALLBACKS } from "../handler/fallback.ts";
import { PHASE_NAMES, type Phase } from "../protocol/phases.ts";
import {
  anyTable,
  boolean,
  duration,
  durationOrZero,
  folderPath,
  listenAddresses,
  mode,
  handlerPath,
  modulePath,
  networks,
  oneOf,
  size,
  socketPath,
  text,
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
  timeout: key(duration(), 7210, "How long an idle connection may stay.", { unit: "s" }),
  log_level: key(oneOf(LOG_LEVELS), "notice", `The least serious level that is logged: ${LOG_LEVELS.join(", ")}.`),
  log_format: key(
    oneOf(LOG_FORMATS),
    "text",
    "`text`, in the original's shape, `plain`, with local time in ISO 8601, or `json`, one object per line. See [the log](log.md).",
  ),
  handler: key(boolean(), true, "Master switch: false runs no handler and no filter.", { alias: "mruby_handler" }),
  listen_backlog: key(whole(1, 65535), 128, "Connections that the kernel keeps waiting.", { restart: true }),
  debug: key(whole(0, 6), 0, "0 to 6; from 1 on every packet is traced, at level `debug`."),
  workers: key(
    workers(),
    "auto",
    'Number of handler workers, at most 1024; `"auto"`: as many as the cores this process may use.',
  ),
  handler_timeout: key(
    duration(),
    8,
    "How long a phase may await, for the whole chain of filters. Below 10, the time that Sendmail waits.",
    { unit: "s" },
  ),
  eom_timeout: key(
    duration(),
    240,
    "The same for `eom`, from the end of the message; the server sends progress meanwhile. Below 300, the time that Sendmail waits for the end however much progress it sees.",
    { unit: "s" },
  ),
  block_timeout: key(
    duration(),
    2,
    "How long a worker may go without returning to its event loop, in any phase; then the fallback is sent and the worker replaced.",
    { unit: "s" },
  ),
  on_error: key(
    oneOf(FALLBACKS),
    "tempfail",
    "The fallback when a handler throws: tempfail, reject, accept or continue.",
  ),
  on_timeout: key(oneOf(FALLBACKS), "tempfail", "The fallback when a handler is too slow: the same four."),
  defer_content: key(
    boolean(),
    true,
    "Verdicts of `header`, `eoh` and `body` are given at `eom` where the mail server allows it: fewer round trips, the same result.",
  ),
  max_connections: unset(
    whole(1, 1_000_000),
    "Further connections wait in the backlog. Each takes two descriptors: a number that does not fit the limit of open files is lowered at start, with a warning.",
    { restart: true, unset: "10000, or what fits" },
  ),
  drain_timeout: key(
    durationOrZero(),
    300,
    "How long after a reload a session stays with the old code before it is moved, between two messages, to the new.",
    { unit: "s" },
  ),
  stop_timeout: key(durationOrZero(), 20, "How long open sessions get at stop.", { unit: "s" }),
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
    `One packet, its command byte included; over it the connection is closed. At least ${MIN_PACKET}: smaller breaks real mail.`,
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
    "The body of one message, where a filter collects it; a larger one is refused with 552 5.3.4.",
    {
      unit: "bytes",
    },
  ),
  worker_memory: key(
    size(64 * MiB, 2 ** 40),
    1024 * MiB,
    "The heap of one worker; one that stays over it is replaced and finishes its sessions, one that stays over twice as much is ended.",
    { unit: "bytes" },
  ),
});

const HandlerConfigSchema = v.strictObject({
  postconfig_handler: unset(
    handlerPath(),
    "Module whose default function runs, or Ruby script that runs, without arguments and in a worker of its own, at each successful load; an error there is a configuration error.",
    { alias: "mruby_postconfig_handler" },
  ),
  master_exit_handler: unset(handlerPath(), "The same, run once at exit, for at most 5 s.", {
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

const FilterSchema = v.strictObject(
  {
    path: v.pipe(
      modulePath(),
      v.description("The filter's module: its default export is `defineFilter({…})`."),
      v.metadata({ unset: "required" } satisfies About),
    ),
    enabled: key(boolean(), true, "false switches the filter off: its module is not loaded."),
    name: unset(text("a name of one line"), "Name in logs and figures.", { unset: "the module's" }),
    on_error: unset(oneOf(FALLBACKS), "The fallback when this filter throws.", { unset: "the server's" }),
    on_timeout: unset(oneOf(FALLBACKS), "The fallback when this filter is too slow.", { unset: "the server's" }),
    handler_timeout: unset(duration(), "How long a phase of this filter may await: at most `server.handler_timeout`.", {
      unit: "s",
      unset: "the server's",
    }),
    mode: key(
      oneOf(["enforce", "observe"]),
      "enforce",
      "`enforce`, or `observe`: verdicts and changes are logged, not applied.",
    ),
    options: key(
      anyTable(),
      {},
      "Any table, given to this filter as `session.options`. A time with an offset arrives as a `Date`, a local date or time as text.",
    ),
  },
  // The only message of this schema that can appear: keys.ts has dealt with other shapes and unknown keys.
  "expected the path of a filter's module, but the key is missing",
);

export const ConfigSchema = v.strictObject({
  server: v.optional(ServerSchema, {}),
  limits: v.optional(LimitsSchema, {}),
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
