/**
 * Where a server's control socket and state folder are when the configuration does not name them: made from the
 * configuration's path and the environment. Pure.
 */
import { basename, dirname, extname, isAbsolute, join } from "node:path";

/** The variables of the environment that are used. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Part of a socket's name for people; the path of a unix socket has room for 107 bytes. */
const MAX_NAME = 20;
const HASH_DIGITS = 8;

/** Where services have their folders, so that a command of another environment finds them. */
const SERVICE_FOLDER = "/run/pmilter";

/** A folder where a control socket may lie. */
export interface Place {
  readonly folder: string;
  /** The folder is a user's own: no other user can make sockets in it. */
  readonly isPersonal: boolean;
}

/** The configuration's file name without its ending. */
function nameOf(file: string): string {
  return basename(file, extname(file));
}

/**
 * The file name of the control socket of a configuration. Each configuration has its own: the name carries a hash of the
 * path as it was given, links not resolved, since a link that is turned must not hide the server.
 *
 * @param file absolute
 */
export function controlName(file: string): string {
  const hash = new Bun.CryptoHasher("sha256").update(file).digest("hex").slice(0, HASH_DIGITS);
  const name = nameOf(file)
    .replace(/[^\w.-]/g, "_")
    .slice(0, MAX_NAME);
  return `pmilter${name === "pmilter" ? "" : `-${name}`}-${hash}.ctl`;
}

/** Whether a file of such a folder may be the control socket of some configuration. */
export function isControlName(name: string): boolean {
  return /^pmilter.*\.ctl$/.test(name);
}

/** The absolute paths of a variable; systemd's may hold several. The XDG specification has relative ones ignored. */
function foldersIn(variable: string | undefined): string[] {
  return (variable ?? "").split(":").filter((folder) => isAbsolute(folder));
}

/** The folders where commands look for a server that runs `file`; a server uses the first. */
export function controlPlaces(file: string, env: Environment): Place[] {
  const runtime = foldersIn(env["RUNTIME_DIRECTORY"]).map((folder) => ({ folder, isPersonal: false }));
  const user = env["XDG_RUNTIME_DIR"] ?? "";
  const places = [
    ...runtime,
    ...(isAbsolute(user) ? [{ folder: user, isPersonal: true }] : []),
    { folder: dirname(file), isPersonal: false },
    { folder: SERVICE_FOLDER, isPersonal: false },
  ];
  return places.filter(({ folder }, index) => places.findIndex((place) => place.folder === folder) === index);
}

export function defaultControl(file: string, env: Environment): string {
  return join(controlPlaces(file, env)[0]!.folder, controlName(file));
}

export function defaultState(file: string, env: Environment): string {
  return foldersIn(env["STATE_DIRECTORY"])[0] ?? join(dirname(file), ".pmilter", nameOf(file));
}
