/** Faults and notices that single keys cannot show: they come from keys together, and from habits of mail servers. */
import { resolve } from "node:path";
import { formatAddress, type ListenAddress } from "./address.ts";
import { resolveAddress } from "./config.ts";
import { show } from "./errors.ts";
import type { Fault, Notice } from "./keys.ts";
import type { KeyPath } from "./locate.ts";
import { nearestName } from "./nearest.ts";
import type { ConfigFile } from "./schema.ts";

/** `sun_path` has 108 bytes on Linux, the last of them 0. */
const MAX_SOCKET_PATH = 107;
/** Sendmail's T=R: how long it waits for the reply to a command. */
const SENDMAIL_REPLY_MS = 10_000;
/** Sendmail's T=E: how long it waits for the end of a message, also with progress. */
const SENDMAIL_EOM_MS = 300_000;

/**
 * Faults between keys. Each rule looks only at values that are right by themselves, so that it can run beside other
 * faults and all are reported at once.
 *
 * @param folder relative paths are relative to it
 * @param isSound whether the value at a path, and everything in it, passed the schema
 */
export function checkTogether(file: ConfigFile, folder: string, isSound: (path: KeyPath) => boolean): Fault[] {
  const faults: Fault[] = [];
  const { server } = file;

  for (const [index, filter] of file.filter.entries()) {
    faults.push(...checkModule(index, filter, isSound), ...checkWhen(index, filter.when, server, folder, isSound));
    const path: KeyPath = ["filter", index, "handler_timeout"];
    if (filter.handler_timeout === undefined || !isSound(path) || !isSound(["server", "handler_timeout"])) continue;
    if (filter.handler_timeout > server.handler_timeout) {
      const [own, general] = [filter.handler_timeout / 1000, server.handler_timeout / 1000];
      faults.push({
        path,
        text: `a filter may only shorten server.handler_timeout: expected at most ${general}, got ${own}`,
      });
    }
  }

  const ownControl = isSound(["server", "control"]) ? server.control : undefined;
  const control = ownControl === undefined ? undefined : resolve(folder, ownControl);
  if (control !== undefined) faults.push(...checkLength(control, ["server", "control"]));
  if (!isSound(["server", "listen"])) return faults;
  const seen = new Set<string>();
  for (const [index, address] of server.listen.entries()) {
    const path: KeyPath = server.listen.length === 1 ? ["server", "listen"] : ["server", "listen", index];
    const absolute = resolveAddress(address, folder);
    const name = formatAddress(absolute);
    if (seen.has(name)) faults.push({ path, text: `${show(name)} is listed twice` });
    // Port 0 is a different port each time.
    if (absolute.kind !== "tcp" || absolute.port !== 0) seen.add(name);
    if (absolute.kind !== "unix") continue;
    faults.push(...checkLength(absolute.path, path));
    if (absolute.path === control) faults.push({ path, text: "the same socket as server.control; each needs its own" });
  }
  return faults;
}

/** Conditions that nothing could meet, or that say nothing. */
function checkWhen(
  filter: number,
  when: ConfigFile["filter"][number]["when"],
  { listen }: ConfigFile["server"],
  folder: string,
  isSound: (path: KeyPath) => boolean,
): Fault[] {
  const table: KeyPath = ["filter", filter, "when"];
  if (when === undefined) return [];
  const faults: Fault[] = [];
  const nameOf = (address: ListenAddress) => formatAddress(resolveAddress(address, folder));
  if (isSound([...table, "listeners"]) && isSound(["server", "listen"])) {
    const known = listen.map(nameOf);
    const listeners = when.listeners ?? [];
    for (const [index, address] of listeners.entries()) {
      const name = nameOf(address);
      if (known.includes(name)) continue;
      const near = nearestName(name, known);
      const hint = near === undefined ? `it has ${known.map(show).join(", ")}` : `did you mean ${show(near)}?`;
      const path: KeyPath = [...table, "listeners", ...(listeners.length === 1 ? [] : [index])];
      faults.push({ path, text: `${show(name)} is not in server.listen; ${hint}` });
    }
  }
  const areRecipients = when.recipients !== undefined || when.not_recipients !== undefined;
  if (isSound(table) && when.recipients_match !== "any" && !areRecipients) {
    const text = `${show(when.recipients_match)} is about recipients; expected "recipients" or "not_recipients" as well`;
    faults.push({ path: [...table, "recipients_match"], text });
  }
  return faults;
}

/** A filter has one module: its own, or one that comes with pmilter. */
function checkModule(
  index: number,
  { path, use }: ConfigFile["filter"][number],
  isSound: (path: KeyPath) => boolean,
): Fault[] {
  const table: KeyPath = ["filter", index];
  if (!isSound([...table, "path"]) || !isSound([...table, "use"])) return [];
  if (path !== undefined && use !== undefined) {
    return [{ path: [...table, "use"], text: `"path" is set as well; keep one` }];
  }
  if (path !== undefined || use !== undefined) return [];
  const text = `expected the path of a filter's module, but the key is missing; "use" names a shipped filter instead`;
  return [{ path: [...table, "path"], text }];
}

function checkLength(socket: string, path: KeyPath): Fault[] {
  const length = Buffer.byteLength(socket);
  if (length <= MAX_SOCKET_PATH) return [];
  return [
    {
      path,
      text: `expected the path of a socket of at most ${MAX_SOCKET_PATH} bytes, got ${length} bytes: ${show(socket)}`,
    },
  ];
}

/** Settings that are allowed, and probably not meant. */
export function noticesOf({ server }: ConfigFile): Notice[] {
  const warnings: string[] = [];
  for (const key of ["handler_timeout", "block_timeout"] as const) {
    if (server[key] < SENDMAIL_REPLY_MS) continue;
    warnings.push(`server.${key} is ${server[key] / 1000} s, but Sendmail waits only 10 s for a reply`);
  }
  if (server.eom_timeout >= SENDMAIL_EOM_MS) {
    warnings.push(
      `server.eom_timeout is ${server.eom_timeout / 1000} s, but Sendmail waits only 300 s for the end of a message`,
    );
  }
  if (server.allow?.length === 0 && server.listen.some((address) => address.kind === "tcp")) {
    warnings.push("server.allow is empty: no mail server can connect by TCP");
  }
  return warnings.map((text) => ({ level: "warning", text }));
}
