/** What sites with either mail server have in common: pmilter processes, a mail server that asks them, a sink. */
import { type Pmilter, type PmilterOptions, startPmilter } from "../support/pmilter.ts";
import {
  connectSmtp,
  type Reply,
  sendMail,
  type SendMailOptions,
  type SendMailResult,
  type SmtpClient,
} from "../support/smtp-client.ts";
import { type SinkMessage, type SmtpSink, startSmtpSink } from "../support/smtp-sink.ts";

export const FROM = "alice@example.test";
export const TO = "bob@example.org";
export const MESSAGE = "Subject: hello\r\nFrom: <alice@example.test>\r\n\r\nbody\r\n";

/** By name: each is a pmilter of its own, and the mail server has a service of that name that asks it alone. */
export type SiteFilters = Readonly<Record<string, PmilterOptions>>;

export interface MailOptions extends Partial<Omit<SendMailOptions, "port" | "xclient">> {
  /** The filter of this name is asked; default: the first. "smtp" asks none. */
  readonly service?: string;
  /** The behaviour: the client's host name is `AS.client.test`. */
  readonly as?: string;
}

export interface ConnectOptions {
  readonly service?: string;
  /** Default true; false leaves EHLO to the caller. */
  readonly helo?: boolean;
}

/** How a client comes to a service: where it connects to, and what it says it is. */
export type Route = Pick<SendMailOptions, "port" | "xclient">;

/** What a mail server keeps instead of delivering it. */
export interface KeptMessage {
  /** "" is the null sender. */
  readonly sender: string;
  readonly recipients: readonly string[];
  /** Headers, the mail server's own among them, and body, with LF lines, one character per byte. */
  readonly content: string;
  /** Why it is kept, where the mail server remembers that. */
  readonly quarantine?: string | undefined;
}

export interface SiteParts {
  readonly sink: SmtpSink;
  readonly pmilters: ReadonlyMap<string, Pmilter>;
  readonly owned: AsyncDisposableStack;
}

/** Starts all of it. `startServer` gets the addresses of the filters by name, and the port that takes the mail. */
export async function buildSite<Server extends AsyncDisposable, S>(
  filters: SiteFilters,
  startServer: (milters: Readonly<Record<string, string>>, sinkPort: number) => Promise<Server>,
  make: (server: Server, parts: SiteParts) => S,
): Promise<S> {
  await using stack = new AsyncDisposableStack();
  const sink = stack.use(await startSmtpSink());
  const started = await Promise.all(
    Object.entries(filters).map(async ([name, options]) => [name, await startPmilter(options)] as const),
  );
  for (const [, pmilter] of started) stack.use(pmilter);
  const milters = Object.fromEntries(started.map(([name, pmilter]) => [name, pmilter.addresses[0]!]));
  const server = stack.use(await startServer(milters, sink.port));
  return make(server, { sink, pmilters: new Map(started), owned: stack.move() });
}

export abstract class MailSite implements AsyncDisposable {
  readonly sink: SmtpSink;
  readonly #pmilters: ReadonlyMap<string, Pmilter>;
  readonly #owned: AsyncDisposableStack;

  constructor({ sink, pmilters, owned }: SiteParts) {
    this.sink = sink;
    this.#pmilters = pmilters;
    this.#owned = owned;
  }

  /** For a client of that behaviour; without one, for any. */
  protected abstract route(as: string | undefined, service: string | undefined): Route | Promise<Route>;
  /** What the sink got of the message that this reply accepted. */
  abstract delivered(reply: Reply): SinkMessage | Promise<SinkMessage>;
  /** The ids of what has been taken and not delivered. */
  abstract queueIds(): Promise<string[]>;
  abstract kept(queueId: string): Promise<KeptMessage>;

  /** The name of the first filter. */
  protected get first(): string {
    return this.#pmilters.keys().next().value!;
  }

  pmilter(name = this.first): Pmilter {
    return this.#pmilters.get(name)!;
  }

  /** A connection of a client of that behaviour. */
  async connect(as?: string, { service, helo = true }: ConnectOptions = {}): Promise<SmtpClient> {
    const { port, xclient } = await this.route(as, service);
    const client = await connectSmtp({ port });
    if (xclient !== undefined) {
      await client.ehlo("first.test");
      await client.xclient(xclient);
    }
    if (helo) await client.ehlo("a.test");
    return client;
  }

  /** One message on one connection, up to the step that is refused. */
  async send({ service, as, ...options }: MailOptions = {}): Promise<SendMailResult> {
    return await sendMail({ from: FROM, to: TO, message: MESSAGE, ...options, ...(await this.route(as, service)) });
  }

  /** The same as `send` for a message that must be accepted: what the sink got of it. */
  async deliver(options: MailOptions = {}): Promise<SinkMessage> {
    const { last } = await this.send(options);
    return await this.delivered(last);
  }

  /** What the sink got so far with this queue id in the mail server's Received header. */
  deliveriesOf(queueId: string): SinkMessage[] {
    return this.sink.messages.filter(({ text }) => new RegExp(`^\\tby mx\\.\\S+ .* id ${queueId}\\b`, "m").test(text));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}
