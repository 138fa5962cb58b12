/**
 * Users and groups: names to ids, the owner of a unix socket, and giving up root after binding. It is not a sandbox: it
 * changes user and groups of the process, and the variables that belong to a user, nothing else.
 *
 * Names are looked up in /etc/passwd and /etc/group. Accounts that live elsewhere (LDAP, systemd's dynamic users,
 * macOS's directory) are given by number.
 */
import { chmodSync, lchownSync, readFileSync } from "node:fs";
import { PlainError } from "../../errors.ts";
import { type Account, enterAccount } from "./account-environment.ts";

/** A user or group is unknown, or the process may not become it. The message names the expected value. */
export class PrivilegeError extends PlainError {
  override readonly name = "PrivilegeError";
  readonly code = "PMILTER_ERR_PRIVILEGES";
}

export interface UserIds {
  /** null for a number that /etc/passwd does not list. */
  readonly name: string | null;
  readonly uid: number;
  /** The primary group; null for a number that /etc/passwd does not list. */
  readonly gid: number | null;
}

/** Where accounts are looked up; tests give their own. */
export interface AccountFiles {
  readonly passwd: string;
  readonly group: string;
}

export const SYSTEM_ACCOUNTS: AccountFiles = { passwd: "/etc/passwd", group: "/etc/group" };

// 2^32 - 1 is chown's "leave as it is" and setuid's error.
const MAX_ID = 0xffff_fffe;

/** The ids of a user given by name or number. Throws PrivilegeError. */
export function resolveUser(user: string, files: AccountFiles = SYSTEM_ACCOUNTS): UserIds {
  const id = numericId(user, "user");
  // A name wins over a number, as in chown(1): accounts may be named "1000".
  const rows = readRows(files.passwd);
  const row = rows.find(([name]) => name === user) ?? rows.find(([, , uid]) => id !== null && uid === String(id));
  if (row !== undefined) {
    const [name, , uid, gid] = row;
    return { name: name ?? null, uid: listedId(uid, files.passwd, user), gid: listedId(gid, files.passwd, user) };
  }
  if (id !== null) return { name: null, uid: id, gid: null };
  throw new PrivilegeError(`unknown user ${quote(user)}: expected a name from ${files.passwd} or a numeric user id`);
}

/** The id of a group given by name or number. Throws PrivilegeError. */
export function resolveGroup(group: string, files: AccountFiles = SYSTEM_ACCOUNTS): number {
  const row = readRows(files.group).find(([name]) => name === group);
  if (row !== undefined) return listedId(row[2], files.group, group);
  const id = numericId(group, "group");
  if (id !== null) return id;
  throw new PrivilegeError(`unknown group ${quote(group)}: expected a name from ${files.group} or a numeric group id`);
}

/** Ids of the groups that list `name` as a member, and `primary` first. */
export function groupsOf(name: string, primary: number, files: AccountFiles = SYSTEM_ACCOUNTS): number[] {
  const groups = new Set([primary]);
  for (const [group, , gid, members] of readRows(files.group)) {
    if (members?.split(",").includes(name)) groups.add(listedId(gid, files.group, group ?? ""));
  }
  return [...groups];
}

/**
 * Gives a socket file its mode and owner; null leaves the owner or group as it is. Mode first: a user other than root may not
 * change the mode of a file that it has given away. Throws the system error (EPERM: only root gives files to another user;
 * any user gives them to a group of its own).
 */
export function ownSocket(path: string, mode: number, user: number | null, group: number | null): void {
  chmodSync(path, mode);
  if (user !== null || group !== null) lchownSync(path, user ?? -1, group ?? -1);
}

/**
 * Becomes `user` with all groups that it belongs to (a pmilter user in group postfix keeps that), or with `group` as
 * primary group instead of its own. HOME and its kind become those of `user`. Call it after binding and before the first
 * worker or handler. Root cannot be regained afterwards; that is verified. Both null: nothing happens. Throws PrivilegeError, also when the process was
 * not started as root and is not that user already.
 */
export function dropPrivileges(
  { user, group }: { user: string | null; group: string | null },
  files: AccountFiles = SYSTEM_ACCOUNTS,
): void {
  if (user === null && group === null) return;
  const ids = user === null ? null : resolveUser(user, files);
  const gid = group === null ? (ids?.gid ?? null) : resolveGroup(group, files);
  // Before rights are given up: they may be needed to read the file.
  const account = ids?.name == null ? null : accountOf(ids.name, files);
  const { geteuid, getegid, setgid, setuid, setgroups } = posix();

  if (geteuid() !== 0) {
    if (ids !== null && ids.uid !== geteuid()) {
      throw new PrivilegeError(
        `cannot become user ${quote(user ?? "")} (uid ${ids.uid}): started as uid ${geteuid()}; expected to be started as root or as that user`,
      );
    }
    if (group !== null && gid !== getegid()) {
      throw new PrivilegeError(
        `cannot become group ${quote(group)} (gid ${gid}): started as gid ${getegid()}; expected to be started as root or in that group`,
      );
    }
    return;
  }

  if (gid === null) {
    throw new PrivilegeError(
      `user ${quote(user ?? "")} is not in ${files.passwd}, so its group is not known: expected server.group beside it`,
    );
  }
  try {
    // In this order, since each step gives up rights that the step before needs.
    setgroups(ids === null || ids.name === null ? [gid] : supplementaryGroups(ids.name, gid, files));
    setgid(gid);
    if (ids !== null) setuid(ids.uid);
  } catch (cause) {
    throw new PrivilegeError(`cannot become user ${quote(user ?? "root")}, group id ${gid}: ${message(cause)}`, {
      cause,
    });
  }
  verify(ids?.uid ?? 0, gid);
  if (ids !== null) enterAccount(account);
}

/** Whom a server belongs to that gives up root for this user and group; null if it does not. Throws PrivilegeError. */
export function accountFor(
  { user, group }: { user: string | null; group: string | null },
  files: AccountFiles = SYSTEM_ACCOUNTS,
): { uid: number; gid: number } | null {
  if (user === null || posix().geteuid() !== 0) return null;
  const { gid, uid } = resolveUser(user, files);
  // Without a group nothing can be given up, which is said then.
  return { uid, gid: group === null ? (gid ?? 0) : resolveGroup(group, files) };
}

function accountOf(user: string, { passwd }: AccountFiles): Account | null {
  const row = readRows(passwd).find(([name]) => name === user);
  return row === undefined ? null : { name: user, home: row[5] ?? "", shell: row[6] ?? "" };
}

/** initgroups(3) also knows accounts outside /etc/group; where it fails or is absent, the file is read. */
function supplementaryGroups(name: string, gid: number, files: AccountFiles): number[] {
  const { initgroups, getgroups } = posix();
  if (files !== SYSTEM_ACCOUNTS || initgroups === undefined) return groupsOf(name, gid, files);
  try {
    initgroups(name, gid);
  } catch {
    return groupsOf(name, gid, files);
  }
  return [...new Set([...getgroups(), ...groupsOf(name, gid, files)])];
}

/** A set-id call that silently did nothing would leave handlers running as root. */
function verify(uid: number, gid: number): void {
  const { getuid, geteuid, getgid, getegid, setuid, setgid } = posix();
  if (getuid() !== uid || geteuid() !== uid || getgid() !== gid || getegid() !== gid) {
    throw new PrivilegeError(
      `privileges were not given up: expected uid ${uid} and gid ${gid}, but the process has uid ${getuid()}/${geteuid()} and gid ${getgid()}/${getegid()}`,
    );
  }
  if (uid === 0) return;
  if (succeeds(() => setuid(0)) || (gid !== 0 && succeeds(() => setgid(0)))) {
    throw new PrivilegeError(`privileges were not given up: uid ${uid} could become root again`);
  }
}

function succeeds(call: () => void): boolean {
  try {
    call();
    return true;
  } catch {
    return false;
  }
}

function posix() {
  const { getuid, geteuid, getgid, getegid, setuid, setgid, getgroups, setgroups } = process;
  // Bun 1.4.5 has it, its types lack it (docs/bun.md, "Types").
  const { initgroups } = process as { initgroups?: (user: string, group: number) => void };
  if (!getuid || !geteuid || !getgid || !getegid || !setuid || !setgid || !getgroups || !setgroups) {
    throw new PrivilegeError("this system has no user ids: expected Linux or macOS");
  }
  return { getuid, geteuid, getgid, getegid, setuid, setgid, getgroups, setgroups, initgroups };
}

/** Rows of a colon separated account file. A file that cannot be read has no rows: numbers still work. */
function readRows(file: string): string[][] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch {
    return [];
  }
  return text
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(":"));
}

function numericId(text: string, what: string): number | null {
  if (!/^[0-9]+$/.test(text)) return null;
  const id = Number(text);
  if (id > MAX_ID) throw new PrivilegeError(`${what} id ${text} is too large: expected at most ${MAX_ID}`);
  return id;
}

/** Number("") is 0: a damaged row must not turn into root. */
function listedId(field: string | undefined, file: string, account: string): number {
  if (field === undefined || !/^[0-9]+$/.test(field) || Number(field) > MAX_ID) {
    throw new PrivilegeError(`${file} has no numeric id for ${quote(account)}`);
  }
  return Number(field);
}

function quote(text: string): string {
  return JSON.stringify(text);
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
