/**
 * One milter connection: takes the events of its session, runs the handlers of the chain, and decides. It knows no
 * socket and no clock but those of its host, so the server, the testing kit and the tests run the same code.
 *
 * Synchronous handlers cost no promise and no timer. A handler that returns a promise suspends the conversation: no
 * further event is taken until it settles or its time is over.
 */
import { decodeText } from "../protocol/bytes.ts";
import type { WorkerCounter } from "../counters.ts";
import { ACTION } from "../protocol/constants.ts";
import { PLAIN_REPLIES, plainCodeOf, type ReplyWriter } from "../protocol/encode.ts";
import { isOfMessage, type Phase, type PhaseInfo, PHASES } from "../protocol/phases.ts";
import type { Client } from "../protocol/client.ts";
import { VERDICTS } from "../protocol/verdicts.ts";
import { type EventPhase, MilterSession, type Resumption } from "../protocol/session.ts";
import type { Chain, ChainFilter, ChainStep } from "./chain.ts";
import type { FilterChanges } from "./message/changes.ts";
import type { Fallback } from "./fallback.ts";
import { FilterPart, type SessionSource } from "./filter-session.ts";
import { PhaseValues, takeIn } from "./intake.ts";
import { ReceivedMessage } from "./message/received.ts";
import { type Clock, PhaseDeadline } from "./phase-deadline.ts";
import type { Report, Subject } from "./report.ts";
import { Reporter, type ReportSource, type AppliedVerdict } from "./reporter.ts";
import { sendChanges } from "./message/send-changes.ts";
import type { Address } from "./types.ts";
import { UnreturnedVerdicts } from "./unreturned.ts";
import { type Decision, made, plainDecision, textDecision, verdictIn } from "./verdict.ts";

/** What a conversation needs from whoever owns its socket. */
export interface ConversationHost extends Clock {
  /** A handler that suspended the conversation is through: call `pump`, then send what the writer holds. */
  resume(): void;
  /** Send what the writer holds: progress, while a handler works. */
  flush(): void;
  /** A mistake of ours, outside of `pump` and `hangUp`: the connection has to be ended. It must not throw. */
  failed(error: unknown): void;
  report(report: Report): void;
  /** Something happened that is counted. */
  count(counter: WorkerCounter): void;
  /** A handler is about to be called. */
  calling(phase: EventPhase, filter: ChainFilter): void;
  /**
   * The handler that was called is awaited: others run meanwhile.
   * @param alreadyMs what was waited for this phase elsewhere; null if another handler of it was awaited here before
   */
  suspended(alreadyMs: number | null): void;
  /** Asked before each event: the writer holds enough to be sent, or others are to have their turn. */
  readonly isTurnOver: boolean;
  /** Whether reports of messages that all filters let pass are wanted: they are most of them. */
  readonly reportsAccepted: boolean;
  /** When what is being worked on came, on the clock of `now`. */
  readonly arrivedAt: number;
}

const ACCEPT = plainDecision("accept");
const FALLBACK_DECISIONS: Readonly<Record<Exclude<Fallback, "continue">, Decision>> = {
  accept: ACCEPT,
  reject: plainDecision("reject"),
  tempfail: plainDecision("tempfail"),
};

/** For a message whose body is larger than `limits.body`: RFC 5321 4.2.2, RFC 3463 3.4. */
const TOO_LARGE = textDecision("reject", "552 5.3.4 Message too big");

/** A filter that is left out when the packets that began a session are replayed: it failed in them, or its part is over. */
export interface SkippedFilter {
  /** Its index. */
  readonly filter: number;
  /** Its part in the connection is over, as after `accept()`. */
  readonly isOver: boolean;
}

const NOBODY: readonly SkippedFilter[] = [];

/** A handler that is awaited. */
interface Waiting {
  readonly index: number;
  readonly part: FilterPart;
  readonly phase: EventPhase;
  /** What it made before it was awaited, if it gives no other; null if it made none. */
  readonly unreturned: Decision | null;
  /** Who and what it was about, once it is waited for no longer: what it still says is about that. */
  subject: Subject | null;
}

export class Conversation implements SessionSource, ReportSource {
  readonly session: MilterSession;
  readonly #chain: Chain;
  readonly #writer: ReplyWriter;
  readonly #host: ConversationHost;
  /** By filter index; made when a filter is first called. */
  #parts: (FilterPart | undefined)[];

  message: ReceivedMessage | null = null;
  helo = "";
  addedHeaders = 0;
  #event: EventPhase = PHASES.connect;
  readonly #values = new PhaseValues();

  /** Some filter said `accept`, so there may be nothing left for anyone. */
  #someAccepted = false;
  /** Postfix made this session up for local mail: a recipient cannot be refused in it. */
  #isSimulated = false;
  /** The recipient at hand was rejected by the mail server itself. */
  #isRejectedRecipient = false;
  /** Found when somebody first asks. */
  #isSendmail: boolean | null = null;
  /** The recipient at hand is not kept past its phase: it was rejected, or is one too many. */
  #isPassingRecipient = false;
  /** The verdict on the message, where it could not be given when it was found. */
  #deferred: AppliedVerdict | null = null;
  #waiting: Waiting | null = null;
  /** Made when a handler is first awaited. */
  #deadline: PhaseDeadline | null = null;
  /** A limit was passed in this message: it is reported once. */
  #overLimit = false;
  /** When its MAIL came; null while none has. */
  #mailAt: number | null = null;
  /** The mail server was told to send no more of the body. */
  #isBodyCut = false;
  /** A fallback has taken the place of a handler that failed in this message, or before the first. */
  #hasFallback = false;
  /** Made when a call did not return the verdict that it had made. */
  #unreturned: UnreturnedVerdicts | null = null;
  #isHungUp = false;
  /** Filters that take no part in replayed packets. */
  #skippedFilters: readonly SkippedFilter[] = NOBODY;
  /** What the mail server has waited elsewhere for the reply that is to be given first. */
  #waitedMs = 0;

  constructor(chain: Chain, writer: ReplyWriter, host: ConversationHost) {
    this.#chain = chain;
    this.#writer = writer;
    this.#host = host;
    this.session = new MilterSession(chain.wants, chain.policy.limits, writer);
    this.#parts = new Array(chain.filters.length);
  }

  /** Goes on with a session that was negotiated and begun elsewhere. Call it before anything is pushed. */
  resume(resumption: Resumption, skippedFilters: readonly SkippedFilter[]): void {
    this.#skippedFilters = skippedFilters;
    this.#waitedMs = resumption.answersContext ? resumption.waitedMs : 0;
    this.session.resume(resumption);
  }

  /** A handler is being awaited: bytes may be pushed, nothing is taken. */
  get isWaiting(): boolean {
    return this.#waiting !== null;
  }

  /** All events are through after {@link hangUp}, or after QUIT: the connection may be closed. */
  get isOver(): boolean {
    return this.#waiting === null && this.session.isOver;
  }

  /** The plain code of a verdict that was found and is still to be given, or to be given again; 0 if there is none. */
  get standing(): number {
    return this.#deferred === null ? this.session.standing : plainCodeOf(this.#deferred.decision.packet);
  }

  /**
   * What lies behind the handler that is awaited, as far as it was read. Content handlers run without a reply; but once the
   * end of the message is read the mail server waits for them too, within the time of `eom`. And while reading is paused
   * before that nobody knows whether it has come, so what is queued has the time of one phase in all (Sendmail waits 10 s).
   */
  foresee(isReadingPaused: boolean): void {
    const deadline = this.#deadline;
    if (this.#waiting === null || deadline === null) return;
    if (!this.#waiting.phase.content || this.session.wantsReply) return;
    const { eomTimeoutMs, handlerTimeoutMs } = this.#chain.policy;
    const { hasEndRead } = this.session;
    if (hasEndRead && deadline.endRead(eomTimeoutMs)) this.#keepProgress(deadline);
    deadline.backlog(isReadingPaused && !hasEndRead ? handlerTimeoutMs : null);
  }

  /** All that was queued has been worked on, and reading goes on. */
  caughtUp(): void {
    this.#deadline?.backlog(null);
  }

  /** No message is open: a stop costs the mail server nothing but a new connection. */
  get isBetweenMessages(): boolean {
    return this.message === null && this.#waiting === null;
  }

  /**
   * Takes events until more bytes are needed, a handler has to be awaited, or the host says that it is enough for now.
   * @returns true in the last case: write, and call it again
   * @throws ProtocolError the peer broke the protocol: hang up
   */
  pump(): boolean {
    while (this.#waiting === null) {
      if (this.#host.isTurnOver && !this.#isHungUp) return true;
      const event = this.#isHungUp ? this.session.hangUp() : this.session.next();
      if (event === null) return false;
      this.#event = event;
      this.#enter(event);
      if (event.scope === "message" && this.isBetweenMessages) this.#letLeave();
    }
    return false;
  }

  /** The connection is gone or about to go: `abort` and `close` handlers run, whatever was awaited is left behind. */
  hangUp(): void {
    if (this.#isHungUp) return;
    this.#isHungUp = true;
    this.#stopWaiting();
    this.pump();
  }

  // What sessions read: see `SessionSource`.
  get client(): Client {
    return this.session.client;
  }
  get macros(): MilterSession["macros"] {
    return this.session.macros;
  }
  get phase(): Phase {
    return this.#event.name;
  }
  get actions(): number {
    return this.session.options.actions;
  }
  get hasHeaders(): boolean {
    return (this.session.options.protocol & PHASES.header.no) === 0;
  }
  /** Postfix says `Postfix 3.7.11`, Sendmail its bare version; what says nothing is taken for neither. */
  get isSendmail(): boolean {
    return (this.#isSendmail ??= /^\d/.test(this.session.macros.get("v") ?? ""));
  }
  get recipientAtHand(): Address | null {
    return this.#event === PHASES.envrcpt ? (this.message?.recipients.at(-1) ?? null) : null;
  }
  get isWhole(): boolean {
    const { protocol } = this.session.options;
    const isSent = (protocol & (PHASES.header.no | PHASES.body.no)) === 0;
    return this.#event === PHASES.eom && isSent && !this.#isBodyCut && this.message?.hasAllHeaders === true;
  }
  get messageMs(): number | null {
    return this.#mailAt === null ? null : Math.max(0, Math.round(this.#host.now() - this.#mailAt));
  }
  changesBefore(filter: { readonly index: number }): FilterChanges[] {
    const layers: FilterChanges[] = [];
    for (let index = 0; index < filter.index; index++) {
      const part = this.#parts[index];
      if (part?.changes && !part.filter.isObserved) layers.push(part.changes);
    }
    return layers;
  }

  allChanges(): FilterChanges[] {
    return this.changesBefore({ index: this.#parts.length });
  }

  get #reporter(): Reporter {
    return new Reporter(this, this.#host);
  }

  /** Takes in what the event brings, and runs its handlers. */
  #enter(phase: EventPhase): void {
    const { session } = this;
    const concernsMessage = isOfMessage(phase);
    if (this.#deferred !== null && concernsMessage) {
      // The verdict is known: it is given as soon as it can be (in a made-up session at eom, where all the message is
      // there). What comes until then no filter sees; the log names it.
      this.#takeUnseen(phase, this.message!);
      const mayAnswer = phase === PHASES.eom || (phase.scope === "message" && !this.#isSimulated);
      if (mayAnswer && session.wantsReply) this.#deliver(this.#deferred);
      else session.proceed();
      return;
    }
    // A mail server that left MAIL out, as it may have been told to, opens the message with what it sends.
    if (concernsMessage) this.message ??= new ReceivedMessage();
    let problem: string | null = null;
    switch (phase) {
      case PHASES.connect:
        // An UNKNOWN command may have come before: a filter's state is empty at connect.
        if (this.#parts.some((part) => part !== undefined)) this.#forgetSession();
        if (session.isReplay) this.#endParts();
        this.#isSimulated = this.#detectSimulated();
        break;
      case PHASES.helo:
        this.helo = decodeText(session.bytes, session.start, session.start + session.firstLength);
        this.#values.text = this.helo;
        break;
      case PHASES.envfrom:
        this.message!.takeSender(session.bytes, session.start, session.end);
        this.#mailAt = this.#host.arrivedAt;
        break;
      case PHASES.eom:
        this.message!.receivedAt = new Date();
        break;
      default:
        if (concernsMessage) {
          problem = takeIn(phase, session, this.message!, this.#chain.policy.limits, this.#chain.collectsBody);
        }
    }
    if (phase === PHASES.envrcpt) {
      this.#isRejectedRecipient = this.#isRejectedByServer();
      this.#isPassingRecipient = this.#isRejectedRecipient || problem !== null;
    }
    if (problem !== null && phase === PHASES.body) {
      if (this.#passBodyLimit(problem)) return;
      problem = null;
    }
    if (session.macrosOverLimit) {
      session.macrosOverLimit = false;
      problem ??= `more than ${this.#chain.policy.limits.macros} bytes of macros (limits.macros)`;
    }
    if (problem !== null && this.#passLimit(phase, problem)) return;
    if (this.#chain.steps[phase.index]!.length > 0) this.#values.read(phase, session, this.message);
    this.#run(phase, 0);
  }

  /** Takes in what no filter sees of a message whose verdict is known. */
  #takeUnseen(phase: EventPhase, message: ReceivedMessage): void {
    const isOver = takeIn(phase, this.session, message, this.#chain.policy.limits, false) !== null;
    if (phase === PHASES.envrcpt && (isOver || this.#isRejectedByServer())) message.dropRecipient();
  }

  /** The recipient at hand is one that the mail server itself rejects. */
  #isRejectedByServer(): boolean {
    return this.#chain.wantsRejected && this.session.macros.get("{rcpt_mailer}") === "error";
  }

  /** Runs the handlers of a phase from the step at `from` on, until one ends it or has to be awaited. */
  #run(phase: EventPhase, from: number): void {
    const steps = this.#chain.steps[phase.index]!;
    for (let index = from; index < steps.length; index++) {
      const step = steps[index]!;
      const part = this.#partOf(step.filter);
      if (!this.#takesPart(part, phase)) continue;
      if (this.session.isReplay && this.#isSkipped(part)) continue;
      this.#host.calling(phase, step.filter);
      let result: unknown;
      let decision: Decision | null = null;
      const { count } = made;
      try {
        result = this.#call(step, part.session, phase);
        if (result === undefined) {
          if (made.count !== count) this.#notReturned(part, phase, made.last);
          continue;
        }
        if (!isPromise(result)) decision = verdictIn(result, phase);
      } catch (error) {
        if (this.#fail(part, phase, "error", error)) return;
        continue;
      }
      if (decision === null) {
        this.#wait(index, part, phase, result, made.count === count ? null : made.last);
        return;
      }
      if (this.#apply(part, phase, decision)) return;
    }
    this.#finish(phase);
  }

  #partOf(filter: ChainFilter): FilterPart {
    return (this.#parts[filter.index] ??= new FilterPart(filter, this));
  }

  /** Filters whose part was over before the session came here. */
  #endParts(): void {
    for (const { filter, isOver } of this.#skippedFilters) {
      if (!isOver) continue;
      this.#partOf(this.#chain.filters[filter]!).done = "connection";
      this.#someAccepted = true;
    }
  }

  #isSkipped(part: FilterPart): boolean {
    return this.#skippedFilters.some(({ filter }) => filter === part.filter.index);
  }

  #takesPart(part: FilterPart, phase: EventPhase): boolean {
    if (phase === PHASES.close) return true;
    // An unknown command is not of the message: whoever has accepted that is asked all the same.
    if (part.done !== "no" && (part.done === "connection" || phase !== PHASES.unknown)) return false;
    if (phase === PHASES.body) return !part.skipsBody;
    return phase !== PHASES.envrcpt || !this.#isRejectedRecipient || part.filter.loaded.rejectedRecipients;
  }

  #call(step: ChainStep, session: unknown, phase: EventPhase): unknown {
    const { handler } = step;
    const { self } = step.filter.loaded;
    const values = this.#values;
    switch (phase.name) {
      case "helo":
      case "unknown":
        return handler.call(self, session, values.text);
      case "envfrom":
      case "envrcpt":
        return handler.call(self, session, values.text, values.params);
      case "header":
        return handler.call(self, session, values.text, values.value);
      case "body":
        return handler.call(self, session, values.chunk!);
      default:
        return handler.call(self, session);
    }
  }

  #notReturned({ filter }: FilterPart, phase: EventPhase, decision: Decision): void {
    this.#unreturned ??= new UnreturnedVerdicts();
    this.#unreturned.add({ filter, phase, decision });
  }

  #reportUnreturned(isSession: boolean): void {
    for (const call of this.#unreturned?.take(isSession) ?? []) {
      this.#host.count("unreturned");
      this.#reporter.unreturned(call);
    }
  }

  /** Applies the verdict of a handler, which its phase has; true if that ends the phase. */
  #apply(part: FilterPart, phase: EventPhase, decision: Decision): boolean {
    this.#unreturned?.returned(decision, part.filter);
    const { origin } = decision;
    const { filter } = part;
    const recipient = this.recipientAtHand;
    return this.#decide({ decision, filter, phase: phase.name, recipient, isFallback: false, origin }, part, phase);
  }

  /** A handler failed: its changes are dropped, and the configured fallback is its verdict. True if that ends the phase. */
  #fail(part: FilterPart, phase: EventPhase, cause: "error" | "timeout", error: unknown): boolean {
    const { filter } = part;
    const decides = phase.verdicts.length > 0 && phase.scope !== "none";
    const fallback = cause === "error" ? filter.onError : filter.onTimeout;
    part.dropChanges();
    this.#reporter.failure(cause, filter, phase, error, decides ? fallback : "none");
    if (decides && !filter.isObserved) this.#countFallback();
    if (!decides || fallback === "continue") return false;
    const decision = FALLBACK_DECISIONS[fallback];
    const recipient = this.recipientAtHand;
    const ruling: AppliedVerdict = { decision, filter, phase: phase.name, recipient, isFallback: true, origin: error };
    return this.#decide(ruling, part, phase);
  }

  /** Applies a verdict that the phase has; true if it ends the phase for all filters. */
  #decide(ruling: AppliedVerdict, part: FilterPart, phase: EventPhase): boolean {
    const { filter } = part;
    const { decision } = ruling;
    const { kind } = decision;
    const ofConnection = phase.scope === "connection";
    const ofRecipient = phase.scope === "recipient" && kind !== "discard";
    // The mail server's own rejection of a recipient stands, whatever a filter says of it (docs/protocol.md,
    // "Rejected recipients").
    if (phase === PHASES.envrcpt && this.#isRejectedRecipient) return false;
    if (kind === "skip") {
      part.skipsBody = true;
      return false;
    }
    if (kind === "accept") {
      part.done = ofConnection ? "connection" : "message";
      this.#someAccepted = true;
      return false;
    }
    if (filter.isObserved) {
      // What it would have ended is over for this filter; a refused recipient or command ends nothing.
      if (phase.scope !== "none" && !ofRecipient) part.done = ofConnection ? "connection" : "message";
      this.#reporter.verdict(ruling, ofConnection ? "connection" : ofRecipient ? "recipient" : "message");
      return false;
    }
    if (ofConnection) {
      this.#refuseConnection(ruling);
      return true;
    }
    if (phase.scope === "none") {
      this.session.answer(decision.packet);
      return true;
    }
    if (ofRecipient && !this.#isSimulated) {
      this.#reporter.verdict(ruling, "recipient");
      this.#count("recipientsRefused", ruling);
      this.session.answer(decision.packet);
      this.message!.dropRecipient();
      this.#letLeave();
      return true;
    }
    this.#decideMessage(ruling, !ofRecipient);
    return true;
  }

  /**
   * A verdict leaves before the handlers of what was read behind it run: should they be lost, it is given all the same. Few
   * mail servers pipeline.
   */
  #letLeave(): void {
    if (this.session.untaken > 0) this.#host.flush();
  }

  #refuseConnection(ruling: AppliedVerdict): void {
    this.#reporter.verdict(ruling, "connection");
    if (ruling.decision.kind !== "accept") this.#count("connectionsRefused", ruling);
    this.session.decideConnection(ruling.decision.packet);
  }

  #count(counter: WorkerCounter, { isFallback }: AppliedVerdict): void {
    // What is replayed was counted where it was first decided.
    if (this.session.isReplay) return;
    this.#host.count(counter);
    if (isFallback) this.#host.count("fallbacks");
  }

  /** However many handlers fail in a message: it is one that got a fallback. */
  #countFallback(): void {
    if (this.#hasFallback || this.session.isReplay) return;
    this.#hasFallback = true;
    this.#host.count("messagesWithFallback");
  }

  /**
   * A verdict on the message, given now if the event at hand can carry it, else as soon as one can.
   * @param fitsReply the event's reply would be about the message, not about a recipient
   */
  #decideMessage(ruling: AppliedVerdict, fitsReply: boolean): void {
    if (fitsReply && this.session.wantsReply) {
      this.#deliver(ruling);
      return;
    }
    this.#deferred = ruling;
    this.session.proceed();
  }

  #deliver(ruling: AppliedVerdict): void {
    if (ruling.decision.kind === "accept") this.#reportObserved();
    if (ruling.decision.kind !== "accept" || this.#host.reportsAccepted) this.#reporter.verdict(ruling, "message");
    const { counter } = VERDICTS[ruling.decision.kind];
    if (counter !== null) {
      this.#host.count("messages");
      this.#count(counter, ruling);
    }
    this.session.decideMessage(ruling.decision.packet);
    this.#forgetMessage();
  }

  /**
   * A limit of the configuration is passed: its fallback is a verdict on the message (on the connection, before one).
   * @returns true if that ends the phase
   */
  #passLimit(phase: EventPhase, what: string): boolean {
    const { onError } = this.#chain.policy;
    if (!this.#overLimit) this.#reporter.failure("limit", null, phase, new RangeError(what), onError);
    this.#overLimit = true;
    if (onError === "continue" || phase.scope === "none") return false;
    const decision = FALLBACK_DECISIONS[onError];
    const ruling = ownVerdict(decision, phase, true, this.recipientAtHand);
    if (phase.scope === "connection") this.#refuseConnection(ruling);
    else this.#decideMessage(ruling, phase.scope === "message" || onError === "accept");
    return true;
  }

  /**
   * The body is larger than what may be collected. It is as large when the client sends it again, so the message is
   * refused for good, whatever `on_error` says; not for filters that only observe, whose part in it is over.
   * @returns true if that ends the phase
   */
  #passBodyLimit(what: string): boolean {
    let fallback: "reject" | "none" | null = null;
    for (const filter of this.#chain.filters) {
      if (!filter.loaded.collectBody) continue;
      const part = this.#partOf(filter);
      if (part.done !== "no") continue;
      if (filter.isObserved) {
        part.done = "message";
        this.#someAccepted = true;
        fallback ??= "none";
      } else fallback = "reject";
    }
    if (fallback === null) return false;
    if (!this.#overLimit) this.#reporter.failure("limit", null, PHASES.body, new RangeError(what), fallback);
    this.#overLimit = true;
    if (fallback === "none") return false;
    this.#decideMessage(ownVerdict(TOO_LARGE, PHASES.body, true), true);
    return true;
  }

  /** All handlers of the phase are through and none ended it. */
  #finish(phase: EventPhase): void {
    const { session } = this;
    switch (phase.name) {
      case "eom":
        this.#finishMessage();
        return;
      case "abort":
        session.endMessage();
        this.#forgetMessage();
        return;
      case "close":
        session.endSession();
        this.#forgetSession();
        return;
      case "envrcpt":
        if (this.#isPassingRecipient) this.message!.dropRecipient();
        break;
      default:
    }
    if (this.#someAccepted && phase.scope !== "none" && this.#isAllDone(phase)) {
      if (phase.scope === "connection") session.decideConnection(PLAIN_REPLIES.ACCEPT);
      else this.#decideMessage(ownVerdict(ACCEPT, phase, false), true);
      return;
    }
    if (phase === PHASES.body && session.wantsReply && this.#nobodyWantsBody()) {
      this.#isBodyCut = true;
      session.answer(PLAIN_REPLIES.SKIP);
    } else session.proceed();
  }

  /** No filter has anything left to do or to send. */
  #isAllDone(phase: PhaseInfo): boolean {
    for (const part of this.#parts) if (part?.changes && !part.filter.isObserved) return false;
    return !this.#chain.hasWorkAfter(phase, (filter) => {
      const done = this.#parts[filter.index]?.done ?? "no";
      return phase.scope === "connection" ? done === "connection" : done !== "no";
    });
  }

  #nobodyWantsBody(): boolean {
    if (this.#chain.collectsBody || !this.session.maySkip) return false;
    return this.#chain.steps[PHASES.body.index]!.every(({ filter }) => {
      const part = this.#parts[filter.index];
      return part !== undefined && (part.skipsBody || part.done !== "no");
    });
  }

  /** `eom` with nothing against the message: the changes go out, and it is accepted. */
  #finishMessage(): void {
    const { session } = this;
    const layers = this.allChanges();
    if (layers.length > 0) {
      sendChanges(this.#writer, this.message!, layers, {
        keepsLeadingSpace: session.keepsLeadingSpace,
        isSendmail: this.isSendmail,
      });
    }
    this.#reportObserved();
    const holder = this.#findHolder();
    if (holder !== undefined || this.#host.reportsAccepted) this.#reporter.accepted(holder?.filter ?? null, layers);
    this.#host.count("messages");
    this.#host.count(holder === undefined ? "accepted" : "quarantined");
    session.proceed();
    session.endMessage();
    this.#forgetMessage();
  }

  /** The filter that holds the message: of several the last. */
  #findHolder(): FilterPart | undefined {
    let holder: FilterPart | undefined;
    for (const part of this.#parts) if (part?.changes?.quarantine && !part.filter.isObserved) holder = part;
    return holder;
  }

  /** What filters in observe mode would have changed. */
  #reportObserved(): void {
    for (const part of this.#parts) {
      if (part?.changes && part.filter.isObserved) this.#reporter.accepted(part.filter, [part.changes]);
    }
  }

  #forgetMessage(): void {
    if (this.#unreturned !== null) this.#reportUnreturned(false);
    this.message = null;
    this.#deferred = null;
    this.#overLimit = false;
    this.#mailAt = null;
    this.#isBodyCut = false;
    this.#hasFallback = false;
    this.#deadline?.endMessage();
    this.#values.forget();
    for (const part of this.#parts) part?.endMessage();
  }

  #forgetSession(): void {
    if (this.#unreturned !== null) this.#reportUnreturned(true);
    this.#unreturned = null;
    this.#forgetMessage();
    this.#parts = new Array(this.#chain.filters.length);
    this.#someAccepted = false;
    this.#isSendmail = null;
    this.helo = "";
  }

  /** Postfix gives mail from its sendmail command a made-up session, with a queue id from CONNECT on (docs/protocol.md,
   * "Simulated sessions"). */
  #detectSimulated(): boolean {
    const { macros } = this.session;
    return macros.get("i") !== undefined && (macros.get("v") ?? "").startsWith("Postfix");
  }

  #wait(index: number, part: FilterPart, phase: EventPhase, promise: unknown, unreturned: Decision | null): void {
    const { eomTimeoutMs, handlerTimeoutMs } = this.#chain.policy;
    const waiting: Waiting = { index, part, phase, unreturned, subject: null };
    if (phase === PHASES.body) this.session.framer.lend();
    this.#waiting = waiting;
    const deadline = (this.#deadline ??= new PhaseDeadline(this.#host));
    const isFirst = deadline.isFresh;
    const alreadyMs = this.session.isReplay ? 0 : this.#waitedMs;
    if (!this.session.isReplay) this.#waitedMs = 0;
    this.#host.suspended(isFirst ? alreadyMs : null);
    const budgetMs = (phase === PHASES.eom ? eomTimeoutMs : handlerTimeoutMs) - alreadyMs;
    deadline.begin(Math.max(0, budgetMs), part.filter.timeoutMs, (ms) => {
      this.#settle(waiting, "timeout", new Error(`not settled after ${Math.round(ms) / 1000} s`));
    });
    if (phase === PHASES.eom) this.#keepProgress(deadline);
    // Any object with a `then` may be awaited. A promise that is resolved with it takes in what it throws, and asks it to
    // call back only once this phase has been left; Promise.resolve() and await run code of its own here.
    new Promise((resolve) => resolve(promise)).then(
      (value) => this.#settle(waiting, "value", value),
      (error: unknown) => this.#settle(waiting, "error", error),
    );
  }

  /** An awaited handler has settled, or its time is over. No caller catches what is thrown here. */
  #settle(waiting: Waiting, how: "value" | "error" | "timeout", value: unknown): void {
    try {
      this.#resumeAfter(waiting, how, value);
    } catch (error) {
      this.#host.failed(error);
    }
  }

  #resumeAfter(waiting: Waiting, how: "value" | "error" | "timeout", value: unknown): void {
    const { part, phase, index } = waiting;
    if (this.#waiting !== waiting) {
      // Its time was over, or the connection: what it says now changes nothing.
      if (how === "error") this.#reporter.failure("late", part.filter, phase, value, "none", waiting.subject);
      return;
    }
    if (how === "timeout") waiting.subject = this.#reporter.subject();
    this.#deadline?.pause();
    this.#waiting = null;
    if (how === "value" && value === undefined && waiting.unreturned !== null) {
      this.#notReturned(part, phase, waiting.unreturned);
    }
    const isEnded = how === "value" ? this.#take(part, phase, value) : this.#fail(part, phase, how, value);
    if (!isEnded) this.#run(phase, index + 1);
    // Still in this phase if another handler is awaited now.
    if (this.isWaiting) return;
    this.#deadline?.end();
    this.#host.resume();
  }

  /** Takes what a handler has given in the end; true if that ends the phase. */
  #take(part: FilterPart, phase: EventPhase, value: unknown): boolean {
    if (value === undefined) return false;
    let decision: Decision;
    try {
      decision = verdictIn(value, phase);
    } catch (error) {
      return this.#fail(part, phase, "error", error);
    }
    return this.#apply(part, phase, decision);
  }

  #stopWaiting(): void {
    if (this.#waiting !== null) this.#waiting.subject = this.#reporter.subject();
    this.#waiting = null;
    this.#deadline?.end();
    this.#deadline?.endMessage();
  }

  #keepProgress(deadline: PhaseDeadline): void {
    if (this.#mayProgress()) deadline.keepProgress(() => this.#sendProgress());
  }

  /** Servers older than PROGRESS would take it for an error; QUARANTINE came with the same release (Sendmail 8.13). */
  #mayProgress(): boolean {
    const { version, actions } = this.session.options;
    return version >= 6 || (actions & ACTION.QUARANTINE) !== 0;
  }

  #sendProgress(): void {
    try {
      this.#writer.packet(PLAIN_REPLIES.PROGRESS);
      this.#host.flush();
    } catch (error) {
      this.#host.failed(error);
    }
  }
}

/** A ruling that no filter made. */
function ownVerdict(
  decision: Decision,
  { name }: EventPhase,
  isFallback: boolean,
  recipient: Address | null = null,
): AppliedVerdict {
  return { decision, filter: null, phase: name, recipient, isFallback, origin: null };
}

/** Whether it is to be awaited. Reading it may run code of the handler's, and throw. */
function isPromise(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
