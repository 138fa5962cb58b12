/**
 * The environment variables and the working folder that change with the user of the process. The variables of root would
 * send handlers, and programs that they start, to folders that they may not enter.
 */
import { accessSync, constants } from "node:fs";
import { setVariable } from "../../net/libc.ts";

/** A row of /etc/passwd; null for a user that is known by its number alone. */
export interface Account {
  readonly name: string;
  readonly home: string;
  readonly shell: string;
}

/** Without an account there is no home: the root folder stands for it, as in containers. */
const NO_HOME = "/";
/** Variables of a user's session, as are those that begin with XDG_, but for two lists that the system gives to all users. */
const OF_SESSION: ReadonlySet<string> = new Set(["MAIL", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"]);
const OF_SYSTEM: ReadonlySet<string> = new Set(["XDG_CONFIG_DIRS", "XDG_DATA_DIRS"]);

/** Call it once the process is that user, and before the first worker: a worker begins with a copy of the environment. */
export function enterAccount(account: Account | null): void {
  set("HOME", account === null || account.home === "" ? NO_HOME : account.home);
  set("USER", account?.name ?? null);
  set("LOGNAME", account?.name ?? null);
  set("SHELL", account === null ? null : account.shell || "/bin/sh");
  for (const name of Object.keys(process.env)) {
    if (OF_SESSION.has(name) || (name.startsWith("XDG_") && !OF_SYSTEM.has(name))) set(name, null);
  }
  const { TMPDIR } = process.env;
  if (TMPDIR !== undefined && !isOpen(TMPDIR, constants.W_OK | constants.X_OK)) set("TMPDIR", null);
  if (!isOpen(".", constants.X_OK)) process.chdir("/");
}

function isOpen(folder: string, mode: number): boolean {
  try {
    accessSync(folder, mode);
    return true;
  } catch {
    return false;
  }
}

/** @param value null: the variable is not set */
function set(name: string, value: string | null): void {
  if (value !== null) process.env[name] = value;
  else if (process.env[name] === undefined) return;
  else delete process.env[name];
  // In Bun 1.4.5 `os.homedir` and `Bun.spawn` read the variables of the process itself (docs/bun.md, "Threads"), and
  // remember a name that was set once: for these a variable that is not set is an empty one.
  setVariable(name, value ?? "");
}
