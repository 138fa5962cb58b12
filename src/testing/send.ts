/**
 * A whole message through a `MilterClient`: the order of events that an SMTP client and its mail server would produce, and
 * the message's outcome. The client makes every packet.
 */
import { decodeText } from "../protocol/bytes.ts";
import { MAX_REPLY_PAYLOAD } from "../protocol/constants.ts";
import type { FinalReply, SmtpReply } from "../protocol/replies.ts";
import { type ClientInfo, connectionFacts } from "./address.ts";
import { applyModifications } from "./apply.ts";
import type { EomReply, EventClient, EventReply } from "./client-types.ts";
import { ClientUsageError } from "./errors.ts";
import type { EventPhase } from "./habits.ts";
import { addressesOf, formatMail, type MailContent, parseMail } from "./mail.ts";
import type { Macros } from "./macros.ts";
import {
  type MessageVerdict,
  type Modification,
  type Outcome,
  type PhaseOutcome,
  type RecipientOutcome,
  smtpReplyOf,
  verdictOf,
} from "./outcome.ts";

/** A message to send, with the session that the mail server would report. */
export interface Mail {
  /** Default: 127.0.0.1, `localhost`, port not known. */
  readonly client?: ClientInfo | undefined;
  /** Default `localhost`. */
  readonly helo?: string | undefined;
  /**
   * The sender; brackets are added, `""` is the null sender. Default: the address of the message's From, else the null
   * sender.
   */
  readonly from?: string | undefined;
  /**
   * The recipients; brackets are added. Default: the addresses of To, Cc and Bcc, else `postmaster@localhost`.
   */
  readonly to?: readonly string[] | undefined;
  /** ESMTP arguments of MAIL, such as `SIZE=1234`. */
  readonly params?: readonly string[] | undefined;
  /** Recipients that the mail server refuses itself; a filter that asked for them (RCPT_REJ) is told, before `to`. */
  readonly rejectedTo?: readonly string[] | undefined;
  /** The message, in a form that `parseMail` takes. */
  readonly eml: string | Uint8Array;
  /** For this and later messages; see `MilterClient.macros`. */
  readonly macros?: Macros | undefined;
}

const DEFAULT_RECIPIENT = "postmaster@localhost";
const UNKNOWN_USER: SmtpReply = { code: 550, enhanced: "5.1.1", lines: ["User unknown"] };

/** @throws as the methods of `MilterClient` do */
export async function sendMail(client: EventClient, mail: Mail): Promise<Outcome> {
  const content = parseMail(mail.eml);
  const sender = bracketed(mail.from ?? addressesOf(content.headers, "From")[0] ?? "");
  const to = (mail.to ?? recipientsOf(content)).map(bracketed);
  if (to.length === 0) throw new ClientUsageError("send: no recipient; leave `to` out for those of the message");
  if (mail.macros !== undefined) client.macros = mail.macros;
  return await new Transaction(client, mail, content, sender, to).run();
}

function recipientsOf(content: MailContent): string[] {
  const found = ["To", "Cc", "Bcc"].flatMap((name) => addressesOf(content.headers, name));
  return found.length > 0 ? [...new Set(found)] : [DEFAULT_RECIPIENT];
}

function bracketed(address: string): string {
  return address.startsWith("<") && address.endsWith(">") ? address : `<${address}>`;
}

function bare(address: string): string {
  return address.slice(1, -1);
}

/** A message on its way; `run` takes it to its end. */
class Transaction {
  readonly #client: EventClient;
  readonly #mail: Mail;
  readonly #content: MailContent;
  readonly #sender: string;
  readonly #to: readonly string[];
  readonly #phases: PhaseOutcome[] = [];
  readonly #recipients: RecipientOutcome[] = [];

  constructor(client: EventClient, mail: Mail, content: MailContent, sender: string, to: readonly string[]) {
    this.#client = client;
    this.#mail = mail;
    this.#content = content;
    this.#sender = sender;
    this.#to = to;
  }

  async run(): Promise<Outcome> {
    const ofConnection = await this.#greet();
    if (ofConnection !== undefined) return this.#ended(ofConnection);
    const outcome = (await this.#envelope()) ?? (await this.#message());
    await this.#client.abort();
    return outcome;
  }

  /** Negotiates, connects and greets, as far as this connection has not; returns the reply that ends it, if there is any. */
  async #greet(): Promise<FinalReply | undefined> {
    const client = this.#client;
    if (client.negotiated === undefined) await client.negotiate();
    const facts = connectionFacts(this.#mail.client ?? {}, client.habit);
    const helo = this.#mail.helo ?? "localhost";
    if (client.connection !== undefined && !Bun.deepEquals(facts, client.connection)) await client.quitNc();
    if (client.connection === undefined) {
      await this.#step("connect", () => client.connect(this.#mail.client));
    }
    if (client.heloName !== helo) await this.#step("helo", () => client.helo(helo));
    return client.connectionVerdict;
  }

  /** MAIL and RCPT; gives the outcome if the message is over with them. */
  async #envelope(): Promise<Outcome | undefined> {
    const client = this.#client;
    const reply = await this.#step("envfrom", () => client.envfrom(this.#sender, this.#mail.params));
    if (isEnd(reply)) return this.#ended(reply);
    for (const address of this.#mail.rejectedTo ?? []) {
      const refusal = { status: UNKNOWN_USER.enhanced, text: UNKNOWN_USER.lines[0]! };
      const told = await this.#step("envrcpt", () => client.envrcpt(bracketed(address), [], refusal));
      this.#recipients.push({ address: bare(bracketed(address)), verdict: "reject", reply: UNKNOWN_USER });
      if (told.kind === "accept" || told.kind === "discard") return this.#ended(told);
    }
    let isAnyAccepted = false;
    let last: FinalReply | undefined;
    for (const address of this.#to) {
      const answer = await this.#step("envrcpt", () => client.envrcpt(address));
      // Postfix and Sendmail: these two are about the message, so the remaining recipients are not asked about.
      if (answer.kind === "accept" || answer.kind === "discard") return this.#ended(answer);
      const isRefused = isEnd(answer);
      if (isRefused) last = answer;
      else isAnyAccepted = true;
      this.#recipients.push({
        address: bare(address),
        verdict: isRefused ? messageVerdict(answer) : "accept",
        reply: isRefused ? smtpReplyOf(answer) : null,
      });
      // After 421 the mail server closes the SMTP session: the message is not sent on.
      if (client.connectionVerdict !== undefined) return this.#ended(client.connectionVerdict);
    }
    return isAnyAccepted || last === undefined ? undefined : this.#ended(last);
  }

  /** DATA to the end of the message. */
  async #message(): Promise<Outcome> {
    const client = this.#client;
    let reply = await this.#step("data", () => client.data());
    if (isEnd(reply)) return this.#ended(reply);
    for (const { name, value } of this.#content.headers) {
      reply = await this.#step("header", () => client.header(name, value));
      if (isEnd(reply)) return this.#ended(reply);
    }
    reply = await this.#step("eoh", () => client.eoh());
    if (isEnd(reply)) return this.#ended(reply);
    const { body } = this.#content;
    for (let start = 0; start < body.length; start += MAX_REPLY_PAYLOAD) {
      const chunk = body.subarray(start, start + MAX_REPLY_PAYLOAD);
      reply = await this.#step("body", () => client.body(chunk));
      if (isEnd(reply)) return this.#ended(reply);
      if (reply.kind === "skip") break;
    }
    const end = await this.#step("eom", () => client.eom());
    return this.#done(end);
  }

  /** Makes an event, and records its reply if it was sent. */
  async #step<R extends EventReply>(phase: EventPhase, event: () => Promise<R>): Promise<R> {
    const before = this.#client.progress.get(phase) ?? 0;
    const start = performance.now();
    const result = await event();
    const ms = Math.round((performance.now() - start) * 1000) / 1000;
    const reply: EventReply = result;
    if (reply.kind === "none" && !reply.sent) return result;
    const progress = (this.#client.progress.get(phase) ?? 0) - before;
    const verdict = reply.kind === "none" ? reply.kind : verdictOf(reply);
    const text = reply.kind === "none" ? null : smtpReplyOf(reply);
    this.#phases.push({ phase, verdict, reply: text, ms, ...(progress > 0 && { progress }) });
    return result;
  }

  /** The outcome of a message that ended for the filter before EOM: refused, discarded, or accepted as it is. */
  #ended(reply: FinalReply): Outcome {
    const verdict = messageVerdict(reply);
    // The SMTP client of an accepted or discarded message goes on, and gets each recipient accepted.
    if (verdict === "accept" || verdict === "discard") {
      const told = this.#recipients.length - (this.#mail.rejectedTo?.length ?? 0);
      for (const address of this.#to.slice(Math.max(told, 0))) {
        this.#recipients.push({ address: bare(address), verdict, reply: null });
      }
    }
    return this.#outcome(verdict, smtpReplyOf(reply), [], verdict === "accept" ? this.#content : undefined);
  }

  #done(end: EomReply): Outcome {
    const verdict = end.kind === "none" ? "accept" : messageVerdict(end);
    const reply = end.kind === "none" ? null : smtpReplyOf(end);
    if (verdict !== "accept") return this.#outcome(verdict, reply, end.modifications, undefined);
    const envelope = { sender: { address: this.#sender, params: [] }, recipients: [] };
    const leadingSpace = this.#client.negotiated!.leadingSpace;
    const options = { as: this.#client.habit, leadingSpace };
    const result = applyModifications({ ...this.#content, envelope }, end.received, options);
    return this.#outcome(verdict, reply, end.modifications, result);
  }

  #outcome(
    verdict: MessageVerdict,
    reply: SmtpReply | null,
    modifications: readonly Modification[],
    delivered: MailContent | undefined,
  ): Outcome {
    const message = delivered === undefined ? "" : decodeText(formatMail(delivered));
    return { verdict, reply, recipients: this.#recipients, phases: this.#phases, modifications, message };
  }
}

type EndingReply = FinalReply & { readonly kind: Exclude<FinalReply["kind"], "continue" | "skip"> };

/** A reply after which the filter gets no more events of that message or connection. */
function isEnd(reply: EventReply): reply is EndingReply {
  return reply.kind !== "none" && reply.kind !== "continue" && reply.kind !== "skip";
}

function messageVerdict(reply: FinalReply): MessageVerdict {
  const verdict = verdictOf(reply);
  return verdict === "continue" || verdict === "skip" ? "accept" : verdict;
}
