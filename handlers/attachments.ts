// Refuses, quarantines or reports messages by their attachments: docs/handlers/attachments.md.
import { defineFilter, reject } from "pmilter";
import { boolean, type InferOutput, picklist, pipe, size, table, transform } from "pmilter/options";
import { type Entry, entriesOf, GZIP, HEAD_BYTES, TAR, typeOf, UNLISTED, ZIP } from "./lib/archives.ts";
import { isReordered, matches, plainName, printable } from "./lib/file-names.ts";
import { leavesOf, MIME_LIMITS, type Mime, type Part, readMessage, readMime } from "./lib/mime.ts";
import { count, headerName, lines, option, unset } from "./lib/options.ts";
import { decodeLeniently } from "./lib/transfer-encoding.ts";

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

const patterns = () =>
  pipe(
    lines(),
    transform((given) => given.map((pattern) => pattern.toLowerCase())),
  );

export const options = table({
  action: option(
    picklist(["reject", "quarantine", "report"]),
    "reject",
    '`"reject"`; `"quarantine"`: the mail server quarantines the message; `"report"`: the filter only adds the header',
  ),
  names: unset(patterns(), "see below", "patterns of file names that are not accepted; `*` and `?`, in any case"),
  types: unset(
    patterns(),
    "see below",
    "patterns of types that are not accepted; the type is detected by the first bytes of the content",
  ),
  allow_reordered_names: option(
    boolean(),
    false,
    "accept names with marks that change the displayed order: `invoice`, U+202E, `fdp.exe`",
  ),
  allow_encrypted: option(boolean(), true, "accept encrypted files in zip archives"),
  allow_unlisted: option(
    boolean(),
    true,
    "accept archives that are broken, or that the filter cannot unpack: 7z, rar, bzip2, xz, zstd, cab, `winmail.dat`",
  ),
  max_size: unset(size(), "none", "maximum bytes of an attachment, decoded"),
  max_count: unset(count(0), "none", "maximum attachments of a message"),
  max_depth: option(count(0), 3, "maximum levels of archives in archives and of forwarded messages"),
  max_entries: option(count(1), 1000, "maximum files in a message, including files in archives"),
  max_unpacked: option(
    size(),
    "50MB",
    "maximum bytes that archives in archives, and archives compressed as a whole, may unpack to, all together",
  ),
  header: option(headerName(), "X-Attachment-Report", "the header that lists the findings"),
});

type Options = InferOutput<typeof options>;

/** A file that is not accepted, and why. */
interface Finding {
  /** Where it lies: `mail.eml > all.zip > setup.exe`. */
  readonly file: string;
  readonly why: string;
}

/** The search of a message. It stops at the limits, which are findings too. */
class Search {
  readonly findings: Finding[] = [];
  readonly #options: Options;
  readonly #names: readonly string[];
  readonly #types: readonly string[];
  #attachments = 0;
  #files = 0;
  #unpacked = 0;

  constructor(options: Options) {
    this.#options = options;
    this.#names = options.names ?? RUNNABLE_NAMES;
    this.#types = options.types ?? RUNNABLE_TYPES;
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
    const { max_count = Infinity, max_depth, max_size = Infinity } = this.#options;
    const content = decodeLeniently(raw, part.encoding);
    const file = below(path, part.names[0] ?? part.type);
    this.#attachments += 1;
    if (this.#attachments === max_count + 1) this.#find(file, `there are more than ${max_count} attachments`);
    if (content.length > max_size) this.#find(file, `it has ${content.length} bytes, more than ${max_size}`);
    if (part.type === "message/rfc822" || part.type === "message/global") {
      this.#judgeNames(part.names, file);
      if (depth >= max_depth) this.#find(file, `it lies deeper than ${max_depth} levels`);
      else await this.message(readMessage(content, MIME_LIMITS), content, file, depth + 1);
    } else {
      await this.#file(part.names, file, depth, async (most) => content.subarray(0, most));
    }
  }

  /** @param path where the file lies, with its name */
  async #file(names: readonly string[], path: string, depth: number, read: Entry["read"]): Promise<void> {
    this.#files += 1;
    this.#judgeNames(names, path);
    const type = await typeOf((await read(HEAD_BYTES)) ?? new Uint8Array());
    const pattern = this.#types.find((pattern) => matches(type, pattern));
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
    const { allow_encrypted, max_depth, max_unpacked } = this.#options;
    if (depth >= max_depth) return this.#find(path, `it lies deeper than ${max_depth} levels`);
    // A file of the message itself is not unpacked, and does not count.
    const left = depth === 0 ? Infinity : max_unpacked - this.#unpacked;
    const bytes = await read(left + 1);
    if (bytes !== null && bytes.length > left) return this.#find(path, `it unpacks to more than ${max_unpacked} bytes`);
    if (depth > 0) this.#unpacked += bytes?.length ?? 0;
    const entries = bytes === null ? null : entriesOf(type, bytes, names);
    if (entries === null) return this.#unlisted(path, "it is a broken archive");
    for (const entry of entries) {
      if (this.#isFull(path)) return;
      const inside = below(path, entry.names[0] ?? "");
      if (!entry.isEncrypted) await this.#file(entry.names, inside, depth + 1, (most) => entry.read(most));
      else {
        this.#files += 1;
        this.#judgeNames(entry.names, inside);
        if (!allow_encrypted) this.#find(inside, "it is encrypted");
      }
    }
  }

  #judgeNames(names: readonly string[], path: string): void {
    for (const name of names) {
      const plain = plainName(name);
      const pattern = this.#names.find((pattern) => matches(plain, pattern));
      if (pattern !== undefined) return this.#find(path, `its name matches ${pattern}`);
      if (isReordered(name) && !this.#options.allow_reordered_names) {
        return this.#find(path, "its name is shown in another order than it has");
      }
    }
  }

  #unlisted(path: string, why: string): void {
    if (!this.#options.allow_unlisted) this.#find(path, why);
  }

  #isFull(path: string): boolean {
    if (this.#files < this.#options.max_entries) return false;
    if (this.#files++ === this.#options.max_entries)
      this.#find(path, `there are more than ${this.#options.max_entries} files`);
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
  options,
  // It judges: what it cannot look into does not pass.
  collectBody: { over: "reject" },

  async eom({ log, message, options }) {
    const { action, header } = options;
    const search = new Search(options);
    const body = message.body();
    await search.message(readMime(message.headers, body), body, "", 0);
    // A sender must not write our report.
    if (message.headers.get(header) !== undefined) message.deleteHeader(header);
    const [first] = search.findings;
    if (first === undefined) return;

    const told = search.findings.slice(0, TOLD).map(({ file, why }) => `"${file}": ${why}`);
    if (search.findings.length > TOLD) told.push(`${search.findings.length - TOLD} more`);
    log.warn(`${action}: ${told.join("; ")}`);
    if (action === "reject") return reject(`550 5.7.1 Attachment "${first.file}" is not accepted: ${first.why}`);
    message.addHeader(header, told.join(";\n "));
    if (action === "quarantine") message.quarantine(`attachments: ${told[0]}`);
  },
});
