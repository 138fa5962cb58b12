/**
 * The configuration file of a server, and whether a command means the same file: by the path as given, the real path, or
 * the file itself. Any of the three is enough, since links and folders change while a server runs.
 */
import { realpathSync, statSync } from "node:fs";

/** The identity of a configuration file; plain data, it travels over the control socket. */
export interface ConfigurationFile {
  /** Absolute, links not resolved. */
  readonly path: string;
  /** Null if there is no such file, or it cannot be reached. */
  readonly realPath: string | null;
  /** Device, inode and time of birth: an inode's number is used again. Null as above. */
  readonly identity: string | null;
}

/** Looks the file up. @param path absolute */
export function lookUp(path: string): ConfigurationFile {
  try {
    const { birthtimeNs, dev, ino } = statSync(path, { bigint: true });
    return { path, realPath: realpathSync.native(path), identity: `${dev} ${ino} ${birthtimeNs}` };
  } catch {
    return { path, realPath: null, identity: null };
  }
}

export function isSameConfiguration(a: ConfigurationFile, b: ConfigurationFile): boolean {
  return (
    a.path === b.path ||
    (a.realPath !== null && a.realPath === b.realPath) ||
    (a.identity !== null && a.identity === b.identity)
  );
}

/** Reads it from JSON that a command sent; null if that is something else. */
export function readConfigurationFile(value: unknown): ConfigurationFile | null {
  if (typeof value !== "object" || value === null) return null;
  const { identity = null, path, realPath = null } = value as Partial<Record<keyof ConfigurationFile, unknown>>;
  if (typeof path !== "string") return null;
  if (realPath !== null && typeof realPath !== "string") return null;
  if (identity !== null && typeof identity !== "string") return null;
  return { path, realPath, identity };
}
