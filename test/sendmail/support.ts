/**
 * What the Sendmail tests share: a site as in test/integration/support.ts (pmilter processes, a mail server that asks
 * them, a sink that gets the mail), with Sendmail for Postfix. Filters choose their behaviour by the client's host name
 * here, too.
 */
import {
  buildSite,
  type KeptMessage,
  MailSite,
  type Route,
  type SiteFilters,
  type SiteParts,
} from "../integration/site.ts";
import { clientName, parts } from "../integration/support.ts";
import { queueIdOf, type Sendmail, type SendmailOptions, startSendmail } from "../support/sendmail.ts";
import type { Reply } from "../support/smtp-client.ts";
import type { SinkMessage } from "../support/smtp-sink.ts";

export const REJECTED = "550 5.7.1 Command rejected";
export const REJECTED_AT_END = "554 5.7.1 Command rejected";
export const TRY_LATER = "451 4.3.2 Please try again later";
/** The greeting of a client that a filter refused at connect, and what it gets for its commands. */
export const NO_GREETING = "554 mx.example.test ESMTP not accepting messages";
export const NO_COMMAND = "550 5.0.0 Command rejected";

export interface SiteOptions {
  /** Their services have F=T. */
  readonly filters: SiteFilters;
  /** More of Sendmail; `milters` are the addresses of the filters by name. */
  readonly sendmail?: (milters: Readonly<Record<string, string>>) => Omit<SendmailOptions, "sinkPort">;
}

/** Starts all of it. The first filter's service is the default of `send`. */
export async function startSite({ filters, sendmail = () => ({}) }: SiteOptions): Promise<Site> {
  return await buildSite(
    filters,
    async (milters, sinkPort) => {
      const services = Object.entries(milters).map(([name, address]) => ({
        name,
        milters: { address, failure: "T" as const },
      }));
      const more = sendmail(milters);
      return await startSendmail({ ...more, sinkPort, services: [...services, ...(more.services ?? [])] });
    },
    (server, shared) => new Site(server, shared),
  );
}

export class Site extends MailSite {
  readonly sendmail: Sendmail;

  constructor(sendmail: Sendmail, shared: SiteParts) {
    super(shared);
    this.sendmail = sendmail;
  }

  /** The port of a service for a client of that behaviour. */
  async port(as?: string, service = this.first): Promise<number> {
    return as === undefined ? this.sendmail.port(service) : await this.sendmail.portFor(clientName(as), service);
  }

  protected async route(as: string | undefined, service: string | undefined): Promise<Route> {
    return { port: await this.port(as, service) };
  }

  /** Sendmail delivers before it replies. */
  delivered(reply: Reply): SinkMessage {
    const found = this.deliveriesOf(queueIdOf(reply))[0];
    if (found === undefined) throw new Error(`was not delivered: ${reply.text}`);
    return found;
  }

  async queueIds(): Promise<string[]> {
    return await this.sendmail.queue();
  }

  async kept(queueId: string): Promise<KeptMessage> {
    const { sender, recipients, headers, body, quarantine } = await this.sendmail.queued(queueId);
    return { sender, recipients, quarantine, content: `${headers.join("\n")}\n\n${body}` };
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
