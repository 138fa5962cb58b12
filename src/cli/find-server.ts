/**
 * Finds the running server of a configuration, and asks it: over `server.control` if that is set, else over each
 * control socket in the usual places, until a server says that it runs this configuration. The configuration may have
 * faults: a server is asked most often when its files are wrong.
 */
import { readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parse } from "smol-toml";
import { loadConfig } from "../config/load.ts";
import { controlName, controlPlaces, isControlName, type Place } from "../config/places.ts";
import { PlainError } from "../errors.ts";
import { lookUp } from "../server/files/configuration-file.ts";
import { askServer, ControlError, type ControlRequest } from "../server/control/control.ts";
import { PrivilegeError, resolveUser } from "../server/rights/privileges.ts";

/** Milliseconds within which a server has to answer that may run another configuration. */
const IDENTIFY_TIMEOUT_MS = 10_000;
/** A link in the path may have just been turned: so long may the server take to make its socket where it leads now. */
const TURNED_LINK_MS = 1500;
const TURNED_LINK_RETRY_MS = 100;
/** Most sockets of a folder that are asked, besides the socket with the expected name. */
const MAX_SOCKETS = 64;

/** No server was found; said to the user as it is. */
export class NoServerError extends PlainError {
  override readonly name = "NoServerError";
}

/** A socket that may be the server's. */
interface Candidate {
  readonly path: string;
  /** Further users that are believed there, besides those of the configuration. */
  readonly users: readonly number[];
}

/** The file's keys about the server, as far as it can be read. */
interface Setting {
  readonly control: string | null;
  readonly user: string | null;
  readonly isReadable: boolean;
}

/** A server that runs the configuration. */
interface Found {
  readonly path: string;
  readonly status: object;
  readonly isTrusted: (uid: number) => boolean;
}

/**
 * Asks the server that runs this configuration.
 * @param configFile relative to the working directory, or absolute
 * @throws NoServerError, ControlError; ConfigError if there is neither a server nor such a file
 */
export async function askServerOf(configFile: string, command: ControlRequest["command"]): Promise<object> {
  const file = resolve(configFile);
  const setting = readSetting(file);
  let found = await find(file, setting);
  const deadline = performance.now() + (leadsThroughLink(file) ? TURNED_LINK_MS : 0);
  while (Array.isArray(found) && performance.now() < deadline) {
    await Bun.sleep(TURNED_LINK_RETRY_MS);
    found = await find(file, setting);
  }
  if (Array.isArray(found)) {
    if (!setting.isReadable && found.every(isAbsent)) loadConfig(configFile);
    throw new NoServerError(noServer(file, setting, found), { cause: found[0] });
  }
  const { isTrusted, path, status } = found;
  return command === "status" ? status : askServer(path, { command, config: lookUp(file) }, { isTrusted });
}

/** The server; or, if there is none, why no socket belongs to a server of this configuration. */
async function find(file: string, { control, user }: Setting): Promise<Found | ControlError[]> {
  const failures: ControlError[] = [];
  const config = lookUp(file);
  const usersOfFile = usersWithASay(file, user);
  for (const { path, users } of candidatesFor(file, control)) {
    const isTrusted = (uid: number) => usersOfFile.includes(uid) || users.includes(uid);
    try {
      const options = { isTrusted, timeoutMs: IDENTIFY_TIMEOUT_MS };
      const status = await askServer(path, { command: "status", config }, options);
      return { path, status, isTrusted };
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      failures.push(error);
    }
  }
  return failures;
}

/** The file may have any fault; the server reports it. */
function readSetting(file: string): Setting {
  let text: string;
  try {
    text = readFileSync(file, "utf8").replace(/^\uFEFF/, "");
  } catch {
    return { control: null, user: null, isReadable: false };
  }
  const control = keyOf(text, "control");
  return {
    control: control === null ? null : resolve(dirname(file), control),
    user: keyOf(text, "user"),
    isReadable: true,
  };
}

/** A key of `[server]` that is text; also from a file that is no TOML, if it stands on a line by itself. */
function keyOf(text: string, key: string): string | null {
  try {
    const { server } = parse(text) as { server?: Record<string, unknown> };
    const value = server?.[key];
    return typeof value === "string" && value !== "" ? value : null;
  } catch {
    return (
      new RegExp(`^[ \\t]*(?:server\\.)?${key}[ \\t]*=[ \\t]*(["'])([^"'\\n\\\\]+)\\1`, "m").exec(text)?.[2] ?? null
    );
  }
}

function candidatesFor(file: string, control: string | null): Candidate[] {
  if (control !== null) return [{ path: control, users: ownersOf(dirname(control)) }];
  return controlPlaces(file, process.env).flatMap((place) => {
    // A folder of root or of the service: its owner made the socket there, or let the socket's owner make it.
    const users = place.isPersonal ? [] : ownersOf(place.folder);
    return socketsIn(place, controlName(file)).map((path) => ({ path, users }));
  });
}

/** The socket with the expected name; then others, whose servers may know the configuration by another path. */
function socketsIn({ folder }: Place, expected: string): string[] {
  let names: string[] = [];
  try {
    names = readdirSync(folder).filter((name) => isControlName(name) && name !== expected);
  } catch {
    // There is no such folder, or it may not be read: the expected socket may be there all the same.
  }
  return [expected, ...names.toSorted().slice(0, MAX_SOCKETS)].map((name) => join(folder, name));
}

/**
 * The users who decide what a server of this configuration does: root, the owner of the file and of its folder, the
 * user that the server becomes, and the user that asks. Any other user may put a socket into these places, and is not
 * believed.
 */
function usersWithASay(file: string, user: string | null): number[] {
  const users = [0, process.geteuid?.() ?? 0, ...ownersOf(file), ...ownersOf(dirname(file))];
  try {
    if (user !== null) users.push(resolveUser(user).uid);
  } catch (error) {
    // A server does not start with a user that is not there.
    if (!(error instanceof PrivilegeError)) throw error;
  }
  return users;
}

function ownersOf(path: string): number[] {
  try {
    return [statSync(path).uid];
  } catch {
    return [];
  }
}

/** Links in the path of the configuration, but not its own: its socket lies beside their target. */
function leadsThroughLink(file: string): boolean {
  try {
    return realpathSync.native(dirname(file)) !== dirname(file);
  } catch {
    return false;
  }
}

function isAbsent({ code }: ControlError): boolean {
  return code === "ENOENT" || code === "ENOTDIR";
}

function isNobody(error: ControlError): boolean {
  return isAbsent(error) || error.code === "ECONNREFUSED";
}

function noServer(file: string, { control }: Setting, failures: readonly ControlError[]): string {
  if (control !== null) {
    const { message, reason } = failures[0]!;
    return failures.every(isNobody) ? `no server answers at ${control} (server.control): ${reason}` : message;
  }
  const told = failures.filter((error) => !isAbsent(error)).map(({ message }) => message);
  const none = `no server that runs ${file} was found`;
  if (told.length === 0) {
    const folders = controlPlaces(file, process.env).map(({ folder }) => folder);
    return `${none}: there is no control socket in ${folders.join(", ")}`;
  }
  return told.length === 1 ? `${none}: ${told[0]}` : `${none}:\n${told.map((line) => `  ${line}`).join("\n")}`;
}
