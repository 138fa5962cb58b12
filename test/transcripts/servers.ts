/** A real Postfix and a real Sendmail for transcripts: one of each, which ask whoever listens on a socket. */
import {
  parts,
  Site as PostfixSite,
  startSite as startPostfixSite,
  fieldsOf as postfixFields,
} from "../integration/support.ts";
import {
  fieldsOf as sendmailFields,
  OWN_FIELDS,
  type Site as SendmailSite,
  startSite as startSendmailSite,
} from "../sendmail/support.ts";
import { queueIdOf as postfixQueueId } from "../support/postfix.ts";
import { queueIdOf as sendmailQueueId } from "../support/sendmail.ts";
import { connectSmtp, type Reply, type SmtpClient } from "../support/smtp-client.ts";
import type { SinkMessage } from "../support/smtp-sink.ts";
import { waitFor } from "../support/temp.ts";
import { type MailServer, messageLines } from "./play-smtp.ts";
import type { Fate } from "./transcript.ts";

/** A mail server that is ended when it is disposed of, and knows what it should not have delivered. */
export interface StartedServer extends MailServer, AsyncDisposable {
  /** Throws if it has delivered what became of nothing. */
  checkUndelivered(): Promise<void>;
}

function bracketed(address: string): string {
  return `<${address}>`;
}

/** What the sink got of one message, in however many deliveries. */
function delivered(found: readonly SinkMessage[], message: readonly string[]): Fate {
  return {
    kind: "delivered",
    from: bracketed(found[0]!.from),
    to: found.flatMap(({ to }) => to.map(({ address }) => bracketed(address))),
    message,
  };
}

export async function startPostfix(address: string): Promise<StartedServer> {
  return new PostfixServer(await startPostfixSite({ filters: {}, postfix: () => ({ milters: address }) }));
}

class PostfixServer implements StartedServer {
  readonly habit = "postfix";
  readonly #site: PostfixSite;
  readonly #nothing: string[] = [];

  constructor(site: PostfixSite) {
    this.#site = site;
  }

  async connect(name: string, address: string): Promise<{ client: SmtpClient; greeting: Reply }> {
    const client = await connectSmtp({ port: this.#site.port("smtp") });
    await client.ehlo("transcripts.test");
    return { client, greeting: await client.xclient({ name, addr: address }) };
  }

  async fate(reply: Reply, kind: Fate["kind"]): Promise<Fate> {
    const id = postfixQueueId(reply);
    if (kind === "nothing") {
      this.#nothing.push(id);
      return { kind };
    }
    if (kind === "held") {
      const { sender, recipients, content } = await this.#site.postfix.heldMessage(id);
      const text = utf8(content).replaceAll("\n", "\r\n");
      return { kind, from: bracketed(sender), to: recipients.map(bracketed), message: lines(text, postfixFields) };
    }
    const message = await this.#site.delivered(reply);
    return delivered(this.#site.deliveriesOf(id), lines(utf8(message.text), postfixFields));
  }

  async checkUndelivered(): Promise<void> {
    const { postfix } = this.#site;
    await waitFor(async () => (await postfix.queue()).every(({ queue }) => queue === "hold"), {
      what: "the queue to be empty but for held messages",
    });
    checkNone(this.#nothing, (id) => this.#site.deliveriesOf(id).length);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#site[Symbol.asyncDispose]();
  }
}

export async function startSendmail(address: string): Promise<StartedServer> {
  return new SendmailServer(
    await startSendmailSite({ filters: {}, sendmail: () => ({ milters: { address, failure: "T" } }) }),
  );
}

class SendmailServer implements StartedServer {
  readonly habit = "sendmail";
  readonly #site: SendmailSite;
  readonly #nothing: string[] = [];

  constructor(site: SendmailSite) {
    this.#site = site;
  }

  /** The address is one of the loopback network's. */
  async connect(name: string): Promise<{ client: SmtpClient; greeting: Reply }> {
    const client = await connectSmtp({ port: await this.#site.sendmail.portFor(name) });
    return { client, greeting: client.greeting };
  }

  async fate(reply: Reply, kind: Fate["kind"]): Promise<Fate> {
    const id = sendmailQueueId(reply);
    if (kind === "nothing") {
      this.#nothing.push(id);
      return { kind };
    }
    if (kind === "held") {
      const { sender, recipients, headers, body, quarantine } = await this.#site.sendmail.queued(id);
      if (quarantine === undefined) throw new Error(`${id} is in the queue, but not held`);
      const text = utf8(`${headers.join("\n")}\n\n${body}`).replaceAll("\n", "\r\n");
      return { kind, from: bracketed(sender), to: recipients.map(bracketed), message: lines(text, sendmailFields) };
    }
    const message = this.#site.delivered(reply);
    return delivered(this.#site.deliveriesOf(id), lines(utf8(message.text), sendmailFields));
  }

  checkUndelivered(): Promise<void> {
    checkNone(this.#nothing, (id) => this.#site.deliveriesOf(id).length);
    return Promise.resolve();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#site[Symbol.asyncDispose]();
  }
}

function checkNone(ids: readonly string[], deliveries: (id: string) => number): void {
  for (const id of ids) if (deliveries(id) > 0) throw new Error(`${id} was delivered`);
}

function isOwn(field: string): boolean {
  return OWN_FIELDS.includes(field) || /^From: [^<>]*$/.test(field);
}

function utf8(text: string): string {
  return Buffer.from(text, "latin1").toString("utf8");
}

/** The lines of a message, without the fields that a server made itself; Sendmail makes a From where there is none. */
function lines(text: string, fieldsOf: (message: { readonly text: string }) => string[]): string[] {
  return messageLines(
    fieldsOf({ text }).filter((field) => !isOwn(field)),
    parts(text).body,
  );
}
