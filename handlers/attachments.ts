// Refuses, quarantines or reports messages by their attachments: docs/handlers/attachments.md.
import { defineFilter, reject } from "pmilter";
import { type Entry, entriesOf, GZIP, HEAD_BYTES, TAR, typeOf, UNLISTED, ZIP } from "./lib/archives.ts";
import { isReordered, matches, plainName, printable } from "./lib/file-names.ts";
import { type Options, Prepared } from "./lib/header-options.ts";
import { leavesOf, MIME_LIMITS, type Mime, type Part, readMessage, readMime } from "./lib/mime.ts";
import { decodeLeniently } from "./lib/transfer-encoding.ts";

const ACTIONS = ["reject", "quarantine", "report"] as const;

interface Policy {
  readonly action: (typeof ACTIONS)[number];
  readonly names: readonly string[];
  readonly types: readonly string[];
  readonly allowsReorderedNames: boolean;
  readonly allowsEncrypted: boolean;
  readonly allowsUnlisted: boolean;
  readonly maxSize: number;
  readonly maxCount: number;
  readonly maxDepth: number;
  readonly maxEntries: number;
  readonly maxUnpacked: number;
  readonly header: string;
}

/** Files that Windows runs when they are opened, and disk images, which hide the origin of the files in them. */
const RUNNABLE_NAMES = (
  "ade adp appx appxbundle bat chm cmd com cpl exe hta img iso jar js jse lnk mde msc msi msix msp mst pif ps1 reg " +
  "scr sct vb vbe vbs vhd vhdx wsc wsf wsh xll"
)
  .split(" ")
  .map((ending) => `*.${ending}`);

const RUNNABLE_TYPES = [
  "application/x-msdownload",
  "application/x-elf",
  "application/x-mach-binary",
  "application/java-vm",
  "application/x.ms.shortcut",
];

const MIB = 1024 * 1024;

const policies = new Prepared((options: Options): Policy => ({
  action: options.choice("action", ACTIONS, "reject"),
  names: patterns(options, "names", RUNNABLE_NAMES),
  types: patterns(options, "types", RUNNABLE_TYPES),
  allowsReorderedNames: options.flag("allow_reordered_names", false),
  allowsEncrypted: options.flag("allow_encrypted", true),
  allowsUnlisted: options.flag("allow_unlisted", true),
  maxSize: whole(options, "max_size", 0, Infinity),
  maxCount: whole(options, "max_count", 0, Infinity),
  maxDepth: whole(options, "max_depth", 0, 3),
  maxEntries: whole(options, "max_entries", 1, 1000),
  maxUnpacked: whole(options, "max_unpacked", 0, 50 * MIB),
  header: options.has("header") ? options.headerName("header") : "X-Attachment-Report",
}));

function patterns(options: Options, key: string, fallback: readonly string[]): readonly string[] {
  return options.has(key) ? options.list(key).map((pattern) => pattern.toLowerCase()) : fallback;
}

function whole(options: Options, key: string, least: number, fallback: number): number {
  const value = options.number(key, least) ?? fallback;
  if (value !== Infinity && !Number.isSafeInteger(value)) options.fail(key, "a whole number");
  return value;
}

/** A file that is not accepted, and why. */
interface Finding {
  /** Where it lies: `mail.eml > all.zip > setup.exe`. */
  readonly file: string;
  readonly why: string;
}

/** The search of a message. It stops at the limits, which are findings too. */
class Search {
  readonly findings: Finding[] = [];
  readonly #policy: Policy;
  #attachments = 0;
  #files = 0;
  #unpacked = 0;

  constructor(policy: Policy) {
    this.#policy = policy;
  }

  /** @param path the path of the file that the message is, `""` for the received message */
  async message({ root, isCut }: Mime, body: Uint8Array, path: string, depth: number): Promise<void> {
    if (isCut) this.#find(path, "it has more parts than are looked at");
    for (const part of leavesOf(root)) {
      if (this.#isFull(path)) return;
      if (isAttachment(part)) await this.#attachment(part, body.subarray(part.start, part.end), path, depth);
    }
  }

  async #attachment(part: Part, raw: Uint8Array, path: string, depth: number): Promise<void> {
    const { maxCount, maxSize, maxDepth } = this.#policy;
    const content = decodeLeniently(raw, part.encoding);
    const file = below(path, part.names[0] ?? part.type);
    this.#attachments += 1;
    if (this.#attachments === maxCount + 1) this.#find(file, `there are more than ${maxCount} attachments`);
    if (content.length > maxSize) this.#find(file, `it has ${content.length} bytes, more than ${maxSize}`);
    if (part.type === "message/rfc822" || part.type === "message/global") {
      this.#names(part.names, file);
      if (depth >= maxDepth) this.#find(file, `it lies deeper than ${maxDepth} levels`);
      else await this.message(readMessage(content, MIME_LIMITS), content, file, depth + 1);
    } else {
      await this.#file(part.names, file, depth, async (most) => content.subarray(0, most));
    }
  }

  /** @param path where the file lies, with its name */
  async #file(names: readonly string[], path: string, depth: number, read: Entry["read"]): Promise<void> {
    this.#files += 1;
    this.#names(names, path);
    const type = await typeOf((await read(HEAD_BYTES)) ?? new Uint8Array());
    const pattern = this.#policy.types.find((pattern) => matches(type, pattern));
    if (type !== "" && pattern !== undefined) this.#find(path, `it is of the type ${type}`);
    const kind = UNLISTED.get(type);
    if (kind !== undefined) this.#unlisted(path, `${kind} archives are not looked into`);
    if (type === ZIP || type === GZIP || type === TAR) await this.#archive(type, names, path, depth, read);
  }

  async #archive(
    type: string,
    names: readonly string[],
    path: string,
    depth: number,
    read: Entry["read"],
  ): Promise<void> {
    const { maxDepth, maxUnpacked, allowsEncrypted } = this.#policy;
    if (depth >= maxDepth) return this.#find(path, `it lies deeper than ${maxDepth} levels`);
    // A file of the message itself is not unpacked, and does not count.
    const left = depth === 0 ? Infinity : maxUnpacked - this.#unpacked;
    const bytes = await read(left + 1);
    if (bytes !== null && bytes.length > left) return this.#find(path, `it unpacks to more than ${maxUnpacked} bytes`);
    if (depth > 0) this.#unpacked += bytes?.length ?? 0;
    const entries = bytes === null ? null : entriesOf(type, bytes, names);
    if (entries === null) return this.#unlisted(path, "it is a broken archive");
    for (const entry of entries) {
      if (this.#isFull(path)) return;
      const inside = below(path, entry.names[0] ?? "");
      if (!entry.isEncrypted) await this.#file(entry.names, inside, depth + 1, (most) => entry.read(most));
      else {
        this.#files += 1;
        this.#names(entry.names, inside);
        if (!allowsEncrypted) this.#find(inside, "it is encrypted");
      }
    }
  }

  #names(names: readonly string[], path: string): void {
    for (const name of names) {
      const plain = plainName(name);
      const pattern = this.#policy.names.find((pattern) => matches(plain, pattern));
      if (pattern !== undefined) return this.#find(path, `its name matches ${pattern}`);
      if (isReordered(name) && !this.#policy.allowsReorderedNames) {
        return this.#find(path, "its name is shown in another order than it has");
      }
    }
  }

  #unlisted(path: string, why: string): void {
    if (!this.#policy.allowsUnlisted) this.#find(path, why);
  }

  #isFull(path: string): boolean {
    if (this.#files < this.#policy.maxEntries) return false;
    if (this.#files++ === this.#policy.maxEntries)
      this.#find(path, `there are more than ${this.#policy.maxEntries} files`);
    return true;
  }

  #find(file: string, why: string): void {
    this.findings.push({ file, why });
  }
}

/** Everything but text that is shown as the message. */
function isAttachment(part: Part): boolean {
  const isText = part.type === "text/plain" || part.type === "text/html";
  return !isText || part.disposition === "attachment" || part.names.length > 0;
}

function below(path: string, name: string): string {
  const shown = printable(name);
  return path === "" ? shown : `${path} > ${shown}`;
}

/** So many findings are told. */
const TOLD = 5;

export default defineFilter({
  name: "attachments",
  // It judges: what it cannot look into does not pass.
  collectBody: { over: "reject" },

  start(options, { folder }) {
    policies.start(options, folder);
  },

  async eom({ message, options, queueId }) {
    const policy = policies.of(options);
    const search = new Search(policy);
    const body = message.body();
    await search.message(readMime(message.headers, body), body, "", 0);
    // A sender must not write our report.
    if (message.headers.get(policy.header) !== undefined) message.deleteHeader(policy.header);
    const [first] = search.findings;
    if (first === undefined) return;

    const told = search.findings.slice(0, TOLD).map(({ file, why }) => `"${file}": ${why}`);
    if (search.findings.length > TOLD) told.push(`${search.findings.length - TOLD} more`);
    console.log(`attachments: queue_id=${queueId} ${policy.action}: ${told.join("; ")}`);
    if (policy.action === "reject") return reject(`550 5.7.1 Attachment "${first.file}" is not accepted: ${first.why}`);
    message.addHeader(policy.header, told.join(";\n "));
    if (policy.action === "quarantine") message.quarantine(`attachments: ${told[0]}`);
  },
});
