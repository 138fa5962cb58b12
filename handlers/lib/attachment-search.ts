/** The search of a message for files that are not accepted: docs/handlers/attachments.md says what it looks at. */
import { type Mime, type Part, readMessage } from "pmilter";
import type { Entry, Fault } from "./archives/archive.ts";
import { filesInText } from "./archives/in-text.ts";
import {
  entriesOf,
  HEAD_BYTES,
  isArchive,
  isArchiveName,
  isReadArchive,
  namesInside,
  typeOf,
  typeOfWhole,
  UNLISTED,
} from "./archives/kinds.ts";
import { hasPgpMessage } from "./archives/sealed.ts";
import { isReordered, matches, NamePatterns, plainName, printable } from "./file-names.ts";
import { isMessageName, startsAsMessage, unlistedPart, withoutFromLine } from "./message-kinds.ts";

/** The options of the filter that say what is accepted. */
export interface Rules {
  readonly names: readonly string[];
  readonly types: readonly string[];
  readonly allow_reordered_names: boolean;
  readonly allow_encrypted: boolean;
  readonly allow_unlisted: boolean;
  readonly allow_doubtful: boolean;
  readonly allow_flaws: boolean;
  readonly max_size: number;
  readonly max_count: number;
  readonly max_depth: number;
  readonly max_entries: number;
  readonly max_unpacked: number;
}

/** A file that is not accepted, and why. */
export interface Finding {
  /** Where it lies: `mail.eml > all.zip > setup.exe`; `""` for the message itself. */
  readonly file: string;
  readonly why: string;
  /** The part of the received message that it lies in; null for the message itself. */
  readonly part: Part | null;
}

type Read = Entry["read"];

/** Flaws that are told as one, whatever the options: there is more than was looked at. */
const LIMITS = new Set(["too many parts", "parts that are nested too deep"]);

/** It stops at the limits, which are findings, too. */
export class Search {
  readonly findings: Finding[] = [];
  readonly #rules: Rules;
  readonly #patterns: NamePatterns;
  /** Of the received message. */
  #part: Part | null = null;
  #attachments = 0;
  #files = 0;
  #unpacked = 0;
  /** Bytes of files in archives that were seen and not unpacked to stay. */
  #seen = 0;

  constructor(rules: Rules) {
    this.#rules = rules;
    this.#patterns = new NamePatterns(rules.names);
  }

  /** Looks through the received message. */
  async message(mime: Mime): Promise<void> {
    for (const part of mime.parts) {
      if (this.#isFull("")) break;
      this.#part = part;
      await this.#leaf(part, "", 0);
    }
    this.#part = null;
    this.#flaws(mime, "", true);
  }

  #flaws({ flaws }: Mime, path: string, isMessage: boolean): void {
    if (flaws.some((flaw) => LIMITS.has(flaw))) this.#find(path, "it has more parts than are looked at");
    if (this.#rules.allow_flaws || !isMessage) return;
    for (const flaw of flaws) if (!LIMITS.has(flaw)) this.#find(path, `mail programs may read it otherwise: ${flaw}`);
  }

  async #leaf(part: Part, path: string, depth: number): Promise<void> {
    if (isAttachment(part)) return await this.#attachment(part, path, depth);
    const content = part.bytes();
    // What is called text can be saved as the file that it is.
    if (!isBinary(content)) await this.#inText(content, path, depth);
    else await this.#file([], below(path, part.type), depth, async (most) => content.subarray(0, most));
  }

  async #attachment(part: Part, path: string, depth: number): Promise<void> {
    const { max_count, max_size } = this.#rules;
    const content = part.bytes();
    const file = below(path, part.names[0] ?? part.type);
    this.#attachments += 1;
    if (this.#attachments === max_count + 1) this.#find(file, `there are more than ${max_count} attachments`);
    if (content.length > max_size) this.#find(file, `it has ${content.length} bytes, more than ${max_size}`);
    const unlisted = unlistedPart(part);
    if (unlisted !== null) this.#unlisted(file, unlisted);
    if (part.type === "message/rfc822" || part.type === "message/global" || part.type === "message/news") {
      this.#names(part.names, file);
      await this.#inMessage(content, file, depth, true);
    } else await this.#file(part.names, file, depth, async (most) => content.subarray(0, most));
  }

  /** @param isCalled its type or its name says that it is a message: others may be text that quotes one, and have no flaws */
  async #inMessage(content: Uint8Array, path: string, depth: number, isCalled: boolean): Promise<void> {
    if (depth >= this.#rules.max_depth) return this.#find(path, `it lies deeper than ${this.#rules.max_depth} levels`);
    const mime = readMessage(withoutFromLine(content));
    for (const part of mime.parts) {
      if (this.#isFull(path)) return;
      await this.#leaf(part, path, depth + 1);
    }
    this.#flaws(mime, path, isCalled);
  }

  /** @param path where the file lies, with its name */
  async #file(names: readonly string[], path: string, depth: number, read: Read): Promise<void> {
    this.#files += 1;
    this.#names(names, path);
    const head = await read(HEAD_BYTES);
    if (head === null) return this.#unlisted(path, "it cannot be unpacked");
    const type = await typeOf(head);
    const pattern = this.#rules.types.find((pattern) => matches(type, pattern));
    if (type !== "" && pattern !== undefined) this.#find(path, `it is of the type ${type}`);
    const kind = UNLISTED.get(type);
    if (kind !== undefined) {
      this.#names(namesInside(type, names), path);
      this.#unlisted(path, `${kind} are not looked into`);
    }
    const isCalledMessage = names.some(isMessageName);
    const isMessage = isCalledMessage || startsAsMessage(head);
    // What stands in an archive counts as unpacked only if it may hold files itself.
    const mayHold = depth === 0 || isMessage || isReadArchive(type) || names.some(isArchiveName);
    if (!mayHold && !(await this.#holdsFiles(type, path, read))) return;
    const whole = await this.#whole(path, depth, read);
    if (whole === null) return;
    const full = typeOfWhole(type, whole);
    if (full !== type) this.#unlisted(path, `${UNLISTED.get(full)} are not looked into`);
    if (isArchive(type, whole)) await this.#archive(type, whole, names, path, depth);
    else if (isMessage) await this.#inMessage(whole, path, depth, isCalledMessage);
    else await this.#inText(whole, path, depth);
  }

  /** Whether a file in an archive holds files although it does not begin so: programs find a zip archive by its end. */
  async #holdsFiles(type: string, path: string, read: Read): Promise<boolean> {
    const left = this.#rules.max_unpacked - this.#seen;
    const bytes = left <= 0 ? null : await read(left + 1);
    this.#seen += bytes?.length ?? 0;
    if (left > 0 && (bytes === null || bytes.length <= left)) {
      return bytes !== null && (isArchive(type, bytes) || typeOfWhole(type, bytes) !== type);
    }
    this.#unlisted(path, "it is too large to be looked into");
    return false;
  }

  /** All of a file, null if it is more than may be unpacked. */
  async #whole(path: string, depth: number, read: Read): Promise<Uint8Array | null> {
    const { max_unpacked } = this.#rules;
    // A file of the message itself is not unpacked, and does not count.
    const left = depth === 0 ? Infinity : max_unpacked - this.#unpacked;
    const bytes = (await read(left + 1)) ?? new Uint8Array();
    if (bytes.length > left) {
      this.#find(path, `it unpacks to more than ${max_unpacked} bytes`);
      this.#unpacked = max_unpacked;
      return null;
    }
    if (depth > 0) this.#unpacked += bytes.length;
    return bytes;
  }

  async #archive(
    type: string,
    bytes: Uint8Array,
    names: readonly string[],
    path: string,
    depth: number,
  ): Promise<void> {
    const { max_depth } = this.#rules;
    if (depth >= max_depth) return this.#find(path, `it lies deeper than ${max_depth} levels`);
    const faults = new Map<string, Fault>();
    for await (const entry of entriesOf(type, bytes, names, (fault, why) => faults.set(why, fault))) {
      if (this.#isFull(path)) return;
      const inside = below(path, entry.names[0] ?? "");
      if (!entry.isEncrypted) await this.#file(entry.names, inside, depth + 1, (most) => entry.read(most));
      else {
        this.#files += 1;
        this.#names(entry.names, inside);
        if (!this.#rules.allow_encrypted) this.#find(inside, "it is encrypted");
      }
    }
    for (const [why, fault] of faults) {
      if (fault === "unlisted") this.#unlisted(path, why);
      else if (fault === "broken") this.#unlisted(path, `it is a broken archive: ${why}`);
      else if (!this.#rules.allow_doubtful) this.#find(path, `it is a broken archive: ${why}`);
    }
  }

  /** The files that are encoded within text. */
  async #inText(text: Uint8Array, path: string, depth: number): Promise<void> {
    if (hasPgpMessage(text)) this.#unlisted(path, `${UNLISTED.get("application/pgp-encrypted")} are not looked into`);
    for (const entry of filesInText(text)) {
      if (this.#isFull(path)) return;
      const inside = below(path, entry.names[0] ?? "");
      // It counts as unpacked, so that it cannot hold itself without end.
      if (depth >= this.#rules.max_depth)
        return this.#find(inside, `it lies deeper than ${this.#rules.max_depth} levels`);
      await this.#file(entry.names, inside, depth + 1, (most) => entry.read(most));
    }
  }

  #names(names: readonly string[], path: string): void {
    for (const name of names) {
      const plain = plainName(name);
      const pattern = this.#patterns.find(plain);
      if (pattern !== undefined) return this.#find(path, `its name matches ${pattern}`);
      if (isReordered(name) && !this.#rules.allow_reordered_names) {
        return this.#find(path, "its name is shown in another order than it has");
      }
    }
  }

  #unlisted(path: string, why: string): void {
    const last = this.findings.at(-1);
    // Its type and its first bytes may say the same.
    if (!this.#rules.allow_unlisted && (last?.file !== path || last.why !== why)) this.#find(path, why);
  }

  #isFull(path: string): boolean {
    const { max_entries } = this.#rules;
    if (this.#files < max_entries) return false;
    if (this.#files++ === max_entries) this.#find(path, `there are more than ${max_entries} files`);
    return true;
  }

  #find(file: string, why: string): void {
    this.findings.push({ file, why, part: this.#part });
  }
}

/** Everything but text that is shown as the message. */
function isAttachment({ disposition, names, type }: Part): boolean {
  const isText = type === "text/plain" || type === "text/html";
  return !isText || (disposition !== "" && disposition !== "inline") || names.length > 0;
}

/** Whether bytes have control characters at their beginning that text does not have. */
function isBinary(bytes: Uint8Array): boolean {
  return bytes.subarray(0, 1024).some((byte) => byte < 0x20 && (byte < 0x08 || (byte > 0x0d && byte !== 0x1b)));
}

function below(path: string, name: string): string {
  const shown = printable(name);
  return path === "" ? shown : `${path} > ${shown}`;
}
