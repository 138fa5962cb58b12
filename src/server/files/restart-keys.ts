/** The configuration's keys that only a start reads. */
import type { Config } from "../../config/config.ts";

/** By their names in the file. */
const RESTART_KEYS = {
  listen: "server.listen",
  listenBacklog: "server.listen_backlog",
  socketMode: "server.socket_mode",
  socketUser: "server.socket_user",
  socketGroup: "server.socket_group",
  user: "server.user",
  group: "server.group",
  control: "server.control",
  state: "server.state",
  maxConnections: "server.max_connections",
} as const satisfies Partial<Record<keyof Config["server"], string>>;

/** The names of those that differ. */
export function needRestart(before: Config, after: Config): string[] {
  const keys = Object.keys(RESTART_KEYS) as (keyof typeof RESTART_KEYS)[];
  return keys.filter((key) => !Bun.deepEquals(before.server[key], after.server[key])).map((key) => RESTART_KEYS[key]);
}
