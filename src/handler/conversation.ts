/**
 * One milter connection: takes the events of its session, runs the handlers of the chain, and decides. It knows no
 * socket and no clock but those of its host, so the server, the testing kit and the tests run the same code.
 *
 * Synchronous handlers cost no promise and no timer. A handler that returns a promise suspends the conversation: no
 * further event is taken until it settles or its time is over.
 */
import { decodeText } from "../protocol/bytes.ts";
import type { LogLevel } from "../admin/log-level.ts";
import type { WorkerCounter } from "../counters.ts";
import { PLAIN_REPLIES, plainCodeOf, type ReplyWriter } from "../protocol/encode.ts";
import { isOfMessage, type Phase, PHASES } from "../protocol/phases.ts";
import type { Client } from "../protocol/client.ts";
import type { Resumption } from "../protocol/resumption.ts";
import { type EventPhase, MilterSession } from "../protocol/session.ts";
import { type AwaitedCall, AwaitedCalls, type AwaitingHost, type Ending } from "./awaited-calls.ts";
import { BodyCollection, type CollectingHost } from "./body-collection.ts";
import type { Chain, ChainFilter } from "./chain.ts";
import { FilterParts, type SkippedFilter } from "./filter-parts.ts";
import { messageOf } from "./load-failure.ts";
import { MAX_NOTES, type NoteLevel } from "./notes.ts";
import { type FilterPart, isGivenUp, type SessionSource } from "./filter-session.ts";
import type { Services } from "./services.ts";
import { VERDICTS } from "../protocol/verdicts.ts";
import { PhaseValues, takeIn } from "./intake.ts";
import type { FilterChanges } from "./message/changes.ts";
import { Difference } from "./message/difference.ts";
import { ReceivedMessage } from "./message/received.ts";
import { sendChanges } from "./message/send-changes.ts";
import type { Report, Subject } from "./report.ts";
import { type AppliedVerdict, Reporter, type ReportSource } from "./reporter.ts";
import { carriesPending, type Effect, effectOf, FALLBACK_VERDICTS, fallbackAt, type Place, placeOf } from "./rules.ts";
import { OutcomeTeller, type TellingHost, type TellingSource } from "./outcome-teller.ts";
import type { Address, OutcomeVerdict } from "./types.ts";
import { UnreturnedVerdicts } from "./unreturned.ts";
import { type EncodedVerdict, made, plainVerdict, verdictIn, verdictWithText } from "./verdict.ts";

/** The owner of a conversation's socket, as the conversation needs it. */
export interface ConversationHost extends AwaitingHost, CollectingHost, TellingHost {
  /** The awaited handler has settled: call `pump`, then send the writer's bytes. */
  resume(): void;
  report(report: Report): void;
  /** Something happened that is counted. */
  count(counter: WorkerCounter): void;
  /** A handler is about to be called. */
  calling(phase: EventPhase, filter: ChainFilter): void;
  /** Asked before each event: the writer has enough to be sent, or it is the turn of other connections. */
  readonly isTurnOver: boolean;
  /** Whether reports of messages that all filters let pass are wanted: most messages are such. */
  readonly reportsAccepted: boolean;
  /** Whether lines of a level are written: others are not even made. */
  logs(level: LogLevel): boolean;
  /** No mail is at stake, as in `pmilter try`: `session.trial`. */
  readonly isTrial: boolean;
  /** DNS and store for the filters. */
  readonly services: Services;
  /** When the bytes at hand arrived, on the clock of `now`. */
  readonly arrivedAt: number;
}

const ACCEPT = plainVerdict("accept");
/** The reason of a signal. */
const GONE = "the connection is gone";
/** For a message whose body is larger than a filter collects: RFC 5321 4.2.2, RFC 3463 3.4. */
const TOO_LARGE = verdictWithText("reject", "552 5.3.4 Message too big");
/** For a recipient that a filter judges otherwise than the first of its message: RFC 5321 4.5.3.1.10, RFC 3463 3.6. */
const SEND_AGAIN = verdictWithText(
  "tempfail",
  "452 4.5.3 Too many recipients with different rules, send this one again",
);

export class Conversation implements SessionSource, ReportSource, TellingSource {
  readonly session: MilterSession;
  readonly #chain: Chain;
  readonly #writer: ReplyWriter;
  readonly #host: ConversationHost;
  readonly #parts: FilterParts;

  message: ReceivedMessage | null = null;
  helo = "";
  addedHeaders = 0;
  #event: EventPhase = PHASES.connect;
  readonly #values = new PhaseValues();

  /** Postfix made this session up for local mail: a recipient cannot be refused in it. */
  #isLocal = false;
  /** The mail server itself rejected the recipient at hand. */
  #isRejectedRecipient = false;
  /** Null until it is first read. */
  #isSendmail: boolean | null = null;
  /** The recipient at hand is not kept past its phase: it was rejected, or is over the limit. */
  #isPassingRecipient = false;
  /** The verdict on the message, where no reply could carry it when it was found. */
  #pending: AppliedVerdict | null = null;
  /** Made when a handler is first awaited. */
  #calls: AwaitedCalls | null = null;
  /** A limit was passed in this message: it is reported once. */
  #overLimit = false;
  /** When its MAIL came; null while none has. */
  #mailAt: number | null = null;
  /** Notes of this message that its record keeps. */
  notes = 0;
  /** Null if no filter has an `outcome`. */
  readonly #outcome: OutcomeTeller | null;
  /** The mail server was told to send no more of the body. */
  #isBodyCut = false;
  /** Null if no filter collects bodies. */
  readonly #body: BodyCollection | null;
  /** A fallback has taken the place of a handler that failed in this message, or before the first. */
  #hasFallback = false;
  /** Made when a call did not return the verdict that it had made. */
  #unreturned: UnreturnedVerdicts | null = null;
  #isHungUp = false;
  /** Milliseconds that the mail server has waited elsewhere for the first reply of this conversation. */
  #waitedMs = 0;

  constructor(chain: Chain, writer: ReplyWriter, host: ConversationHost) {
    this.#chain = chain;
    this.#writer = writer;
    this.#host = host;
    this.session = new MilterSession(chain.wants, chain.policy.limits, writer);
    this.#parts = new FilterParts(chain, this);
    this.#body = chain.collectors.length === 0 ? null : this.#newBodyCollection();
    this.#outcome = chain.tellsOutcome.length === 0 ? null : new OutcomeTeller(this, host, chain.policy);
  }

  /** Goes on with a session that was negotiated and begun elsewhere. Call it before anything is pushed. */
  resume(resumption: Resumption, skippedFilters: readonly SkippedFilter[]): void {
    this.#parts.skip(skippedFilters);
    this.#waitedMs = resumption.answersOpening ? resumption.waitedMs : 0;
    this.session.resume(resumption);
  }

  /** A handler is awaited, or the spool: bytes may be pushed, no event is taken. */
  get isWaiting(): boolean {
    return this.#isAwaiting || this.#body?.isWaiting === true;
  }

  get #isAwaiting(): boolean {
    return this.#calls !== null && this.#calls.current !== null;
  }

  /** All events are through after {@link hangUp}, or after QUIT: the connection may be closed. */
  get isOver(): boolean {
    return !this.isWaiting && this.session.isOver;
  }

  /** The plain code of a verdict that is still to be sent, or to be sent again; 0 if there is none. */
  get pendingCode(): number {
    return this.#pending === null ? this.session.pendingCode : plainCodeOf(this.#pending.verdict.packet);
  }

  /** More was read behind the handler that is awaited, or reading was paused. */
  foresee(isReadingPaused: boolean): void {
    this.#calls?.foresee(isReadingPaused);
    const part = this.#calls?.current?.part;
    if (part?.isWatched !== true) return;
    const why = this.whyLeft;
    if (why !== null) part.giveUp(why);
  }

  /** All that was queued has been worked on, and reading goes on. */
  caughtUp(): void {
    this.#calls?.caughtUp();
  }

  /** No message is open: a stop costs the mail server nothing but a new connection. */
  get isBetweenMessages(): boolean {
    return this.message === null && !this.isWaiting;
  }

  /**
   * Takes events until more bytes are needed, a handler has to be awaited, or the host says that it is enough for now.
   * @returns true in the last case: write, and call it again
   * @throws ProtocolError the peer broke the protocol: hang up
   */
  pump(): boolean {
    while (!this.isWaiting) {
      if (this.#host.isTurnOver && !this.#isHungUp) return true;
      const event = this.#isHungUp ? this.session.hangUp() : this.session.next();
      if (event === null) return false;
      this.#event = event;
      this.#enter(event);
      if (event.scope === "message" && this.isBetweenMessages) this.#letLeave();
    }
    return false;
  }

  /**
   * The connection is gone or about to go: `abort` and `close` handlers run, an awaited handler is waited for no
   * longer.
   */
  hangUp(): void {
    if (this.#isHungUp) return;
    this.#isHungUp = true;
    this.#calls?.current?.part.giveUp(GONE);
    this.#calls?.stop(this.#reporter);
    this.#body?.endWait();
    this.pump();
  }

  // Read by sessions: see `SessionSource`.
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
  get isLocal(): boolean {
    return this.#isLocal;
  }
  /** Postfix says `Postfix 3.7.11`, Sendmail its bare version. Without a version it is neither. */
  get isSendmail(): boolean {
    return (this.#isSendmail ??= /^\d/.test(this.session.macros.get("v") ?? ""));
  }
  get whyLeft(): string | null {
    const phase = this.#event;
    if (phase === PHASES.abort || phase === PHASES.close) return null;
    if (this.#isHungUp) return GONE;
    const end = this.session.endAhead(phase);
    if (end === "QUIT") return "the SMTP session is over";
    return end === "ABORT" ? "the mail server has aborted the message" : null;
  }
  note(filter: ChainFilter, level: NoteLevel, text: unknown, fields: unknown): void {
    if (!this.#host.logs(level)) return;
    const isKept = this.message !== null && this.notes < MAX_NOTES;
    if (isKept) this.notes += 1;
    this.#reporter.note(filter, this.#event, { level, text, fields, isKept });
  }
  get isTrial(): boolean {
    return this.#host.isTrial;
  }
  get services(): Services {
    return this.#host.services;
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
  changesBefore({ index }: { readonly index: number }): FilterChanges[] {
    return this.#parts.changesBefore(index);
  }
  allChanges(): FilterChanges[] {
    return this.#parts.allChanges();
  }
  get tellsOutcome(): readonly FilterPart[] {
    return this.#parts.tellsOutcome;
  }
  messageSubject(): Subject {
    return this.#reporter.subject(null);
  }

  get #reporter(): Reporter {
    return new Reporter(this, this.#host);
  }

  #newBodyCollection(): BodyCollection {
    return new BodyCollection({
      session: this.session,
      chain: this.#chain,
      parts: this.#parts,
      host: this.#host,
      message: () => this.message,
      isWaiting: () => this.isWaiting,
      reporter: () => this.#reporter,
      fail: (part, phase, cause, error) => this.#fail(part, phase, cause, error),
      refuse: () => this.#decideMessage(ownVerdict(TOO_LARGE, PHASES.body, true), false),
      await: (call, promise) => this.#await(call, promise),
    });
  }

  /** Takes an event in, and runs its handlers. */
  #enter(phase: EventPhase): void {
    if (this.#pending !== null && isOfMessage(phase)) {
      this.#passUnseen(phase, this.#pending);
      return;
    }
    const problem = this.#takeIn(phase);
    if (this.#isEndedByLimit(phase, problem)) return;
    if (phase === PHASES.body && this.#body?.take() === true) return;
    if (phase === PHASES.envrcpt && this.#chain.splits && this.#isSplitOff()) return;
    if (this.#chain.steps[phase.index]!.length > 0) this.#values.read(phase, this.session, this.message);
    this.#run(phase, 0);
  }

  /**
   * Takes the event's values in.
   * @returns the limit that it passed, or null
   */
  #takeIn(phase: EventPhase): string | null {
    const { session } = this;
    const concernsMessage = isOfMessage(phase);
    // A mail server that left MAIL out, as it may have been told to, opens the message with its first command.
    if (concernsMessage) this.message ??= new ReceivedMessage();
    let problem: string | null = null;
    switch (phase) {
      case PHASES.connect:
        // An UNKNOWN command may have come before: a filter's state is empty at connect.
        if (!this.#parts.isUnused) this.#forgetSession();
        this.#parts.standings?.beginSession();
        if (session.isReplay) this.#parts.endSkipped();
        this.#isLocal = this.#detectLocal();
        break;
      case PHASES.helo:
        this.helo = decodeText(session.bytes, session.start, session.start + session.firstLength);
        this.#values.text = this.helo;
        this.#parts.standings?.takeHelo();
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
          problem = takeIn(phase, session, this.message!, this.#chain.policy.limits);
        }
    }
    if (phase === PHASES.envrcpt) {
      this.#parts.standings?.takeRecipient();
      this.#isRejectedRecipient = this.#isRejectedByServer();
      this.#isPassingRecipient = this.#isRejectedRecipient || problem !== null;
    }
    return problem;
  }

  /**
   * @param passed the limit that the event passed, or null: its macros may have passed one, too
   * @returns true if a limit was passed and its fallback ends the phase
   */
  #isEndedByLimit(phase: EventPhase, passed: string | null): boolean {
    const { session } = this;
    let problem = passed;
    if (session.macrosOverLimit) {
      session.macrosOverLimit = false;
      problem ??= `more than ${this.#chain.policy.limits.macros} bytes of macros (limits.macros)`;
    }
    return problem !== null && this.#passLimit(phase, problem);
  }

  /** Refuses the recipient at hand for now if a message is to be split before it: true if that ends the phase. */
  #isSplitOff(): boolean {
    if (this.#isPassingRecipient || !this.session.wantsReply) return false;
    const filter = this.#parts.findSplitting();
    if (filter === null) return false;
    const recipient = this.recipientAtHand;
    const reason = "recipients_match";
    this.#refuseRecipient({
      verdict: SEND_AGAIN,
      filter,
      phase: "envrcpt",
      recipient,
      isFallback: false,
      origin: null,
      reason,
    });
    return true;
  }

  /**
   * The verdict on the message is known: it is sent with the first reply that can carry it. No filter sees the packets
   * until then; the log names their values.
   */
  #passUnseen(phase: EventPhase, pending: AppliedVerdict): void {
    const message = this.message!;
    const isOver = takeIn(phase, this.session, message, this.#chain.policy.limits) !== null;
    if (phase === PHASES.envrcpt && (isOver || this.#isRejectedByServer())) message.dropRecipient();
    if (carriesPending(phase, this.#isLocal) && this.session.wantsReply) this.#deliver(pending);
    else this.session.proceed();
  }

  /** The mail server itself rejects the recipient at hand. */
  #isRejectedByServer(): boolean {
    return this.#chain.wantsRejected && this.session.macros.get("{rcpt_mailer}") === "error";
  }

  /** Runs the handlers of a phase from the step at `from` on, until a handler ends the phase or has to be awaited. */
  #run(phase: EventPhase, from: number): void {
    const steps = this.#chain.steps[phase.index]!;
    for (let index = from; index < steps.length; index++) {
      const step = steps[index]!;
      const part = this.#parts.of(step.filter);
      if (!this.#parts.isCalled(part, phase, this.#isRejectedRecipient)) continue;
      if (this.session.isReplay && this.#parts.isSkipped(part)) continue;
      if (this.#body !== null && phase === PHASES.eom && step.filter.loaded.collectBody !== null) {
        const next = this.#body.provide(index, part);
        if (next === "stop") return;
        if (next === "pass") continue;
      }
      part.beginCall();
      this.#host.calling(phase, step.filter);
      let result: unknown;
      let verdict: EncodedVerdict | null = null;
      const { count } = made;
      try {
        result = this.#values.call(step, part.session, phase);
        if (result === undefined) {
          if (made.count !== count) this.#notReturned(part, phase, made.last);
          continue;
        }
        if (!isPromise(result)) verdict = verdictIn(result, phase);
      } catch (error) {
        if (this.#fail(part, phase, "error", error)) return;
        continue;
      }
      if (verdict === null) {
        const unreturned = made.count === count ? null : made.last;
        this.#await({ index, part, phase, unreturned, isForBody: false, subject: null }, result);
        return;
      }
      if (this.#apply(part, phase, verdict)) return;
    }
    this.#finish(phase);
  }

  #notReturned({ filter }: FilterPart, phase: EventPhase, verdict: EncodedVerdict): void {
    this.#unreturned ??= new UnreturnedVerdicts();
    this.#unreturned.add({ filter, phase, verdict });
  }

  #reportUnreturned(isSession: boolean): void {
    for (const call of this.#unreturned?.take(isSession) ?? []) {
      this.#host.count("unreturned");
      this.#reporter.unreturned(call);
    }
  }

  /** Applies the verdict of a handler, which its phase has; true if that ends the phase. */
  #apply(part: FilterPart, phase: EventPhase, verdict: EncodedVerdict): boolean {
    this.#unreturned?.returned(verdict, part.filter);
    const { origin } = verdict;
    const { filter } = part;
    const recipient = this.recipientAtHand;
    return this.#decide({ verdict, filter, phase: phase.name, recipient, isFallback: false, origin }, part, phase);
  }

  /** A handler failed: its changes are dropped, and the configured fallback is its verdict. True if that ends the phase. */
  #fail(part: FilterPart, phase: EventPhase, cause: "error" | "timeout" | "limit" | "spool", error: unknown): boolean {
    const { filter } = part;
    const fallback = fallbackAt(phase, cause === "timeout" ? filter.onTimeout : filter.onError);
    part.dropChanges();
    this.#reporter.failure(cause, filter, phase, error, fallback);
    if (fallback !== "none" && !filter.isObserved) this.#countFallback();
    const verdict = FALLBACK_VERDICTS[fallback];
    if (verdict === null) return false;
    const recipient = this.recipientAtHand;
    return this.#decide(
      { verdict, filter, phase: phase.name, recipient, isFallback: true, origin: error },
      part,
      phase,
    );
  }

  /** Applies a verdict that the phase has; true if it ends the phase for all filters. */
  #decide(applied: AppliedVerdict, part: FilterPart, phase: EventPhase): boolean {
    const giver = part.filter.isObserved ? "observe" : "enforce";
    const effect = effectOf(giver, this.#placeOf(phase), applied.verdict.kind);
    this.#parts.leave(part, effect);
    if (effect.observed !== null) this.#reporter.verdict(applied, effect.observed);
    return this.#carryOut(applied, effect);
  }

  #placeOf(phase: EventPhase): Place {
    return placeOf(phase, this.#isRejectedRecipient, this.#isLocal);
  }

  /** Carries a verdict out; true if that ends the phase for all filters. */
  #carryOut(applied: AppliedVerdict, { decides, waits }: Effect): boolean {
    switch (decides) {
      case null:
        return false;
      case "connection":
        this.#refuseConnection(applied);
        return true;
      case "message":
        this.#decideMessage(applied, waits);
        return true;
      case "recipient":
        this.#refuseRecipient(applied);
        return true;
      case "command":
        this.#reporter.verdict(applied, "command");
        this.session.answer(applied.verdict.packet);
        return true;
    }
  }

  /**
   * Sends a verdict before the handlers of packets behind it run, so that it is sent even if this worker is lost in
   * them. Few mail servers pipeline.
   */
  #letLeave(): void {
    if (this.session.untaken > 0) this.#host.flush();
  }

  #refuseRecipient(applied: AppliedVerdict): void {
    this.#reporter.verdict(applied, "recipient");
    this.#count("recipientsRefused", applied);
    this.session.answer(applied.verdict.packet);
    this.#outcome?.refused(this.message!, applied.verdict.kind as OutcomeVerdict);
    this.message!.dropRecipient();
    this.#letLeave();
  }

  #refuseConnection(applied: AppliedVerdict): void {
    this.#reporter.verdict(applied, "connection");
    if (applied.verdict.kind !== "accept") this.#count("connectionsRefused", applied);
    this.session.decideConnection(applied.verdict.packet);
  }

  #count(counter: WorkerCounter, { isFallback }: AppliedVerdict): void {
    // Replayed packets were counted where they were first decided.
    if (this.session.isReplay) return;
    this.#host.count(counter);
    if (isFallback) this.#host.count("fallbacks");
  }

  /** A message counts once, however many of its handlers fail. */
  #countFallback(): void {
    if (this.#hasFallback || this.session.isReplay) return;
    this.#hasFallback = true;
    this.#host.count("messagesWithFallback");
  }

  /**
   * A verdict on the message is sent now if a reply is awaited, else with the first that can carry it.
   * @param waits the reply to the event at hand is about a recipient, and cannot
   */
  #decideMessage(applied: AppliedVerdict, waits: boolean): void {
    if (!waits && this.session.wantsReply) {
      this.#deliver(applied);
      return;
    }
    this.#pending = applied;
    // No handler runs any more that could read it.
    this.#body?.drop();
    this.session.proceed();
  }

  #deliver(applied: AppliedVerdict): void {
    if (applied.verdict.kind === "accept") this.#reportObserved();
    if (applied.verdict.kind !== "accept" || this.#host.reportsAccepted) this.#reporter.verdict(applied, "message");
    const { counter } = VERDICTS[applied.verdict.kind];
    if (counter !== null) {
      this.#host.count("messages");
      this.#count(counter, applied);
    }
    const filter = applied.filter?.loaded.name ?? null;
    this.#outcome?.tell({ verdict: applied.verdict.kind as OutcomeVerdict, filter, applied });
    this.session.decideMessage(applied.verdict.packet);
    this.#forgetMessage();
  }

  /**
   * A limit of the configuration is passed: its fallback is a verdict on the message, or before a message on the
   * connection.
   * @returns true if that ends the phase
   */
  #passLimit(phase: EventPhase, what: string): boolean {
    const { onError } = this.#chain.policy;
    if (!this.#overLimit) this.#reporter.failure("limit", null, phase, new RangeError(what), onError);
    this.#overLimit = true;
    const verdict = FALLBACK_VERDICTS[onError];
    if (verdict === null) return false;
    const applied = ownVerdict(verdict, phase, true, this.recipientAtHand);
    return this.#carryOut(applied, effectOf("limit", this.#placeOf(phase), verdict.kind));
  }

  /** All handlers of the phase are through and none ended it. */
  #finish(phase: EventPhase): void {
    const { session } = this;
    switch (phase.name) {
      case "eom":
        this.#finishMessage();
        return;
      case "abort":
        this.#outcome?.tell({ verdict: "aborted", filter: null });
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
    if (this.#parts.isAllAccepted(phase)) {
      if (phase.scope === "connection") session.decideConnection(PLAIN_REPLIES.ACCEPT);
      else this.#decideMessage(ownVerdict(ACCEPT, phase, false), false);
      return;
    }
    if (phase === PHASES.body && session.wantsReply && session.maySkip && this.#parts.isBodyUnwanted) {
      this.#isBodyCut = true;
      session.answer(PLAIN_REPLIES.SKIP);
    } else session.proceed();
  }

  /** `eom` with nothing against the message: the changes go out, and it is accepted. */
  #finishMessage(): void {
    const { session } = this;
    const layers = this.allChanges();
    const difference = layers.length > 0 ? this.#differenceMadeBy(layers) : null;
    this.#reportObserved();
    const quarantining = this.#parts.findQuarantining();
    if (quarantining !== null || this.#host.reportsAccepted) this.#reporter.accepted(quarantining, difference);
    this.#host.count("messages");
    this.#host.count(quarantining === null ? "accepted" : "quarantined");
    const verdict = quarantining === null ? "accept" : "quarantine";
    if (difference !== null) {
      // Nothing reads the body any more: its memory may go with the changes.
      const { keepsLeadingSpace } = session;
      sendChanges(this.#writer, difference, { keepsLeadingSpace, isSendmail: this.isSendmail });
    }
    this.#outcome?.tell({ verdict, filter: quarantining?.loaded.name ?? null, layers, difference });
    session.proceed();
    session.endMessage();
    this.#forgetMessage();
  }

  /** Logs the changes that filters in observe mode would have made. */
  #reportObserved(): void {
    for (const { filter, changes } of this.#parts.observed) {
      const difference = this.#differenceMadeBy([changes!]);
      if (difference.count > 0) this.#reporter.accepted(filter, difference);
    }
  }

  #differenceMadeBy(layers: readonly FilterChanges[]): Difference {
    const collectsBody = this.#body !== null && this.#parts.collectsBody;
    return new Difference(this.message!, layers, collectsBody);
  }

  #forgetMessage(): void {
    if (this.#unreturned !== null) this.#reportUnreturned(false);
    this.message?.collected?.end();
    this.#body?.endWait();
    this.message = null;
    this.#pending = null;
    this.#overLimit = false;
    this.#mailAt = null;
    this.notes = 0;
    this.#outcome?.endMessage();
    this.#isBodyCut = false;
    this.#hasFallback = false;
    this.#calls?.endMessage();
    this.#values.forget();
    this.#parts.endMessage();
  }

  #forgetSession(): void {
    if (this.#unreturned !== null) this.#reportUnreturned(true);
    this.#unreturned = null;
    this.#forgetMessage();
    this.#parts.endSession();
    this.#isSendmail = null;
    this.helo = "";
  }

  /**
   * Postfix gives mail from its sendmail command a made-up session, with a queue id from CONNECT on (docs/protocol.md,
   * "Simulated sessions").
   */
  #detectLocal(): boolean {
    const { macros } = this.session;
    return macros.get("i") !== undefined && (macros.get("v") ?? "").startsWith("Postfix");
  }

  #await(call: AwaitedCall, promise: unknown): void {
    this.#calls ??= new AwaitedCalls({
      session: this.session,
      policy: this.#chain.policy,
      writer: this.#writer,
      host: this.#host,
      settled: (call, how, value) => this.#settled(call, how, value),
    });
    const alreadyMs = this.session.isReplay ? 0 : this.#waitedMs;
    if (!this.session.isReplay) this.#waitedMs = 0;
    this.#calls.begin(call, promise, alreadyMs);
  }

  /** A handler that was awaited has settled, or its time is over. */
  #settled(call: AwaitedCall, how: Ending, value: unknown): void {
    const { part, phase, index } = call;
    const calls = this.#calls!;
    if (calls.current !== call) {
      // Its time was over, or the connection: its result no longer counts.
      if (how === "error" && !isGivenUp(value))
        this.#reporter.failure("late", part.filter, phase, value, "none", call.subject);
      return;
    }
    if (how === "timeout") {
      call.subject = this.#reporter.subject();
      part.giveUp(`the time of this call is over: ${messageOf(value)}`, "TimeoutError");
    }
    calls.take();
    if (call.isForBody) {
      if (how === "timeout") this.#body!.timeOut();
      this.#run(phase, index);
    } else this.#handlerSettled(call, how, value);
    // Still in this phase if another handler is awaited now.
    if (this.#isAwaiting) return;
    calls.endPhase();
    if (!this.isWaiting) this.#host.resume();
  }

  #handlerSettled({ index, part, phase, unreturned }: AwaitedCall, how: Ending, value: unknown): void {
    if (how === "value" && value === undefined && unreturned !== null) this.#notReturned(part, phase, unreturned);
    const isEnded = how === "value" ? this.#take(part, phase, value) : this.#fail(part, phase, how, value);
    if (!isEnded) this.#run(phase, index + 1);
  }

  /** Applies the value that an awaited promise resolved to; true if that ends the phase. */
  #take(part: FilterPart, phase: EventPhase, value: unknown): boolean {
    if (value === undefined) return false;
    let verdict: EncodedVerdict;
    try {
      verdict = verdictIn(value, phase);
    } catch (error) {
      return this.#fail(part, phase, "error", error);
    }
    return this.#apply(part, phase, verdict);
  }
}

/** A verdict that no filter made. */
function ownVerdict(
  verdict: EncodedVerdict,
  { name }: EventPhase,
  isFallback: boolean,
  recipient: Address | null = null,
): AppliedVerdict {
  return { verdict, filter: null, phase: name, recipient, isFallback, origin: null };
}

/** Whether a value is to be awaited. Reading it may run the handler's code, and throw. */
function isPromise(value: unknown): boolean {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
