/**
 * `MilterClient`: the mail server's side of a milter connection, with the habits of Postfix or Sendmail. It sends, waits and
 * judges replies as that server would. It is no SMTP server: its caller gives it the events, phase by phase or as a whole
 * message (`send`).
 */
import { EMPTY } from "../protocol/bytes.ts";
import { CommandWriter } from "../protocol/commands.ts";
import { MAX_REPLY_PAYLOAD, PROTOCOL } from "../protocol/constants.ts";
import { PHASES } from "../protocol/phases.ts";
import type { FinalReply, ModificationReply } from "../protocol/replies.ts";
import { type ClientInfo, type ConnectionFacts, connectionFacts, FAMILY_BYTE } from "./address.ts";
import type { ClientOptions, EomReply, EventClient, EventReply, NoReply, Refusal } from "./client-types.ts";
import { Exchange } from "./exchange.ts";
import { ClientUsageError } from "./errors.ts";
import { defaultOffer, type EventPhase, type Habit, isMacroStage, type Offer, PHASE_COMMAND } from "./habits.ts";
import { MacroBook, macroName, type Macros } from "./macros.ts";
import { judgeAnswer, type Negotiated } from "./negotiation.ts";
import { describeModifications, type Outcome } from "./outcome.ts";
import { ReplyReader } from "./reply-reader.ts";
import { type Mail, sendMail } from "./send.ts";
import { connectTransport, type FilterAddress, type Transport } from "./transport.ts";

const NOT_SENT: NoReply = { kind: "none", sent: false };
const NOT_ANSWERED: NoReply = { kind: "none", sent: true };
const DEFAULT_TIMEOUT_MS = 10_000;
/** So much is gathered before it is written where nothing waits for a reply. */
const PIPELINE_BYTES = 65_536;

/**
 * A milter connection, seen from the mail server. Await each call before the next. A failure (a reply that is not legal, a
 * timeout, a lost connection) closes the connection, and every later call throws it again.
 *
 * Each event gives the filter's final reply, or {@link NoReply}. All may throw
 * - ProtocolError PMILTER_ERR_REPLY: a reply that the mail server does not take there, that no call waits for, or that was
 *   not negotiated (real servers are more lenient in this last point);
 * - ConversationError PMILTER_ERR_TIMEOUT, PMILTER_ERR_CLOSED, naming the phase and the expected reply;
 * - ClientUsageError PMILTER_ERR_USAGE: a call out of order.
 *
 * @example
 * const client = await MilterClient.connect("unix:/run/pmilter.sock", { as: "postfix" });
 * await client.negotiate();
 * await client.connect({ address: "192.0.2.7", hostname: "mx.example.net" });
 * const reply = await client.helo("mx.example.net"); // { kind: "continue" }
 * await client.quit();
 */
export class MilterClient implements EventClient {
  readonly habit: Habit;
  readonly #exchange: Exchange;
  readonly #offer: Offer;
  readonly #writer = new CommandWriter(4096);
  readonly #book: MacroBook;
  #reader: ReplyReader | undefined;
  #negotiated: Negotiated | undefined;
  #busy: string | undefined;
  /** Macros given by hand for the next event of a phase. */
  #byHand = new Map<EventPhase, Macros>();
  /** Commands without a reply are gathered, not sent each. */
  #isPipelining = false;
  #facts: ConnectionFacts | undefined;
  #heloName: string | undefined;
  /** The filter's final word on the connection; no event follows. */
  #connectionVerdict: FinalReply | undefined;
  /** MAIL was sent, and no ABORT since: then Postfix sends ABORT at the end. */
  #inTransaction = false;
  /** MAIL was sent, and the filter has not ended its part: then Sendmail sends ABORT at the end. */
  #isOpen = false;
  #skipped: EventPhase | undefined;
  #messages = 0;
  readonly #idPrefix = Math.floor(Math.random() * 0x10000000)
    .toString(16)
    .padStart(7, "0")
    .toUpperCase();

  private constructor(conversation: Exchange, options: ClientOptions) {
    this.habit = options.as;
    this.#exchange = conversation;
    this.#offer = { ...defaultOffer(options.offer?.version ?? 6), ...options.offer };
    this.#book = new MacroBook(options.as);
    this.#book.own = options.macros ?? {};
  }

  /**
   * Connects to a filter's socket. Nothing is sent yet.
   * @param address as `server.listen` writes it, or `{ kind: "unix", path }`, `{ kind: "tcp", host, port }`
   * @throws ConversationError PMILTER_ERR_CONNECT; AddressError PMILTER_ERR_ADDRESS
   */
  static async connect(address: FilterAddress, options: ClientOptions): Promise<MilterClient> {
    return MilterClient.over(await connectTransport(address, options.timeoutMs ?? DEFAULT_TIMEOUT_MS), options);
  }

  /** A client over a transport that is open already, such as a filter in memory. */
  static over(transport: Transport, options: ClientOptions): MilterClient {
    return new MilterClient(new Exchange(transport, options.timeoutMs ?? DEFAULT_TIMEOUT_MS), options);
  }

  /** The negotiated options; undefined before the negotiation. */
  get negotiated(): Negotiated | undefined {
    return this.#negotiated;
  }

  /** PROGRESS packets received so far, by phase. */
  get progress(): ReadonlyMap<EventPhase, number> {
    return this.#reader?.progress ?? new Map();
  }

  /** The SMTP client that CONNECT reported last. */
  get connection(): ConnectionFacts | undefined {
    return this.#facts;
  }

  /** The name of the last HELO. */
  get heloName(): string | undefined {
    return this.#heloName;
  }

  /** The reply with which the filter ended the whole connection, if it did. */
  get connectionVerdict(): FinalReply | undefined {
    return this.#connectionVerdict;
  }

  /** True once the socket is closed, by whom ever. */
  get isClosed(): boolean {
    return this.#exchange.isClosed;
  }

  /**
   * Macros from now on, in place of those given before. Each overrides the derived value at every stage that lists it. A
   * macro that no stage lists is sent at the first stage that could have it (TLS names with HELO, `{auth_…}` and `{mail_…}`
   * with MAIL, `{rcpt_…}` with RCPT, any other name with CONNECT, or with the next MAIL after CONNECT). Postfix has no `i`
   * before the first accepted recipient: a given value is not sent earlier.
   */
  set macros(macros: Macros) {
    this.#book.own = macros;
  }

  /** Sends OPTNEG and judges the answer; once, before anything else. */
  async negotiate(): Promise<Negotiated> {
    if (this.#negotiated !== undefined) throw new ClientUsageError("negotiate: the options are negotiated already");
    return await this.#exclusive("negotiate", async () => {
      const offer = this.#offer;
      this.#writer.optneg(offer.version, offer.actions, offer.protocol);
      this.#exchange.ask(this.#writer);
      const answer = await this.#exchange.next("negotiate", "OPTNEG");
      if (answer.kind !== "optneg") throw this.#exchange.violation(`negotiate: reply ${answer.kind}, expected OPTNEG`);
      const judged = judgeAnswer(this.habit, offer, answer);
      if (typeof judged === "string") throw this.#exchange.violation(`negotiate: the filter answered ${judged}`);
      this.#exchange.settle("negotiate");
      this.#book.lists = judged.macros;
      this.#reader = new ReplyReader(this.#exchange, this.habit, judged);
      this.#negotiated = judged;
      return judged;
    });
  }

  /**
   * Sets the macros of the next event of `phase` by hand: exactly these, in this order, whatever the habit. Their MACRO is
   * sent in the same write as the event, also where the habit would send none.
   */
  macro(phase: EventPhase, macros: Macros): void {
    this.#byHand.set(phase, macros);
  }

  async connect(client: ClientInfo = {}): Promise<EventReply> {
    const facts = connectionFacts(client, this.habit);
    return await this.#exclusive("connect", async () => {
      this.#facts = facts;
      this.#book.connected(facts);
      const { hostname, family, port, address } = facts;
      return await this.#event("connect", () => this.#writer.connect(hostname, FAMILY_BYTE[family], port, address));
    });
  }

  async helo(hostname: string): Promise<EventReply> {
    return await this.#exclusive("helo", async () => {
      this.#endTransaction();
      this.#heloName = hostname;
      return await this.#event("helo", () => this.#writer.helo(hostname));
    });
  }

  /** Begins a message. @param sender as it goes over the wire, brackets included */
  async envfrom(sender: string, params: readonly string[] = []): Promise<EventReply> {
    return await this.#exclusive("envfrom", async () => {
      this.#endTransaction();
      if (this.#connectionVerdict !== undefined) return NOT_SENT;
      this.#inTransaction = true;
      this.#isOpen = true;
      this.#skipped = undefined;
      this.#messages += 1;
      this.#book.mail(sender, this.habit === "sendmail" ? this.#queueId() : undefined);
      return await this.#event("envfrom", () => this.#writer.mail(sender, params));
    });
  }

  /**
   * @param recipient as it goes over the wire, brackets included
   * @param refusal given if the mail server refuses the recipient itself; then it is sent only with RCPT_REJ
   */
  async envrcpt(recipient: string, params: readonly string[] = [], refusal?: Refusal): Promise<EventReply> {
    return await this.#exclusive("envrcpt", async () => {
      if (refusal !== undefined && !this.#has(PROTOCOL.RCPT_REJ)) return NOT_SENT;
      this.#book.rcpt(recipient);
      if (refusal !== undefined) this.#book.rejectedRcpt(refusal.status, refusal.text);
      const reply = await this.#event("envrcpt", () => this.#writer.rcpt(recipient, params));
      const isAccepted = reply.kind === "continue" || reply.kind === "none" || reply.kind === "skip";
      if (isAccepted && refusal === undefined) this.#book.queueId ??= this.#queueId();
      return reply;
    });
  }

  async data(): Promise<EventReply> {
    return await this.#exclusive("data", () => this.#event("data", () => this.#writer.data()));
  }

  /**
   * @param value the text after the colon, leading space included, continuation lines after LF; without HDR_LEADSPC a single
   *   leading space is removed before it is sent
   */
  async header(name: string, value: string): Promise<EventReply> {
    return await this.#exclusive("header", () => {
      if (name.toLowerCase() === "message-id") this.#book.messageId(value);
      const leads = this.#negotiated?.leadingSpace === true;
      const sent = !leads && value.startsWith(" ") ? value.slice(1) : value;
      return this.#event("header", () => this.#writer.header(name, sent));
    });
  }

  async eoh(): Promise<EventReply> {
    return await this.#exclusive("eoh", () => this.#event("eoh", () => this.#writer.eoh()));
  }

  /**
   * Sends a body, or a piece of a body, in chunks of 65535 bytes; an empty body is not sent. Returns the reply to the last
   * chunk that was sent.
   * @param body with CRLF line ends
   */
  async body(body: Uint8Array): Promise<EventReply> {
    return await this.#exclusive("body", async () => {
      let reply: EventReply = NOT_SENT;
      for (let start = 0; start < body.length; start += MAX_REPLY_PAYLOAD) {
        const chunk = body.subarray(start, start + MAX_REPLY_PAYLOAD);
        const next = await this.#event("body", () => this.#writer.body(chunk));
        if (next === NOT_SENT) break;
        reply = next;
      }
      return reply;
    });
  }

  /**
   * Ends the message: BODYEOB, and with Postfix's habits an ABORT after the reply.
   * @param lastPiece a last piece of body, as some other servers send it here; neither Postfix nor Sendmail does
   */
  async eom(lastPiece: Uint8Array = EMPTY): Promise<EomReply> {
    return await this.#exclusive("eom", async () => {
      const received: ModificationReply[] = [];
      const reply = await this.#event("eom", () => this.#writer.bodyeob(lastPiece), received);
      this.#isOpen = false;
      this.#endTransaction();
      this.#flush();
      return { ...reply, modifications: describeModifications(received, this.#negotiated!.leadingSpace), received };
    });
  }

  /** Reports an SMTP command line that the mail server does not know. */
  async unknown(line: string): Promise<EventReply> {
    return await this.#exclusive("unknown", () => this.#event("unknown", () => this.#writer.unknown(line)));
  }

  /** Ends the message, if the habit sends an ABORT there: Postfix after any MAIL, Sendmail while the message is open. */
  async abort(): Promise<NoReply> {
    return await this.#exclusive("abort", () => {
      const isSent = this.#endTransaction();
      this.#flush();
      return Promise.resolve(isSent ? NOT_ANSWERED : NOT_SENT);
    });
  }

  /** Ends the SMTP session, but not the connection: `connect` follows. Neither Postfix nor Sendmail does this. */
  async quitNc(): Promise<NoReply> {
    return await this.#exclusive("quitNc", () => {
      this.#endTransaction();
      this.#writer.quitNc();
      this.#flush();
      this.#connectionVerdict = undefined;
      this.#facts = undefined;
      this.#heloName = undefined;
      this.#book.queueId = undefined;
      return Promise.resolve(NOT_ANSWERED);
    });
  }

  /**
   * Sends QUIT, closes, and waits until the connection is closed. After a failure, or once the connection is closed,
   * it does nothing: so it may stand in a `finally`.
   * @throws only a failure that no call has thrown yet, such as a reply that nothing waited for
   */
  async quit(): Promise<void> {
    if (!this.#exchange.isClosed && !this.#exchange.hasFailed && this.#busy === undefined) {
      this.#endTransaction();
      this.#writer.quit();
      this.#flush();
    }
    await this.#exchange.close();
    this.#exchange.checkUnreported();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.quit();
  }

  /**
   * Sends a whole message and returns its outcome. Negotiates, connects and greets first where that has not been done, or is
   * different for this message (another client: QUIT_NC and CONNECT). May be called for several messages.
   */
  async send(mail: Mail): Promise<Outcome> {
    this.#isPipelining = true;
    try {
      return await sendMail(this, mail);
    } finally {
      this.#isPipelining = false;
      if (!this.#exchange.hasFailed) this.#flush();
    }
  }

  /**
   * Sends bytes as they are, for tests of how a filter treats odd input. The caller has to know their effect on the session.
   */
  write(bytes: Uint8Array): void {
    this.#exchange.check("write");
    this.#writer.bytes(bytes);
    this.#flush();
  }

  async #exclusive<T>(call: string, run: () => Promise<T>): Promise<T> {
    if (this.#busy !== undefined) throw new ClientUsageError(`${call}: called before ${this.#busy} was done`);
    if (this.#negotiated === undefined && call !== "negotiate") throw new ClientUsageError(`${call}: negotiate first`);
    this.#exchange.checkFailure();
    this.#busy = call;
    try {
      return await run();
    } finally {
      this.#busy = undefined;
    }
  }

  #has(flag: number): boolean {
    return (this.#negotiated!.protocol & flag) !== 0;
  }

  #queueId(): string {
    const count = this.#messages.toString(16).toUpperCase();
    return this.#idPrefix + count.padStart(this.habit === "postfix" ? 4 : 7, "0");
  }

  /** Sends an event as the habit does: its macros, the command unless it is switched off, and the wait for the reply. */
  async #event(phase: EventPhase, write: () => void, received?: ModificationReply[]): Promise<EventReply> {
    if (this.#connectionVerdict !== undefined) return NOT_SENT;
    if (isOfMessage(phase) && !this.#isOpen) return NOT_SENT;
    if (this.#skipped === phase) return NOT_SENT;
    // Postfix: a skipped kind of event comes again once another is due. Sendmail skips the rest of the body.
    this.#skipped = undefined;
    this.#exchange.check(phase);
    const { no, nr } = PHASES[phase];
    const isOff = no !== 0 && this.#has(no);
    this.#writeMacros(phase, isOff);
    if (isOff) {
      if (!this.#isPipelining) this.#flush();
      return NOT_SENT;
    }
    write();
    if (nr !== 0 && this.#has(nr)) {
      if (!this.#isPipelining || this.#writer.length >= PIPELINE_BYTES) this.#flush();
      return NOT_ANSWERED;
    }
    this.#exchange.ask(this.#writer);
    const reply = await this.#reader!.read(phase, received);
    this.#apply(phase, reply);
    return reply;
  }

  #writeMacros(phase: EventPhase, isOff: boolean): void {
    const byHand = this.#byHand.get(phase);
    if (byHand !== undefined) {
      this.#byHand.delete(phase);
      this.#writer.macro(
        PHASE_COMMAND[phase],
        Object.entries(byHand).map(([name, value]) => [macroName(name), value]),
      );
      return;
    }
    const pairs = isMacroStage(phase) ? this.#book.at(phase) : [];
    if (this.habit === "postfix") {
      // The cleanup daemon, which sends the content, leaves both away where an event is switched off.
      if (isOff && PHASES[phase].content) return;
    } else if (!isMacroStage(phase) || (this.#book.lists[phase].length === 0 && pairs.length === 0)) {
      return;
    }
    this.#writer.macro(PHASE_COMMAND[phase], pairs);
  }

  /** Applies a final reply to the connection and the message. */
  #apply(phase: EventPhase, reply: FinalReply): void {
    if (reply.kind === "skip") {
      this.#skipped = phase;
      return;
    }
    if (reply.kind === "continue") return;
    const isRefusal = reply.kind !== "accept" && reply.kind !== "discard";
    if (phase === "connect" || phase === "helo") {
      this.#connectionVerdict = reply;
      // Postfix closes here without a QUIT.
      if (this.habit === "postfix") void this.#exchange.close();
      return;
    }
    // 421 ends the SMTP session, and with it all that the filter could be told.
    if (reply.kind === "replycode" && reply.code === 421) this.#connectionVerdict = reply;
    const isOfOneCommand = phase === "envrcpt" || phase === "unknown";
    if (!(isOfOneCommand && isRefusal)) this.#isOpen = false;
  }

  /** Writes the ABORT that the habit has at the end of a transaction; returns whether it wrote it. */
  #endTransaction(): boolean {
    const isDue = this.habit === "postfix" ? this.#inTransaction : this.#isOpen;
    if (isDue) this.#writer.abort();
    this.#inTransaction = false;
    this.#isOpen = false;
    this.#book.queueId = undefined;
    return isDue;
  }

  #flush(): void {
    this.#exchange.flush(this.#writer);
  }
}

/** Events that exist only between MAIL and the end of the message. */
function isOfMessage(phase: EventPhase): boolean {
  return phase !== "connect" && phase !== "helo" && phase !== "unknown";
}
