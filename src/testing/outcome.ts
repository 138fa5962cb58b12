/**
 * The outcome of a message, as `client.send`, `runFilter` and `pmilter send --json` give it. Plain data, fit for JSON;
 * `send.ts` makes it.
 */
import { decodeText } from "../protocol/bytes.ts";
import type { FinalReply, ModificationReply, SmtpReply } from "../protocol/replies.ts";
import type { EventPhase } from "./habits.ts";

/** The verdict on a recipient, or on the message. A quarantined message is accepted. */
export type MessageVerdict = "accept" | "reject" | "tempfail" | "discard";

/** The filter's reply in a phase; `none`: the event was sent and, as negotiated, not answered. */
export type PhaseVerdict = MessageVerdict | "continue" | "skip" | "none";

export interface PhaseOutcome {
  readonly phase: EventPhase;
  readonly verdict: PhaseVerdict;
  /** The filter's reply text; null if it gave none. */
  readonly reply: SmtpReply | null;
  /** From sending the event to its final reply, in milliseconds with three decimals. */
  readonly ms: number;
  /** PROGRESS packets before the reply; present if there were any. */
  readonly progress?: number;
}

export interface RecipientOutcome {
  /** Without angle brackets. */
  readonly address: string;
  readonly verdict: MessageVerdict;
  readonly reply: SmtpReply | null;
}

/**
 * A change that the filter asked for, with the arguments of the handler's methods. Header values are without the
 * single leading space. `index` counts as on the wire: for `insertHeader` 0 is the top and the mail server's own Received is
 * counted. `address` is as sent. Several REPLBODY packets are one `replaceBody`, with CRLF line ends as sent.
 */
export type Modification =
  | { readonly kind: "addHeader"; readonly name: string; readonly value: string }
  | { readonly kind: "insertHeader"; readonly index: number; readonly name: string; readonly value: string }
  | { readonly kind: "changeHeader"; readonly name: string; readonly value: string; readonly index: number }
  | { readonly kind: "deleteHeader"; readonly name: string; readonly index: number }
  | { readonly kind: "changeFrom"; readonly address: string; readonly params: readonly string[] }
  | { readonly kind: "addRecipient"; readonly address: string; readonly params: readonly string[] }
  | { readonly kind: "deleteRecipient"; readonly address: string }
  | { readonly kind: "replaceBody"; readonly body: string }
  | { readonly kind: "quarantine"; readonly reason: string };

/** The outcome of a message. */
export interface Outcome {
  readonly verdict: MessageVerdict;
  /** The text of the reply that decided; null if the filter gave none, or nothing was refused. */
  readonly reply: SmtpReply | null;
  /** The recipients that were given, in order, as far as the SMTP client got. */
  readonly recipients: readonly RecipientOutcome[];
  /** Each event that was sent to the filter, in order: an entry for each recipient, header and piece of body. */
  readonly phases: readonly PhaseOutcome[];
  readonly modifications: readonly Modification[];
  /** The message as the mail server would deliver it, line ends CRLF; "" if it is not delivered. */
  readonly message: string;
}

/** The verdict that a reply stands for. */
export function verdictOf(reply: FinalReply): Exclude<PhaseVerdict, "none"> {
  if (reply.kind === "replycode") return reply.code >= 500 ? "reject" : "tempfail";
  return reply.kind;
}

/** The text of a reply, null for a reply without text. */
export function smtpReplyOf(reply: FinalReply): SmtpReply | null {
  if (reply.kind !== "replycode") return null;
  return { code: reply.code, enhanced: reply.enhanced, lines: reply.lines };
}

/**
 * The filter's packets as changes in the words of a handler.
 * @param leadingSpace true if HDR_LEADSPC was negotiated: values then carry the space after the colon
 */
export function describeModifications(replies: readonly ModificationReply[], leadingSpace: boolean): Modification[] {
  const described: Modification[] = [];
  const body: Uint8Array[] = [];
  for (const reply of replies) {
    switch (reply.kind) {
      case "addHeader":
        described.push({ ...reply, value: visible(reply.value, leadingSpace) });
        break;
      case "insertHeader": {
        const { index, name } = reply;
        const value = visible(reply.value, leadingSpace);
        // For Sendmail, pmilter adds a header by an index past the end: only that is sure to be the end.
        described.push(
          index >= PAST_THE_END ? { kind: "addHeader", name, value } : { kind: "insertHeader", index, name, value },
        );
        break;
      }
      case "changeHeader": {
        const { name, index } = reply;
        if (reply.value === "") described.push({ kind: "deleteHeader", name, index });
        else described.push({ kind: "changeHeader", name, value: visible(reply.value, leadingSpace), index });
        break;
      }
      case "addRecipient":
      case "changeFrom":
        described.push({ kind: reply.kind, address: reply.address, params: words(reply.params) });
        break;
      case "replaceBody":
        body.push(reply.chunk);
        if (body.length === 1) described.push({ kind: "replaceBody", body: "" });
        break;
      case "deleteRecipient":
      case "quarantine":
        described.push(reply);
        break;
      default:
        reply satisfies never;
    }
  }
  if (body.length === 0) return described;
  const text = decodeText(Buffer.concat(body));
  return described.map((change) => (change.kind === "replaceBody" ? { kind: "replaceBody", body: text } : change));
}

/** No message has as many headers. */
const PAST_THE_END = 0x10000000;

function visible(value: string, leadingSpace: boolean): string {
  return leadingSpace && value.startsWith(" ") ? value.slice(1) : value;
}

function words(params: string): string[] {
  return params.split(" ").filter((word) => word !== "");
}
