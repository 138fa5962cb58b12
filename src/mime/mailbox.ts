/**
 * Mailboxes: which spellings of an address name the same mailbox, and which spellings a mail server takes as they are.
 *
 * A client chooses its spelling: `<@relay.test:jane@example.org>`, `<"jane"@example.org>` and `<jane@EXAMPLE.ORG.>` are
 * all delivered to jane@example.org. Addresses are read as both mail servers read them (RFC 5321 4.1.2, and the older
 * forms of RFC 822 that they still take), and written in the form of RFC 5321 alone.
 */
import { isIPv4, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";

interface Parsed {
  /** Without quotes and backslashes. */
  readonly local: string;
  /** As it was written; null if there is none. */
  readonly domain: string | null;
  /** The text behind a source route, as it was written; null without a route. */
  readonly behindRoute: string | null;
}

/** A character of an address; `isQuoted` if quotes or a backslash made it ordinary. */
interface Character {
  readonly text: string;
  readonly isQuoted: boolean;
}

/**
 * Reads an address in any spelling: comments and white space outside of quotes are dropped, as are a source route, the
 * name of a group, and text outside of the innermost angle brackets.
 */
function parse(address: string): Parsed {
  const { characters, behindRoute } = significant(address);
  const isPlain = (character: Character, text: string): boolean => !character.isQuoted && character.text === text;
  // A group: `name: jane@example.org;`.
  const colon = characters.findIndex((character) => isPlain(character, ":"));
  const last = characters.at(-1);
  const kept = colon !== -1 && last !== undefined && isPlain(last, ";") ? characters.slice(colon + 1, -1) : characters;
  const at = kept.findLastIndex((character) => isPlain(character, "@"));
  const textOf = (part: readonly Character[]): string => part.map(({ text }) => text).join("");
  return at === -1
    ? { local: textOf(kept), domain: null, behindRoute }
    : { local: textOf(kept.slice(0, at)), domain: textOf(kept.slice(at + 1)), behindRoute };
}

function significant(address: string): { characters: Character[]; behindRoute: string | null } {
  let characters: Character[] = [];
  let behindRoute: string | null = null;
  let isInQuotes = false;
  let isInLiteral = false;
  let comments = 0;
  for (let index = 0; index < address.length; index++) {
    const text = address[index]!;
    if (text === "\\" && index + 1 < address.length) {
      index += 1;
      if (comments === 0) characters.push({ text: address[index]!, isQuoted: true });
    } else if (comments > 0) {
      comments += text === "(" ? 1 : text === ")" ? -1 : 0;
    } else if (text === '"') {
      isInQuotes = !isInQuotes;
    } else if (isInQuotes) {
      // Postfix makes a tab a space.
      characters.push({ text: text === "\t" ? " " : text, isQuoted: true });
    } else if (isInLiteral) {
      isInLiteral = text !== "]";
      characters.push({ text, isQuoted: true });
    } else if (text === "(") {
      comments = 1;
    } else if (text === "<") {
      characters = [];
    } else if (text === ">") {
      break;
    } else if (text === ":" && characters[0]?.text === "@" && !characters[0].isQuoted) {
      behindRoute ??= address.slice(index + 1);
      characters = [];
    } else if (text !== " " && text !== "\t") {
      isInLiteral = text === "[" && characters.at(-1)?.text === "@";
      characters.push({ text, isQuoted: isInLiteral });
    }
  }
  return { characters, behindRoute };
}

/** Without these characters at the end. A pattern would look at each of many characters from each of them. */
function withoutEnd(text: string, character: string): string {
  let end = text.length;
  while (text[end - 1] === character) end -= 1;
  return text.slice(0, end);
}

/** The domain as it is compared: lower case, A-labels, no dot at the end. */
function comparedDomain(domain: string): string {
  // Sendmail takes a name in the brackets of an address literal.
  const isName = /^\[[^:\]]+\]$/.test(domain) && /[a-z]/i.test(domain);
  const name = withoutEnd(isName ? domain.slice(1, -1) : domain, ".").toLowerCase();
  // An empty result means that it is no domain name.
  return /[^\0-\x7f]/.test(name) ? domainToASCII(name) || name : name;
}

const ATOM = /^[\w!#$%&'*+\-/=?^`{|}~\u0080-\uffff]+(?:\.[\w!#$%&'*+\-/=?^`{|}~\u0080-\uffff]+)*$/;

/** A local part with only the quotes that it needs. */
function quotedLocal(local: string): string {
  return ATOM.test(local) ? local : `"${local.replace(/["\\]/g, "\\$&")}"`;
}

/** An address as mail servers compare it. */
export interface MailboxParts {
  /** Without quotes and backslashes. Compared as it is (RFC 5321 2.4). */
  readonly local: string;
  /** In lower case and A-labels, without a dot at its end; "" if there is none. */
  readonly domain: string;
}

/** @returns null for the domain of an address without an `@` */
function compared(address: string): { readonly local: string; readonly domain: string | null } {
  const { domain, local: read } = parse(address);
  if (domain !== null && domain !== "") return { local: read, domain: comparedDomain(domain) };
  // Postfix drops an `@` without a domain, and both mail servers read the quoted text again: `"jane@example.org"`.
  const local = withoutEnd(read, "@");
  const at = local.lastIndexOf("@");
  if (at > 0) return { local: local.slice(0, at), domain: comparedDomain(local.slice(at + 1)) };
  // Without a domain both mail servers know the forms that older networks had: `example.org!jane`, `jane%example.org`.
  const bang = local.indexOf("!");
  if (bang > 0) return { local: local.slice(bang + 1), domain: comparedDomain(local.slice(0, bang)) };
  const percent = local.lastIndexOf("%");
  if (percent > 0) return { local: local.slice(0, percent), domain: comparedDomain(local.slice(percent + 1)) };
  return { local, domain: null };
}

/** The parts of an address, in whatever spelling. */
export function partsOf(address: string): MailboxParts {
  const { local, domain } = compared(address);
  return { local, domain: domain ?? "" };
}

/**
 * The same text for all spellings of a mailbox: `local@domain` without brackets, source route and needless quotes, the
 * domain in lower case and A-labels.
 */
export function mailboxKey(address: string): string {
  const { local, domain } = compared(address);
  return domain === null ? quotedLocal(local) : `${quotedLocal(local)}@${domain}`;
}

/**
 * An address as Postfix reads it: without its source route and with the quotes that it needs; the domain as written.
 */
export function readMailbox(address: string): { readonly mailbox: string; readonly isRouted: boolean } {
  const { local, domain, behindRoute } = parse(address);
  const mailbox = domain === null ? quotedLocal(local) : `${quotedLocal(local)}@${domain}`;
  return { mailbox, isRouted: behindRoute !== null };
}

/**
 * The spellings with which a recipient has to be deleted, so that the mail server finds it. Sendmail compares with the
 * address as RCPT carried it. So does Postfix, but it drops some parts of that address and not of the address to
 * delete: a source route, the name of a group, a second pair of brackets. Deleting a recipient that is not there does
 * nothing.
 * @param raw as RCPT carried it
 */
export function deletionsOf(raw: string): readonly string[] {
  if (!/^(?:\(.*\))?@|[<>;]/s.test(withoutBrackets(raw).trim())) return [raw];
  const { behindRoute } = parse(raw);
  const spellings = [raw, `<${readMailbox(raw).mailbox}>`];
  if (behindRoute !== null) spellings.push(`<${behindRoute.replace(/>.*$/s, "")}>`);
  return spellings;
}

/** Sendmail loses a recipient whose address is longer, in bytes and without brackets. */
const MAX_ADDRESS_BYTES = 253;
const MAX_LABEL_BYTES = 63;

// oxlint-disable-next-line no-control-regex
const QUOTED = /^"(?:[^"\\\0-\x1f\x7f-\x9f]|\\[ -~])*"$/;

/**
 * An address that both mail servers take as it is written: a single mailbox of RFC 5321 with its domain, in ASCII or
 * UTF-8. Brackets, a source route and a dot at the end of the domain are dropped, as the mail servers do.
 * @returns the address without brackets, or the reason why it is refused
 */
export function writtenMailbox(address: string): { readonly mailbox: string } | { readonly problem: string } {
  const bare = withoutBrackets(address).replace(/^@[^:"]*:/, "");
  const at = bare.lastIndexOf("@");
  if (at === -1) return { problem: "it has no domain" };
  const local = bare.slice(0, at);
  const domain = bare.slice(at + 1).replace(/\.$/, "");
  const mailbox = `${local}@${domain}`;
  if (!isText(mailbox)) return { problem: "it has characters that are no text" };
  if (!QUOTED.test(local) && !isDotted(local)) return { problem: "its local part needs quotes" };
  if (!isDomain(domain)) return { problem: "its domain is none" };
  if (Buffer.byteLength(mailbox) > MAX_ADDRESS_BYTES)
    return { problem: `it is longer than ${MAX_ADDRESS_BYTES} bytes` };
  return { mailbox };
}

/** No control characters, C1 and lone surrogates among them. */
function isText(text: string): boolean {
  return !/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(text);
}

/** Atoms and dots; empty atoms are in use at some providers, and both mail servers deliver them. */
function isDotted(local: string): boolean {
  return /^[\w!#$%&'*+\-/=?^`{|}~.\u00a0-\uffff]+$/.test(local);
}

function isDomain(domain: string): boolean {
  const literal = /^\[(?:IPv6:)?(.*)\]$/i.exec(domain)?.[1];
  if (literal !== undefined) return /^\[ipv6:/i.test(domain) ? isIPv6(literal) : isIPv4(literal);
  const labels = domain.split(".");
  const areLabels = labels.every(
    (label) =>
      /^[\w\u00a0-\uffff](?:[\w\-\u00a0-\uffff]*[\w\u00a0-\uffff])?$/.test(label) &&
      Buffer.byteLength(label) <= MAX_LABEL_BYTES,
  );
  // Postfix takes a domain that ends in a number for an address without its brackets.
  return areLabels && !/^\d+$/.test(labels.at(-1)!);
}

/** One pair of angle brackets removed, if there is one. */
export function withoutBrackets(address: string): string {
  return address.startsWith("<") && address.endsWith(">") ? address.slice(1, -1) : address;
}
