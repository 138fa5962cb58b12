/**
 * Host names, domains and addresses in the form in which lists are searched: case, quotes, trailing dots and the two
 * spellings of international names must not hide an entry.
 */
import { domainToASCII } from "node:url";
import type { Address } from "pmilter";

/**
 * DNS names have at most 255 characters, addresses a few more. A longer name is cut at the front, since suffixes are
 * compared with its end.
 */
const MAX_LENGTH = 600;

/** In lower case, as DNS has it (`xn--…`), without the dot at the end. */
export function normalDomain(domain: string): string {
  const name = domain.slice(-MAX_LENGTH).toLowerCase().replace(/\.$/, "");
  // oxlint-disable-next-line no-control-regex
  if (/^[\u0000-\u007f]*$/.test(name)) return name;
  return domainToASCII(name) || name;
}

/** Values by name (`mail.example.com`) and by suffix (`.example.com`: all names below, not `example.com` itself). */
export class NameTable<T> {
  readonly #values = new Map<string, T>();

  get size(): number {
    return this.#values.size;
  }

  /** Of several entries of a name, the first added counts. */
  add(name: string, value: T): void {
    if (!this.#values.has(name)) this.#values.set(name, value);
  }

  /** A lookup for each dot in the name, with any number of entries; the longest entry wins. */
  find(name: string): T | undefined {
    return this.#values.get(name) ?? this.#findBelow(name);
  }

  /** The same for an address, its local part in any case: the mailbox, then `@domain`, then the suffixes. The null sender is `<>`. */
  findMailbox({ local, domain }: Address): T | undefined {
    if (domain === "") return local === "" ? this.#values.get("<>") : undefined;
    return (
      this.#values.get(`${local.toLowerCase()}@${domain}`) ?? this.#values.get(`@${domain}`) ?? this.#findBelow(domain)
    );
  }

  #findBelow(domain: string): T | undefined {
    for (let dot = domain.indexOf(".", domain.length - MAX_LENGTH); dot !== -1; dot = domain.indexOf(".", dot + 1)) {
      const found = this.#values.get(domain.slice(dot));
      if (found !== undefined) return found;
    }
    return undefined;
  }
}

/** A host name or, with a dot in front, a suffix, as an entry; null if it is none. */
export function nameEntry(text: string): string | null {
  const name = normalDomain(text);
  return /^\.?[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?$/.test(name) && !name.includes("..") ? name : null;
}

/** Domains to look the domain of an address up in. */
export class DomainList {
  readonly #names = new NameTable<true>();

  /** @param entries `example.com` or `.example.com`; others are passed over */
  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      const name = nameEntry(entry);
      if (name !== null) this.#names.add(name, true);
    }
  }

  get isEmpty(): boolean {
    return this.#names.size === 0;
  }

  /** @param domain of an address, as `message` has it */
  has(domain: string): boolean {
    return domain !== "" && this.#names.find(domain) === true;
  }
}

/** Mailboxes and domains to look an address up in. */
export class MailboxList {
  readonly #names = new NameTable<true>();

  /**
   * @param entries `user@example.com`, `example.com`, `.example.com`
   * @throws RangeError for an entry that is none of them
   */
  constructor(entries: readonly string[]) {
    for (const entry of entries) {
      const at = entry.lastIndexOf("@");
      const name = nameEntry(at === -1 ? entry : entry.slice(at + 1));
      const local = at === -1 ? "" : entry.slice(0, at).toLowerCase();
      if (name === null || /\s/.test(local) || (at !== -1 && name.startsWith("."))) {
        throw new RangeError(`${entry} is neither user@example.com nor example.com or .example.com`);
      }
      this.#names.add(name.startsWith(".") ? name : `${local}@${name}`, true);
    }
  }

  has(address: Address): boolean {
    return this.#names.findMailbox(address) === true;
  }
}
