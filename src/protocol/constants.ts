/**
 * The numbers of the milter protocol, each under its libmilter name (`mfdef.h`, `mfapi.h`). Their meaning
 * for handlers is in `phases.ts`; nothing here knows of phases.
 */

/** Command bytes, mail server to filter (`SMFIC_*`). */
export const COMMAND = {
  OPTNEG: 0x4f, // O
  MACRO: 0x44, // D
  CONNECT: 0x43, // C
  HELO: 0x48, // H
  MAIL: 0x4d, // M
  RCPT: 0x52, // R
  DATA: 0x54, // T
  HEADER: 0x4c, // L
  EOH: 0x4e, // N
  BODY: 0x42, // B
  BODYEOB: 0x45, // E
  ABORT: 0x41, // A
  QUIT: 0x51, // Q
  QUIT_NC: 0x4b, // K
  UNKNOWN: 0x55, // U
} as const;
export type CommandName = keyof typeof COMMAND;
export type CommandCode = (typeof COMMAND)[CommandName];

/** Reply bytes, filter to mail server (`SMFIR_*`). CONN_FAIL and SHUTDOWN are left out: no portable filter sends them. */
export const REPLY = {
  CONTINUE: 0x63, // c
  ACCEPT: 0x61, // a
  REJECT: 0x72, // r
  TEMPFAIL: 0x74, // t
  DISCARD: 0x64, // d
  REPLYCODE: 0x79, // y
  SKIP: 0x73, // s
  PROGRESS: 0x70, // p
  QUARANTINE: 0x71, // q
  ADDHEADER: 0x68, // h
  INSHEADER: 0x69, // i
  CHGHEADER: 0x6d, // m
  REPLBODY: 0x62, // b
  ADDRCPT: 0x2b, // +
  ADDRCPT_PAR: 0x32, // 2
  DELRCPT: 0x2d, // -
  CHGFROM: 0x65, // e
  OPTNEG: 0x4f, // O
} as const;
export type ReplyName = keyof typeof REPLY;
export type ReplyCode = (typeof REPLY)[ReplyName];

/** Action flags: the changes that a filter may make to a message (`SMFIF_*`), the second word of OPTNEG. */
export const ACTION = {
  ADDHDRS: 0x001,
  CHGBODY: 0x002,
  ADDRCPT: 0x004,
  DELRCPT: 0x008,
  CHGHDRS: 0x010,
  QUARANTINE: 0x020,
  CHGFROM: 0x040,
  ADDRCPT_PAR: 0x080,
  SETSYMLIST: 0x100,
} as const;
export type ActionName = keyof typeof ACTION;

/** All actions that this implementation uses. */
export const ALL_ACTIONS = 0x1ff;
/** An offer of 0 means these (`SMFI_V1_ACTS`). */
export const VERSION_1_ACTIONS = 0x0f;

/**
 * Protocol flags: commands that are not sent (NO*) or not answered (NR_*), and permissions (`SMFIP_*`), the third word of
 * OPTNEG.
 */
export const PROTOCOL = {
  NOCONNECT: 0x000001,
  NOHELO: 0x000002,
  NOMAIL: 0x000004,
  NORCPT: 0x000008,
  NOBODY: 0x000010,
  NOHDRS: 0x000020,
  NOEOH: 0x000040,
  NR_HDR: 0x000080,
  NOUNKNOWN: 0x000100,
  NODATA: 0x000200,
  SKIP: 0x000400,
  RCPT_REJ: 0x000800,
  NR_CONN: 0x001000,
  NR_HELO: 0x002000,
  NR_MAIL: 0x004000,
  NR_RCPT: 0x008000,
  NR_DATA: 0x010000,
  NR_UNKN: 0x020000,
  NR_EOH: 0x040000,
  NR_BODY: 0x080000,
  HDR_LEADSPC: 0x100000,
} as const;

export const ALL_PROTOCOL = 0x1fffff;
/** An offer of 0 means these (`SMFI_V1_PROT`). */
export const VERSION_1_PROTOCOL = 0x3f;

/** The version this implementation speaks (`SMFI_PROT_VERSION`), and the lowest it answers. */
export const VERSION = 6;
export const MIN_VERSION = 2;

/** Macro stages as SETSYMLIST numbers them (`SMFIM_*`): EOM comes before EOH here, unlike in a session. */
export const SYMLIST_STAGE = { CONNECT: 0, HELO: 1, MAIL: 2, RCPT: 3, DATA: 4, EOM: 5, EOH: 6 } as const;

/** Address families of CONNECT (`SMFIA_*`). */
export const FAMILY = { INET: 0x34, INET6: 0x36, UNIX: 0x4c, UNKNOWN: 0x55 } as const;

/** Bytes of the length field before each packet. */
export const LENGTH_BYTES = 4;
/** The largest payload that every mail server takes (`MILTER_CHUNK_SIZE`); replacement bodies are cut at it. */
export const MAX_REPLY_PAYLOAD = 65_535;

/** The name of a code in a table above, for logs and error messages: `MAIL`, or `0x7A` if it has none. */
export function nameOf(table: Readonly<Record<string, number>>, code: number): string {
  for (const name in table) if (table[name] === code) return name;
  return `0x${code.toString(16).toUpperCase().padStart(2, "0")}`;
}

/** The names of the bits set in a mask, in ascending order; a bit without a name is given in hex. */
export function namesOf(table: Readonly<Record<string, number>>, mask: number): string[] {
  const names: string[] = [];
  for (let bit = 1; bit !== 0 && bit <= mask; bit = (bit << 1) >>> 0) {
    if ((mask & bit) !== 0) names.push(nameOf(table, bit));
  }
  return names;
}
