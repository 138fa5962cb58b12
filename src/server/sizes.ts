/** Numbers that fit themselves to the machine, unless the configuration gives them. */
import { availableParallelism } from "node:os";
import type { Log } from "../admin/log.ts";
import type { Config } from "../config/config.ts";
import { connectionsThatFit, descriptorLimit, MAX_CONNECTIONS } from "./listening/descriptors.ts";

/** `server.workers` as a number. */
export function workersOf({ server }: Config): number {
  return server.workers === "auto" ? availableParallelism() : server.workers;
}

/** `server.max_connections`, or as many as the limit of open files leaves room for, which is logged. */
export function fittingConnections({ server }: Config, log: Log): number {
  const limit = descriptorLimit();
  const wanted = server.maxConnections ?? MAX_CONNECTIONS;
  const fitting = connectionsThatFit(wanted, limit);
  if (fitting === wanted) return fitting;
  const why = `the limit of open files is ${limit} and each takes two`;
  if (server.maxConnections === null) log.write("info", `server.max_connections is ${fitting}: ${why}`);
  else log.write("warn", `server.max_connections is lowered from ${wanted} to ${fitting}: ${why}`);
  return fitting;
}
