/** A configuration that uses every shipped filter, and mail for it. */
import { generateKeyPairSync } from "node:crypto";

export const USE_ALL = `[[filter]]
use = "access-lists"
[[filter.options.lists]]
match = "sender"
file = "senders.txt"

[[filter]]
use = "attachments"

[[filter]]
use = "banner"
[filter.options]
text = "A banner."

[[filter]]
use = "bcc-archive"
[filter.options]
address = "archive@example.com"

[[filter]]
use = "disclaimer"
[filter.options]
text = "A disclaimer."

[[filter]]
use = "dkim-sign"
[filter.options]
keys = [{ domain = "example.com", selector = "s1", file = "s1.pem" }]

[[filter]]
use = "dns-lists"
[[filter.options.lists]]
zone = "zen.invalid"

[[filter]]
use = "greylist"
[filter.options]
known_senders = ["a@example.com", "alice@example.test"]

[[filter]]
use = "header-policy"
[[filter.options.rules]]
rule = "date_missing"
action = "fix"

[[filter]]
use = "mail-auth"

[[filter]]
use = "rate-limit"
[[filter.options.rules]]
key = "user"
limit = 100
per = "1h"

[[filter]]
use = "subject-tag"
[filter.options]
tag = "[external]"
`;

/** The files that it names. */
export const USE_FILES = {
  "senders.txt": "spam@example.com reject 550 5.7.1 Not you\n",
  "s1.pem": generateKeyPairSync("ed25519").privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
};

/** A message with an attachment that is not accepted. */
export const EXECUTABLE = `Subject: x
MIME-Version: 1.0
Content-Type: application/octet-stream; name="setup.exe"
Content-Disposition: attachment; filename="setup.exe"

MZ
`;
