/**
 * What the Sendmail tests share: a site as in test/integration/support.ts (pmilter processes, a mail server that asks
 * them, a sink that gets the mail), with Sendmail for Postfix. Filters choose their behaviour by the client's host name
 * here, too.
 */
import { clientName, FROM, MESSAGE, parts, TO } from "../integration/support.ts";
import { type Pmilter, type PmilterOptions, startPmilter } from "../support/pmilter.ts";
import { queueIdOf, type Sendmail, type SendmailOptions, startSendmail } from "../support/sendmail.ts";
import {
  connectSmtp,
  type Reply,
  sendMail,
  type SendMailOptions,
  type SendMailResult,
  type SmtpClient,
} from "../support/smtp-client.ts";
import { type SinkMessage, type SmtpSink, startSmtpSink } from "../support/smtp-sink.ts";

export const REJECTED = "550 5.7.1 Command rejected";
export const REJECTED_AT_END = "554 5.7.1 Command rejected";
export const TRY_LATER = "451 4.3.2 Please try again later";
/** The greeting of a client that a filter refused at connect, and what it gets for its commands. */
export const NO_GREETING = "554 mx.example.test ESMTP not accepting messages";
export const NO_COMMAND = "550 5.0.0 Command rejected";

export interface SiteOptions {
  /** By name: each is a pmilter of its own, and a service of that name that asks it alone, with F=T. */
  readonly filters: Readonly<Record<string, PmilterOptions>>;
  /** More of Sendmail; `milters` are the addresses of the filters by name. */
  readonly sendmail?: (milters: Readonly<Record<string, string>>) => Omit<SendmailOptions, "sinkPort">;
}

export interface MailOptions extends Partial<Omit<SendMailOptions, "port" | "xclient">> {
  /** The filter of this name is asked; default: the first. "smtp" asks none. */
  readonly service?: string;
  /** The behaviour: the client's host name is `AS.client.test`. */
  readonly as?: string;
}

/** Starts all of it. The first filter's service is the default of `send`. */
export async function startSite({ filters, sendmail = () => ({}) }: SiteOptions): Promise<Site> {
  await using stack = new AsyncDisposableStack();
  const names = Object.keys(filters);
  const sink = stack.use(await startSmtpSink());
  const started = await Promise.all(names.map((name) => startPmilter(filters[name])));
  for (const pmilter of started) stack.use(pmilter);
  const milters = Object.fromEntries(names.map((name, index) => [name, started[index]!.addresses[0]!]));
  const services = Object.entries(milters).map(([name, address]) => ({
    name,
    milters: { address, failure: "T" as const },
  }));
  const more = sendmail(milters);
  const mta = stack.use(
    await startSendmail({ ...more, sinkPort: sink.port, services: [...services, ...(more.services ?? [])] }),
  );
  const pmilters = new Map(names.map((name, index) => [name, started[index]!]));
  return new Site(sink, mta, pmilters, stack.move());
}

export class Site implements AsyncDisposable {
  readonly sink: SmtpSink;
  readonly sendmail: Sendmail;
  readonly #pmilters: ReadonlyMap<string, Pmilter>;
  readonly #owned: AsyncDisposableStack;

  constructor(sink: SmtpSink, sendmail: Sendmail, pmilters: ReadonlyMap<string, Pmilter>, owned: AsyncDisposableStack) {
    this.sink = sink;
    this.sendmail = sendmail;
    this.#pmilters = pmilters;
    this.#owned = owned;
  }

  get #first(): string {
    return this.#pmilters.keys().next().value!;
  }

  pmilter(name = this.#first): Pmilter {
    return this.#pmilters.get(name)!;
  }

  /** The port of a service for a client of that behaviour. */
  async port(as?: string, service = this.#first): Promise<number> {
    return as === undefined ? this.sendmail.port(service) : await this.sendmail.portFor(clientName(as), service);
  }

  /** A connection of a client of that behaviour; `helo: false` leaves EHLO to the caller. */
  async connect(as?: string, { service, helo = true }: { service?: string; helo?: boolean } = {}): Promise<SmtpClient> {
    const client = await connectSmtp({ port: await this.port(as, service) });
    if (helo) await client.ehlo("a.test");
    return client;
  }

  /** One message on one connection, up to the step that is refused. */
  async send({ service, as, ...options }: MailOptions = {}): Promise<SendMailResult> {
    return await sendMail({ from: FROM, to: TO, message: MESSAGE, ...options, port: await this.port(as, service) });
  }

  /** The same for a message that must be accepted: what the sink got of it. */
  async deliver(options: MailOptions = {}): Promise<SinkMessage> {
    const { last } = await this.send(options);
    return this.delivered(last);
  }

  /** What the sink got of the message that this reply accepted: Sendmail delivers before it replies. */
  delivered(reply: Reply): SinkMessage {
    const found = this.deliveriesOf(queueIdOf(reply))[0];
    if (found === undefined) throw new Error(`was not delivered: ${reply.text}`);
    return found;
  }

  /** What the sink got so far with this queue id in Sendmail's Received header. */
  deliveriesOf(queueId: string): SinkMessage[] {
    return this.sink.messages.filter(({ text }) => new RegExp(`^\\tby mx\\.\\S+ .* id ${queueId}\\b`, "m").test(text));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/**
 * Header fields, with those that Sendmail makes itself as words, so that their places show: RECEIVED, DATE and
 * MESSAGE-ID.
 */
export function fieldsOf({ text }: { readonly text: string }): string[] {
  return parts(text).fields.map((field) => {
    if (/^Received: from .*\r\n\tby mx\./.test(field)) return "RECEIVED";
    if (/^Date: \w{3}, \d+ \w{3} \d{4} [\d:]+ GMT$/.test(field)) return "DATE";
    return /^Message-Id: <\S+@mx\.example\.test>$/.test(field) ? "MESSAGE-ID" : field;
  });
}

/** What Sendmail puts in front of a message without Date and Message-Id. */
export const OWN_FIELDS = ["RECEIVED", "DATE", "MESSAGE-ID"];

/** The message without the header fields that Sendmail put in front. */
export function withoutOwn(text: string): string {
  const { fields } = parts(text);
  const own = fieldsOf({ text }).findIndex((field) => !OWN_FIELDS.includes(field));
  const cut = own === -1 ? fields.length : own;
  return text.slice(fields.slice(0, cut).reduce((sum, field) => sum + field.length + 2, 0));
}
