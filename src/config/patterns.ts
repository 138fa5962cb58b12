/**
 * The patterns of `[filter.when]`: names of hosts, clients and addresses, read into the form in which they are compared.
 * Pure.
 */
import { isIPv4, isIPv6 } from "node:net";
import { mailboxPattern, NULL_SENDER } from "../handler/conditions.ts";
import { partsOf } from "../mime/mailbox.ts";
import { AddressError, HOST_NAME, type Network, parseNetwork } from "./address.ts";

/** A name of HELO: a host name, `.example.com` for the names below it, or an address in brackets. */
export function parseHeloPattern(text: string): string {
  if (/^\[[^[\]\s]+\]$/.test(text)) return text.toLowerCase();
  return nameIn(text, "a name that clients give", `write "mail.example.com", or ".example.com" for the names below it`);
}

/** A network, or the name of a client. */
export function parseClientPattern(text: string): Network | string {
  const isAddress = isIPv4(text) || isIPv6(text) || /[/:[]/.test(text);
  if (isAddress) return parseNetwork(text);
  return nameIn(
    text,
    "a client",
    `write a network such as "192.0.2.0/24", a name such as "mail.example.com", or ".example.com" for the names below it`,
  );
}

/** A sender: a domain, the names below one, a mailbox, or `<>`. */
export function parseSenderPattern(text: string): string {
  return text === NULL_SENDER ? text : parseRecipientPattern(text, ', or "<>" for the null sender');
}

/** A recipient: a domain, the names below one, or a mailbox. */
export function parseRecipientPattern(text: string, more = ""): string {
  const forms = `write "example.com", ".example.com" for the domains below it, or "user@example.com"${more}`;
  const refuse = (reason: string) => new AddressError(text, "an address pattern", reason);
  if (text === NULL_SENDER) throw refuse("only senders may be null");
  if (/\s|[\p{Cc}]/u.test(text.replace(/"(?:[^"\\]|\\.)*"/g, ""))) throw refuse(forms);
  if (!text.includes("@")) return nameIn(text, "an address pattern", forms);
  const { domain, local } = partsOf(text);
  if (domain === "") throw refuse("the domain is missing");
  if (local === "") throw refuse(`write "${domain}" for all mailboxes of the domain`);
  if (!isName(domain) && !/^\[.*\]$/.test(domain)) throw refuse(forms);
  return mailboxPattern(text);
}

/** A host or domain name, perhaps with a dot in front, in lower case and A-labels. */
function nameIn(text: string, wanted: ConstructorParameters<typeof AddressError>[1], forms: string): string {
  const refuse = (reason: string) => new AddressError(text, wanted, reason);
  if (text.startsWith("*.")) throw refuse(`write "${text.slice(1)}" for the names below it`);
  const dot = text.startsWith(".") ? "." : "";
  const { domain } = partsOf(`x@${text.slice(dot.length)}`);
  if (/[\s@<>()"\\,;:]/.test(text) || !isName(domain)) throw refuse(forms);
  return dot + domain;
}

function isName(name: string): boolean {
  return HOST_NAME.test(name);
}
