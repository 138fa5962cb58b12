/**
 * Reply packets to values, for the mail server's side. It is the counterpart of `commands.ts`, and as strict as Postfix
 * (`milter8.c`): a reply for which Postfix would apply its failure policy is a ProtocolError here. Whether a reply is legal
 * in a phase is decided elsewhere.
 */
import { decodeText, excerpt, readU32 } from "./bytes.ts";
import { MAX_REPLY_PAYLOAD, nameOf, REPLY } from "./constants.ts";
import type { MacroList } from "./encode.ts";
import { ProtocolError } from "./errors.ts";
import type { VERDICTS } from "./verdicts.ts";

/** An SMTP reply as the client will see it: `%%` undone, code and enhanced code taken off each line. */
export interface SmtpReply {
  /** 400 to 599. */
  readonly code: number;
  /** `5.7.1`, or "" if the first line has none. */
  readonly enhanced: string;
  /** The text of each line; at least a single line. */
  readonly lines: readonly string[];
}

/** Ends the wait for a reply. */
export type FinalReply = { readonly kind: keyof typeof VERDICTS } | ({ readonly kind: "replycode" } & SmtpReply);

/** A change of the message, as it was on the wire: header values with or without the leading space, as negotiated. */
export type ModificationReply =
  | { readonly kind: "addHeader"; readonly name: string; readonly value: string }
  | { readonly kind: "insertHeader"; readonly index: number; readonly name: string; readonly value: string }
  /** An empty value deletes. */
  | { readonly kind: "changeHeader"; readonly index: number; readonly name: string; readonly value: string }
  | { readonly kind: "replaceBody"; readonly chunk: Uint8Array }
  /** `withParams`: sent as ADDRCPT_PAR, which is an action of its own. `params` separated by spaces, "" for none. */
  | { readonly kind: "addRecipient"; readonly address: string; readonly params: string; readonly withParams: boolean }
  | { readonly kind: "deleteRecipient"; readonly address: string }
  | { readonly kind: "changeFrom"; readonly address: string; readonly params: string }
  | { readonly kind: "quarantine"; readonly reason: string };

export interface OptnegReply {
  readonly kind: "optneg";
  readonly version: number;
  readonly actions: number;
  readonly protocol: number;
  /** In the order of the packet; stage numbers are not checked. */
  readonly lists: readonly MacroList[];
}

export type Reply = FinalReply | ModificationReply | OptnegReply | { readonly kind: "progress" };
export type ReplyKind = Reply["kind"];

const PLAIN = {
  [REPLY.CONTINUE]: { kind: "continue" },
  [REPLY.ACCEPT]: { kind: "accept" },
  [REPLY.REJECT]: { kind: "reject" },
  [REPLY.TEMPFAIL]: { kind: "tempfail" },
  [REPLY.DISCARD]: { kind: "discard" },
  [REPLY.SKIP]: { kind: "skip" },
  [REPLY.PROGRESS]: { kind: "progress" },
} as const;

/**
 * Decodes the packet with the code byte `code` and the payload `bytes[start, end)`. Plain replies are shared constants.
 * The chunk of `replaceBody` is a view of `bytes`; everything else is independent of them.
 * @throws ProtocolError PMILTER_ERR_REPLY: an unknown code, bytes after a plain reply or after the last field, a string
 *   without NUL, a payload shorter than its fields or (REPLBODY) longer than 65535, a header name that is none, an
 *   empty address or reason, and REPLYCODE text that Postfix calls malformed ({@link parseSmtpReply})
 */
export function decodeReply(code: number, bytes: Uint8Array, start = 0, end = bytes.length): Reply {
  const fields = new Fields(nameOf(REPLY, code), bytes, start, end);
  switch (code) {
    case REPLY.CONTINUE:
    case REPLY.ACCEPT:
    case REPLY.REJECT:
    case REPLY.TEMPFAIL:
    case REPLY.DISCARD:
    case REPLY.SKIP:
    case REPLY.PROGRESS:
      fields.finish();
      return PLAIN[code];
    case REPLY.REPLYCODE: {
      const text = fields.string("text");
      fields.finish();
      return { kind: "replycode", ...parseSmtpReply(text) };
    }
    case REPLY.QUARANTINE: {
      const reason = fields.filled("reason");
      fields.finish();
      return { kind: "quarantine", reason };
    }
    case REPLY.ADDHEADER: {
      const name = fields.headerName();
      const value = fields.string("header value");
      fields.finish();
      return { kind: "addHeader", name, value };
    }
    case REPLY.INSHEADER:
    case REPLY.CHGHEADER: {
      const index = fields.u32("index");
      const name = fields.headerName();
      const value = fields.string("header value");
      fields.finish();
      return { kind: code === REPLY.INSHEADER ? "insertHeader" : "changeHeader", index, name, value };
    }
    case REPLY.REPLBODY:
      if (end - start > MAX_REPLY_PAYLOAD) {
        throw fields.error(`${end - start} bytes, expected at most ${MAX_REPLY_PAYLOAD} in a packet`);
      }
      return { kind: "replaceBody", chunk: bytes.subarray(start, end) };
    case REPLY.ADDRCPT:
    case REPLY.ADDRCPT_PAR: {
      const address = fields.filled("address");
      const withParams = code === REPLY.ADDRCPT_PAR;
      const params = withParams ? fields.optionalString("arguments") : "";
      fields.finish();
      return { kind: "addRecipient", address, params, withParams };
    }
    case REPLY.DELRCPT: {
      const address = fields.filled("address");
      fields.finish();
      return { kind: "deleteRecipient", address };
    }
    case REPLY.CHGFROM: {
      const address = fields.filled("address");
      const params = fields.optionalString("arguments");
      fields.finish();
      return { kind: "changeFrom", address, params };
    }
    case REPLY.OPTNEG: {
      const version = fields.u32("version");
      const actions = fields.u32("actions");
      const protocol = fields.u32("protocol flags");
      const lists: MacroList[] = [];
      while (!fields.isAtEnd) {
        const stage = fields.u32("stage of a macro list");
        const names = fields.string("macro list");
        lists.push({ stage, names: names.split(" ").filter((name) => name !== "") });
      }
      return { kind: "optneg", version, actions, protocol, lists };
    }
    default:
      throw fields.error(`no reply has this code, expected one of ${Object.keys(REPLY).join(" ")}`);
  }
}

/** Reads the fields of a payload in order, each within its bounds. */
class Fields {
  readonly #what: string;
  readonly #bytes: Uint8Array;
  readonly #start: number;
  readonly #end: number;
  #at: number;

  constructor(what: string, bytes: Uint8Array, start: number, end: number) {
    this.#what = what;
    this.#bytes = bytes;
    this.#start = start;
    this.#at = start;
    this.#end = end;
  }

  get isAtEnd(): boolean {
    return this.#at === this.#end;
  }

  error(problem: string): ProtocolError {
    const seen = excerpt(this.#bytes, this.#start, this.#end);
    return new ProtocolError("PMILTER_ERR_REPLY", `reply ${this.#what}: ${problem}; payload "${seen}"`);
  }

  u32(field: string): number {
    if (this.#end - this.#at < 4) throw this.error(`${this.#end - this.#at} bytes left, expected 4 for the ${field}`);
    const value = readU32(this.#bytes, this.#at);
    this.#at += 4;
    return value;
  }

  string(field: string): string {
    const nul = this.#bytes.indexOf(0, this.#at);
    if (nul === -1 || nul >= this.#end) throw this.error(`no NUL ends the ${field}`);
    const text = decodeText(this.#bytes, this.#at, nul);
    this.#at = nul + 1;
    return text;
  }

  optionalString(field: string): string {
    return this.isAtEnd ? "" : this.string(field);
  }

  filled(field: string): string {
    const text = this.string(field);
    if (text === "") throw this.error(`the ${field} is empty`);
    return text;
  }

  /** RFC 5322 section 2.2: printable ASCII without the colon. Postfix takes an empty name for a configuration error. */
  headerName(): string {
    const name = this.string("header name");
    if (!/^[!-9;-~]+$/.test(name)) throw this.error("the header name is empty, or not printable ASCII without colon");
    return name;
  }

  finish(): void {
    if (!this.isAtEnd) throw this.error(`${this.#end - this.#at} bytes too many`);
  }
}

const ENHANCED = /^[245]\.\d{1,3}\.\d{1,3}(?= |$)/;

/**
 * Parses REPLYCODE text by the rules of Postfix 3.12: each line `ddd-` or (the last) `ddd `, the same code 4dd or 5dd
 * on all, lines separated by CRLF, and a fifth character that, if it is a digit, equals the first. `%%` becomes `%`, a
 * single `%` is dropped. An enhanced code is taken off where it is that of the first line.
 * @throws ProtocolError PMILTER_ERR_REPLY
 */
export function parseSmtpReply(text: string): SmtpReply {
  const rows = text.split("\r\n");
  const code = rows[0]!.slice(0, 3);
  const lines: string[] = [];
  let enhanced = "";
  for (const [at, row] of rows.entries()) {
    const isLast = at === rows.length - 1;
    if (/[\r\n]/.test(row)) throw malformed(text, "a CR or LF that is no part of CRLF");
    if (!/^[45]\d\d/.test(row)) throw malformed(text, `line ${at + 1} does not start with a code 4xx or 5xx`);
    if (row.slice(0, 3) !== code) throw malformed(text, `line ${at + 1} has another code than the first`);
    if (row[3] !== (isLast ? " " : "-")) {
      throw malformed(text, `after the code of line ${at + 1}, expected ${isLast ? "a space" : "'-'"}`);
    }
    if (/^\d/.test(row.slice(4)) && row[4] !== row[0]) {
      throw malformed(text, `line ${at + 1} starts with a digit that is not the class of its code`);
    }
    const rest = row.slice(4);
    if (at === 0) enhanced = ENHANCED.exec(rest)?.[0] ?? "";
    const own = enhanced !== "" && ENHANCED.exec(rest)?.[0] === enhanced;
    lines.push((own ? rest.slice(enhanced.length + 1) : rest).replaceAll(/%(%?)/g, "$1"));
  }
  return { code: Number(code), enhanced, lines };
}

function malformed(text: string, problem: string): ProtocolError {
  return new ProtocolError("PMILTER_ERR_REPLY", `reply REPLYCODE: ${problem}; text "${excerpt(Buffer.from(text))}"`);
}
