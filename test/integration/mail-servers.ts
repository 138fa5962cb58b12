/**
 * Postfix and Sendmail for tests that are the same behind both: what is expected of pmilter is written once, and what the
 * mail servers do differently has a name here.
 */
import {
  fieldsOf as sendmailFields,
  NO_GREETING,
  OWN_FIELDS,
  REJECTED_AT_END,
  startSite as startSendmailSite,
  TRY_LATER,
  withoutOwn,
} from "../sendmail/support.ts";
import { describeWith, type OutsideTool } from "../support/available.ts";
import { postfixTool, queueIdOf as postfixQueueId, startPostfix } from "../support/postfix.ts";
import { queueIdOf as sendmailQueueId, sendmailTool, startSendmail } from "../support/sendmail.ts";
import type { SinkMessage } from "../support/smtp-sink.ts";
import type { MailSite, SiteFilters } from "./site.ts";
import { fieldsOf as postfixFields, startSite as startPostfixSite, withoutReceived } from "./support.ts";

/** A running mail server. */
export interface Services extends AsyncDisposable {
  port(name: string): number;
}

export interface MailServer {
  readonly name: "Postfix" | "Sendmail";
  readonly tool: OutsideTool;
  startSite(filters: SiteFilters): Promise<MailSite>;
  /** The mail server alone, with a service for each address of a filter, as pmilter says it. */
  startServices(
    services: readonly { readonly name: string; readonly milters: string }[],
    sinkPort: number,
  ): Promise<Services>;
  /** The queue id in the reply to an accepted message. */
  queueIdOf(reply: { readonly text: string }): string;
  /** The fields that the mail server puts in front of a message itself, as {@link fieldsOf} names them. */
  readonly ownFields: readonly string[];
  /** Header fields; the mail server's own are words in capitals. */
  fieldsOf(message: SinkMessage): string[];
  /** The message without the fields that the mail server put in front. */
  withoutOwn(text: string): string;
  /** What MAIL or RCPT with this address gets when the filter rejects it without a text. */
  rejected(address: string): string;
  /** The same at the end of a message. */
  readonly rejectedAtEnd: string;
  /** When a filter wants the client to come again, without a text. */
  readonly tryLater: string;
  /** The end of a message that is accepted, with ID for its queue id; see `said`. */
  readonly accepted: string;
  /** Instead of a greeting, to a client that a filter refused at connect. */
  readonly noGreeting: string;
  /** Instead of a greeting, when the connection is closed with 421. */
  readonly closing: string;
  /** To the command FROBNICATE. */
  readonly unrecognized: string;
}

const POSTFIX: MailServer = {
  name: "Postfix",
  tool: postfixTool,
  startSite: (filters) => startPostfixSite({ filters }),
  startServices: (services, sinkPort) =>
    startPostfix({
      sinkPort,
      services: services.map(({ name, milters }) => ({ name, milters: milters.replace(/^inet6:/, "inet:") })),
    }),
  queueIdOf: postfixQueueId,
  ownFields: ["RECEIVED"],
  fieldsOf: postfixFields,
  withoutOwn: withoutReceived,
  rejected: () => "550 5.7.1 Command rejected",
  rejectedAtEnd: "550 5.7.1 Command rejected",
  tryLater: "451 4.7.1 Service unavailable - try again later",
  accepted: "250 2.0.0 Ok: queued",
  noGreeting: "554 mx.example.test ESMTP not accepting connections",
  closing: "421 mx.example.test Service unavailable - try again later",
  unrecognized: "500 5.5.2 Error: command not recognized",
};

const SENDMAIL: MailServer = {
  name: "Sendmail",
  tool: sendmailTool,
  startSite: (filters) => startSendmailSite({ filters }),
  startServices: (services, sinkPort) => startSendmail({ sinkPort, services }),
  queueIdOf: sendmailQueueId,
  ownFields: OWN_FIELDS,
  fieldsOf: sendmailFields,
  withoutOwn,
  rejected: (address) => `550 5.7.1 <${address}>... Command rejected`,
  rejectedAtEnd: REJECTED_AT_END,
  tryLater: TRY_LATER,
  accepted: "250 2.0.0 ID Message accepted for delivery",
  noGreeting: NO_GREETING,
  closing: "421 4.7.0 mx.example.test closing connection",
  unrecognized: '500 5.5.1 Command unrecognized: "FROBNICATE"',
};

/** `describe` once for each mail server: the suite is skipped, or fails in CI, where it is not installed. */
export function describeBehindEach(name: string, body: (server: MailServer) => void): void {
  for (const server of [POSTFIX, SENDMAIL])
    describeWith(server.tool, `${name}, behind ${server.name}`, () => body(server));
}
