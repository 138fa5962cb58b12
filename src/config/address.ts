/**
 * Addresses as text: where the server listens, and which networks may connect. Pure: no name is looked up, no path is
 * made absolute, nothing is opened.
 */
import { isIPv4, isIPv6 } from "node:net";
import { quote } from "./errors.ts";

type Family = 4 | 6;

export type ListenAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number; readonly family: Family }
  | { readonly kind: "fd"; readonly fd: number };

/** All addresses that share the first `prefix` bits with `address`, whose other bits are 0. */
export interface Network {
  readonly address: string;
  readonly prefix: number;
  readonly family: Family;
}

type Wanted =
  "a listen address" | "an address or network" | "a client" | "a name that clients give" | "an address pattern";

/**
 * The text is no address of the wanted kind; the message quotes it and says how to write the address that was probably
 * meant.
 */
export class AddressError extends Error {
  override readonly name = "AddressError";
  readonly code = "PMILTER_ERR_ADDRESS";

  constructor(text: string, wanted: Wanted, reason: string) {
    super(`${quote(text)} is not ${wanted}: ${reason}`);
  }
}

const FORMS = `write a path, "unix:PATH", "inet:HOST:PORT", "inet6:[HOST]:PORT" or "fd:3"`;
/** The last label of a host name is never a number: this keeps `127.1` and `300.1.1.1` from passing as names. */
export const HOST_NAME = /^(?!(?:.*\.)?\d+$)\w(?:[\w-]*\w)?(?:\.\w(?:[\w-]*\w)?)*$/;

/**
 * Reads a listen address in any of the forms that Postfix, Sendmail and libmilter users know:
 * a path, `unix:PATH`, `local:PATH`, `HOST:PORT`, `inet:HOST:PORT`, `inet:PORT@HOST`, `inet6:[HOST]:PORT`,
 * `inet6:PORT@HOST`, `fd:3`. Port 0 lets the kernel choose.
 *
 * Without a prefix, text is a path if it starts with `/` or `.`, has a slash before any colon, or ends in `.sock` or
 * `.socket` and has no colon: a mistyped host name must not quietly become a socket file.
 *
 * @throws AddressError
 */
export function parseAddress(text: string): ListenAddress {
  if (text === "") throw bad(text, `it is empty; ${FORMS}`);
  if (/^\s|\s$|\p{Cc}/u.test(text)) throw bad(text, "it has control characters, or spaces around it");
  const colon = text.indexOf(":");
  const rest = text.slice(colon + 1);
  switch (colon === -1 ? "" : text.slice(0, colon).toLowerCase()) {
    case "unix":
    case "local":
      return unix(text, rest);
    case "inet":
      return tcp(text, rest, 4);
    case "inet6":
      return tcp(text, rest, 6);
    case "fd":
      return fd(text, rest);
    default:
      return bare(text, colon);
  }
}

/** The canonical form, for logs and for comparing: `unix:/path`, `inet:HOST:PORT`, `inet6:[HOST]:PORT`, `fd:3`. */
export function formatAddress(address: ListenAddress): string {
  switch (address.kind) {
    case "unix":
      return `unix:${address.path}`;
    case "tcp":
      return address.family === 4 ? `inet:${address.host}:${address.port}` : `inet6:[${address.host}]:${address.port}`;
    case "fd":
      return `fd:${address.fd}`;
    default:
      return address satisfies never;
  }
}

function bad(text: string, reason: string): AddressError {
  return new AddressError(text, "a listen address", reason);
}

function bare(text: string, colon: number): ListenAddress {
  const slash = text.indexOf("/");
  if (/^[/.]/.test(text)) return unix(text, text);
  if (text.startsWith("[")) return tcp(text, text, 6);
  if (slash !== -1 && (colon === -1 || slash < colon)) return unix(text, text);
  if (slash !== -1) throw bad(text, `this kind of address is not known; ${FORMS}`);
  if (colon !== -1) return tcp(text, text, isIPv6(text) ? 6 : 4);
  if (/\.sock(?:et)?$/.test(text)) return unix(text, text);
  if (/^\d+$/.test(text)) throw portAlone(text, text);
  throw bad(text, `write ${quote(`./${text}`)} for a socket file, or add the port of a host: ${quote(`${text}:8891`)}`);
}

function unix(text: string, path: string): ListenAddress {
  if (path === "") throw bad(text, `a path is missing, as in "unix:/run/pmilter/pmilter.sock"`);
  if (path.endsWith("/") || /(?:^|\/)\.\.?$/.test(path)) throw bad(text, "the path names a folder, not a socket file");
  if (path.startsWith("~")) throw bad(text, `"~" is not expanded here; write the whole path`);
  return { kind: "unix", path };
}

function fd(text: string, digits: string): ListenAddress {
  if (!/^\d{1,9}$/.test(digits)) throw bad(text, `a descriptor number is missing, as in "fd:3"`);
  // systemd's socket activation begins at 3; below are the standard streams, where handlers print.
  if (Number(digits) < 3) throw bad(text, "inherited sockets begin at descriptor 3");
  return { kind: "fd", fd: Number(digits) };
}

function tcp(text: string, rest: string, family: Family): ListenAddress {
  if (/^\d*$/.test(rest)) throw portAlone(text, rest);
  const { host, port } = splitHostPort(text, rest);
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) {
    throw bad(text, `a port from 0 to 65535 is expected, not ${quote(port)}`);
  }
  return { kind: "tcp", host: checkHost(text, host, family), port: Number(port), family };
}

function splitHostPort(text: string, rest: string): { host: string; port: string } {
  const bracketed = /^\[([^[\]]*)\]:(.*)$/.exec(rest);
  if (bracketed !== null) return { host: bracketed[1] ?? "", port: bracketed[2] ?? "" };
  const at = rest.indexOf("@");
  if (at !== -1 && rest !== text) {
    return { port: rest.slice(0, at), host: rest.slice(at + 1).replace(/^\[(.*)\]$/, "$1") };
  }
  const colon = rest.lastIndexOf(":");
  if (colon === -1 || /^\[[^[\]]*\]$/.test(rest)) throw bad(text, `a port is missing, as in ${quote(`${text}:8891`)}`);
  const host = rest.slice(0, colon);
  if (/^[0-9a-f:.]*:[0-9a-f:.]*$/i.test(host)) {
    throw bad(text, `an IPv6 address stands in brackets, as in "inet6:[::1]:8891"`);
  }
  if (host.includes(":")) throw bad(text, `this kind of address is not known; ${FORMS}`);
  return { host, port: rest.slice(colon + 1) };
}

function checkHost(text: string, host: string, family: Family): string {
  if (host === "") throw bad(text, `a host is missing; "127.0.0.1" is this machine, "0.0.0.0" every interface`);
  if (host === "*") throw bad(text, `every interface is "0.0.0.0", or "[::]" with IPv6`);
  if (isIPv4(host)) {
    if (family === 6) throw bad(text, `${host} is an IPv4 address, as in "inet:${host}:8891"`);
    return host;
  }
  if (isIPv6(host)) {
    if (family === 4) throw bad(text, `${host} is an IPv6 address, as in "inet6:[${host}]:8891"`);
    return canonicalIPv6(host);
  }
  if (!HOST_NAME.test(host)) throw bad(text, `${quote(host)} is neither an IP address nor a host name`);
  return host;
}

function portAlone(text: string, port: string): AddressError {
  const [local, every] = ["127.0.0.1", "0.0.0.0"].map((host) => quote(`inet:${host}:${port || "8891"}`));
  return bad(text, `a host is missing; ${local} is this machine, ${every} every interface`);
}

/** `0:0::1` and `::1` are the same address and must compare equal; a zone (`%eth0`) is kept as it is. */
function canonicalIPv6(address: string): string {
  const [ip = "", ...zone] = address.split("%");
  return [new URL(`http://[${ip}]/`).hostname.slice(1, -1), ...zone].join("%");
}

/**
 * Reads `192.0.2.0/24`, `2001:db8::/32` (also with Postfix's brackets) or a single address.
 *
 * @throws AddressError
 */
export function parseNetwork(text: string): Network {
  const refuse = (reason: string): AddressError => new AddressError(text, "an address or network", reason);
  const [, ip = "", bits] = /^\[?([^[\]/]*)\]?(?:\/(.*))?$/s.exec(text) ?? [];
  if (!isIPv4(ip) && !isIPv6(ip)) throw refuse(`write it as "192.0.2.0/24", "2001:db8::/32" or "192.0.2.1"`);
  if (ip.includes("%")) throw refuse("a network has no zone");
  const family: Family = isIPv4(ip) ? 4 : 6;
  const width = family === 4 ? 32 : 128;
  if (bits !== undefined && (!/^\d{1,3}$/.test(bits) || Number(bits) > width)) {
    throw refuse(`the prefix length is a number from 0 to ${width}`);
  }
  const prefix = bits === undefined ? width : Number(bits);
  const address = family === 4 ? ip : canonicalIPv6(ip);
  // Connections that arrive by IPv4 are compared as IPv4: this entry would never match.
  if (address.startsWith("::ffff:") && prefix >= 96) throw refuse("write an IPv4 address in its own form");
  const network = maskAddress(address, prefix, family);
  if (network !== address) {
    throw refuse(`bits after the prefix are set; did you mean "${network}/${prefix}" or the single "${address}"?`);
  }
  return { address, prefix, family };
}

/** `192.0.2.0/24`; a single address without its prefix. */
export function formatNetwork({ address, family, prefix }: Network): string {
  return prefix === (family === 4 ? 32 : 128) ? address : `${address}/${prefix}`;
}

/** The address with every bit after the prefix cleared, in canonical form. */
function maskAddress(address: string, prefix: number, family: Family): string {
  const [parts, width] = family === 4 ? [address.split(".").map(Number), 8] : [ipv6Groups(address), 16];
  const masked = parts.map((part, index) => {
    const kept = Math.min(Math.max(prefix - index * width, 0), width);
    return part & ~(2 ** (width - kept) - 1);
  });
  return family === 4 ? masked.join(".") : canonicalIPv6(masked.map((part) => part.toString(16)).join(":"));
}

/** The eight 16-bit groups of a canonical address (hexadecimal only, at most a single `::`). */
function ipv6Groups(address: string): number[] {
  const [head = "", tail] = address.split("::");
  const groups = (part: string): number[] => (part === "" ? [] : part.split(":").map((group) => parseInt(group, 16)));
  if (tail === undefined) return groups(head);
  const before = groups(head);
  const after = groups(tail);
  return [...before, ...Array<number>(8 - before.length - after.length).fill(0), ...after];
}
