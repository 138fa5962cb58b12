/** Keys for dkim-sign, and their records. */
import { generateKeyPairSync, type KeyObject } from "node:crypto";

interface KeyPair {
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
}

export interface TestKeys {
  /** By path relative to the configuration. */
  readonly files: Readonly<Record<string, string>>;
  /** Texts of TXT records by name. */
  readonly records: Readonly<Record<string, string>>;
  /** Tables `[[filter.options.keys]]`. */
  readonly toml: string;
}

/** An RSA key `r` and an Ed25519 key `e`. */
export function makeKeys(domain: string): TestKeys {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const ed25519 = generateKeyPairSync("ed25519");
  const der = ({ publicKey }: KeyPair) => publicKey.export({ type: "spki", format: "der" });
  const pem = ({ privateKey }: KeyPair) => privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  const table = (selector: string) =>
    `[[filter.options.keys]]\ndomain = "${domain}"\nselector = "${selector}"\nfile = "${selector}.pem"\n`;
  return {
    files: { "r.pem": pem(rsa), "e.pem": pem(ed25519) },
    records: {
      [`r._domainkey.${domain}`]: `v=DKIM1; k=rsa; p=${der(rsa).toString("base64")}`,
      // The key without its frame (RFC 8463 4).
      [`e._domainkey.${domain}`]: `v=DKIM1; k=ed25519; p=${der(ed25519).subarray(-32).toString("base64")}`,
    },
    toml: table("r") + table("e"),
  };
}
