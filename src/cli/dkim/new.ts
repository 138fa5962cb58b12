/** `pmilter dkim new`: makes a key, and says what to publish and to configure. */
import { generateKeyPairSync } from "node:crypto";
import { chmodSync, fchownSync, fchmodSync, closeSync, mkdirSync, openSync, writeSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { GOOD_BITS } from "../../../handlers/lib/dkim/key-record.ts";
import { loadConfig } from "../../config/load.ts";
import { codeOf, PlainError, reason } from "../../errors.ts";
import { resolveUser } from "../../server/rights/privileges.ts";
import type { DkimArguments } from "../args.ts";
import { zoneLine } from "./record.ts";

/** Said to the user as it is. */
export class DkimError extends PlainError {
  override readonly name = "DkimError";
}

/** @returns the exit code */
export function newKey(configFile: string, { domain, isEd25519, selector: given }: DkimArguments): number {
  const config = resolve(configFile);
  const selector = given ?? defaultSelector(isEd25519);
  const folder = join(dirname(config), "keys");
  const file = join(folder, `${domain}.${selector}.pem`);
  const { privateKey } = isEd25519
    ? generateKeyPairSync("ed25519")
    : generateKeyPairSync("rsa", { modulusLength: GOOD_BITS });
  write(folder, file, privateKey.export({ type: "pkcs8", format: "pem" }).toString(), ownerOf(config));
  process.stdout.write(`Written: ${file} (the private key, mode 0600)

1. Publish this record in the zone of ${domain}:

${zoneLine(domain, selector, privateKey)}

2. Add these lines to the options of the filter dkim-sign in ${config}:

[[filter.options.keys]]
domain = ${JSON.stringify(domain)}
selector = ${JSON.stringify(selector)}
file = ${JSON.stringify(relative(dirname(config), file))}

3. When the record is published: pmilter dkim check ${domain} ${selector}, then pmilter reload
`);
  return 0;
}

/** Each month another: a key is replaced by a new one under a new name. */
function defaultSelector(isEd25519: boolean): string {
  const month = new Date().toISOString().slice(0, 7).replace("-", "");
  return `${isEd25519 ? "e" : "s"}${month}`;
}

function write(folder: string, file: string, pem: string, uid: number | null): void {
  let descriptor: number;
  try {
    // The server need not be the user that runs this.
    if (mkdirSync(folder, { recursive: true }) !== undefined) chmodSync(folder, 0o755);
    descriptor = openSync(file, "wx", 0o600);
  } catch (error) {
    if (codeOf(error) !== "EEXIST")
      throw new DkimError(`the key cannot be written: ${reason(error)}`, { cause: error });
    throw new DkimError(`${file} is there already, and is kept: choose another selector, or remove it`);
  }
  try {
    // Whatever the umask says.
    fchmodSync(descriptor, 0o600);
    if (uid !== null) fchownSync(descriptor, uid, -1 >>> 0);
    writeSync(descriptor, pem);
  } finally {
    closeSync(descriptor);
  }
}

/** The user that the server becomes, to whom root gives the key; null to leave it. */
function ownerOf(configFile: string): number | null {
  if (process.geteuid?.() !== 0) return null;
  try {
    const { user } = loadConfig(configFile).server;
    return user === null ? null : resolveUser(user).uid;
  } catch (error) {
    // There need not be a configuration yet.
    if (error instanceof PlainError) return null;
    throw error;
  }
}
