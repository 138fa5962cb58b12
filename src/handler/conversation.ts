/**
 * One milter connection: takes the events of its session, runs the handlers of the chain, and decides. It knows no
 * socket and no clock but those of its host, so the server, the testing kit and the tests run the same code.
 *
 * Synchronous handlers cost no promise and no timer. A handler that returns a promise suspends the conversation: no
 * further event is taken until it settles or its time is over.
 */
import { decodeText } from "../protocol/bytes.ts";
import { ACTION } from "../protocol/constants.ts";
import { PLAIN_REPLIES, type ReplyWriter } from "../protocol/encode.ts";
import { type Phase, type PhaseInfo, PHASES } from "../protocol/phases.ts";
import { type Client, type EventPhase, MilterSession } from "../protocol/session.ts";
import type { Chain, ChainFilter, Step } from "./chain.ts";
import type { FilterChanges } from "./changes.ts";
import { UsageError } from "./errors.ts";
import type { Fallback } from "./fallback.ts";
import { FilterPart, type SessionSource } from "./filter-session.ts";
import { ReceivedMessage } from "./message.ts";
import { applyRecipients } from "./message-view.ts";
import type { FailureReport, Report, Subject, VerdictReport } from "./report.ts";
import { sendChanges } from "./send-changes.ts";
import { type Site, siteOf } from "./site.ts";
import { type Decision, decisionOf, plainDecision } from "./verdict.ts";

/** What a conversation needs from whoever owns its socket. */
export interface ConversationHost {
  /** A handler that suspended the conversation is through: call `pump`, then send what the writer holds. */
  resume(): void;
  /** Send what the writer holds: progress, while a handler works. */
  flush(): void;
  /** Runs `callback` after so many milliseconds; gives a function that cancels it. */
  after(ms: number, callback: () => void): () => void;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
  report(report: Report): void;
  /** Whether reports of messages that all filters let pass are wanted: they are most of them. */
  readonly reportsAccepted: boolean;
}

/** How often progress is sent at `eom`. Sendmail waits 10 s for each reply, Postfix 300 s. */
export const PROGRESS_INTERVAL_MS = 3000;

const REJECT = plainDecision("reject");
const TEMPFAIL = plainDecision("tempfail");
const ACCEPT = plainDecision("accept");

/** A verdict on the message that could not be given where it was found. */
interface Deferred {
  readonly decision: Decision;
  readonly filter: ChainFilter | null;
  readonly phase: Phase;
  readonly isFallback: boolean;
}

/** A handler that is awaited. */
interface Waiting {
  readonly step: Step;
  readonly index: number;
  readonly part: FilterPart;
  readonly phase: EventPhase;
  readonly cancelDeadline: () => void;
}

const NO_PARAMS: readonly string[] = [];

export class Conversation implements SessionSource {
  readonly session: MilterSession;
  readonly #chain: Chain;
  readonly #writer: ReplyWriter;
  readonly #host: ConversationHost;
  /** By filter index; made when a filter is first called. */
  #parts: (FilterPart | undefined)[];

  message: ReceivedMessage | null = null;
  helo = "";
  changeCount = 0;
  addedHeaders = 0;
  #event: EventPhase = PHASES.connect;
  #text = "";
  #value = "";
  #params = NO_PARAMS;
  #chunk: Uint8Array | null = null;

  /** Some filter said `accept`, so there may be nothing left for anyone. */
  #someAccepted = false;
  /** Postfix made this session up for local mail: a recipient cannot be refused in it. */
  #isSimulated = false;
  /** The recipient at hand was rejected by the mail server itself. */
  #isRejectedRecipient = false;
  #deferred: Deferred | null = null;
  #waiting: Waiting | null = null;
  /** When the time of the chain at this phase is over; 0 while nothing has been awaited. */
  #deadline = 0;
  #cancelProgress: (() => void) | null = null;
  /** A limit was passed in this message: it is reported once. */
  #overLimit = false;
  #isHungUp = false;

  constructor(chain: Chain, writer: ReplyWriter, host: ConversationHost) {
    this.#chain = chain;
    this.#writer = writer;
    this.#host = host;
    this.session = new MilterSession(chain.wants, chain.policy.limits, writer);
    this.#parts = new Array(chain.filters.length);
  }

  /** A handler is being awaited: bytes may be pushed, nothing is taken. */
  get isWaiting(): boolean {
    return this.#waiting !== null;
  }

  /** All events are through after {@link hangUp}, or after QUIT: the connection may be closed. */
  get isOver(): boolean {
    return this.#waiting === null && this.session.isOver;
  }

  /** No message is open: a stop costs the mail server nothing but a new connection. */
  get isBetweenMessages(): boolean {
    return this.message === null && this.#waiting === null;
  }

  /**
   * Takes events until more bytes are needed or a handler has to be awaited.
   * @throws ProtocolError the peer broke the protocol: hang up
   */
  pump(): void {
    while (this.#waiting === null) {
      const event = this.#isHungUp ? this.session.hangUp() : this.session.next();
      if (event === null) return;
      this.#event = event;
      this.#enter(event);
    }
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
  changesBefore(filter: { readonly index: number }): FilterChanges[] {
    const layers: FilterChanges[] = [];
    for (let index = 0; index < filter.index; index++) {
      const part = this.#parts[index];
      if (part?.changes && !part.filter.isObserved) layers.push(part.changes);
    }
    return layers;
  }

  /** Takes in what the event brings, and runs its handlers. */
  #enter(phase: EventPhase): void {
    const { session } = this;
    if (this.#deferred !== null && isOfMessage(phase)) {
      // The verdict is known: it is given as soon as it can be, and nothing more of the message is looked at.
      if (session.wantsReply && phase.scope === "message") this.#deliver(this.#deferred);
      else session.proceed();
      return;
    }
    const { bytes, start, end } = session;
    switch (phase.name) {
      case "connect":
        this.#isSimulated = this.#detectSimulated();
        break;
      case "helo":
        this.helo = decodeText(bytes, start, bytes.indexOf(0, start));
        break;
      case "envfrom":
        this.#openMessage().takeSender(bytes, start, end);
        break;
      case "envrcpt":
        if (!this.#takeRecipient(phase)) return;
        break;
      case "header":
        if (!this.#takeHeader(phase)) return;
        break;
      case "body":
        if (!this.#takeBody(phase)) return;
        break;
      case "eom":
        this.#openMessage().receivedAt = new Date();
        break;
      case "data":
      case "eoh":
        this.#openMessage();
        break;
      case "unknown":
      case "abort":
      case "close":
        break;
      default:
        phase.name satisfies never;
    }
    if (session.macrosOverLimit) {
      session.macrosOverLimit = false;
      if (!this.#limit(phase, `macros over limits.macros (${this.#chain.policy.limits.macros} bytes)`)) return;
    }
    if (this.#chain.steps[phase.index]!.length > 0) this.#readArguments(phase);
    this.#run(phase, 0);
  }

  /** The message at hand; a mail server that left MAIL out, as it may have been told to, opens it with what it sends. */
  #openMessage(): ReceivedMessage {
    this.message ??= new ReceivedMessage();
    return this.message;
  }

  #takeRecipient(phase: EventPhase): boolean {
    const { session } = this;
    const message = this.#openMessage();
    const limit = this.#chain.policy.limits.recipients;
    if (message.recipients.length >= limit) {
      if (!this.#limit(phase, `more than ${limit} recipients (limits.recipients)`)) return false;
    }
    this.#isRejectedRecipient = this.#chain.wantsRejected && session.macros.get("{rcpt_mailer}") === "error";
    message.takeRecipient(session.bytes, session.start, session.end);
    return true;
  }

  #takeHeader(phase: EventPhase): boolean {
    const { session } = this;
    const { limits } = this.#chain.policy;
    const message = this.#openMessage();
    if (message.headerCount >= limits.headers) {
      return this.#limit(phase, `more than ${limits.headers} headers (limits.headers)`);
    }
    if (message.headerBytes + session.end - session.start > limits.headerBytes) {
      return this.#limit(phase, `more than ${limits.headerBytes} bytes of headers (limits.header_bytes)`);
    }
    message.takeHeader(session.bytes, session.start, session.end, session.keepsLeadingSpace);
    return true;
  }

  #takeBody(phase: EventPhase): boolean {
    const { session } = this;
    const message = this.#openMessage();
    if (!this.#chain.collectsBody) return true;
    const limit = this.#chain.policy.limits.body;
    if (message.bodyBytes + session.end - session.start > limit) {
      return this.#limit(phase, `a body of more than ${limit} bytes to collect (limits.body)`);
    }
    message.takeBody(session.bytes, session.start, session.end);
    return true;
  }

  /** What the handlers of the phase get besides the session, decoded once for all of them. */
  #readArguments(phase: EventPhase): void {
    const { bytes, start, end } = this.session;
    switch (phase.name) {
      case "helo":
        this.#text = this.helo;
        return;
      case "envfrom":
        this.#text = this.message!.sender.raw;
        this.#params = this.message!.sender.params;
        return;
      case "envrcpt": {
        const recipient = this.message!.recipients.at(-1)!;
        this.#text = recipient.raw;
        this.#params = recipient.params;
        return;
      }
      case "header": {
        const nameEnd = bytes.indexOf(0, start);
        const space = this.session.keepsLeadingSpace && bytes[nameEnd + 1] === 0x20 ? 1 : 0;
        this.#text = decodeText(bytes, start, nameEnd);
        this.#value = decodeText(bytes, nameEnd + 1 + space, bytes.indexOf(0, nameEnd + 1));
        return;
      }
      case "body":
        this.#chunk = bytes.subarray(start, end);
        return;
      case "unknown":
        this.#text = decodeText(bytes, start, bytes.indexOf(0, start));
        return;
      default:
    }
  }

  /** Runs the handlers of a phase from the step at `from` on, until one ends it or has to be awaited. */
  #run(phase: EventPhase, from: number): void {
    const steps = this.#chain.steps[phase.index]!;
    for (let index = from; index < steps.length; index++) {
      const step = steps[index]!;
      const part = this.#partOf(step.filter);
      if (!this.#takesPart(part, phase)) continue;
      let result: unknown;
      try {
        result = this.#call(step, part.session, phase);
      } catch (error) {
        if (this.#fail(part, phase, "error", error)) return;
        continue;
      }
      if (result === undefined) continue;
      if (isPromise(result)) {
        this.#wait(step, index, part, phase, result);
        return;
      }
      if (this.#apply(part, phase, result)) return;
    }
    this.#finish(phase);
  }

  #partOf(filter: ChainFilter): FilterPart {
    return (this.#parts[filter.index] ??= new FilterPart(filter, this));
  }

  #takesPart(part: FilterPart, phase: EventPhase): boolean {
    if (phase === PHASES.close) return true;
    if (part.done !== "no") return false;
    if (phase === PHASES.body) return !part.skipsBody;
    return phase !== PHASES.envrcpt || !this.#isRejectedRecipient || part.filter.loaded.rejectedRecipients;
  }

  #call(step: Step, session: unknown, phase: EventPhase): unknown {
    const { handler } = step;
    const { self } = step.filter.loaded;
    switch (phase.name) {
      case "helo":
      case "unknown":
        return handler.call(self, session, this.#text);
      case "envfrom":
      case "envrcpt":
        return handler.call(self, session, this.#text, this.#params);
      case "header":
        return handler.call(self, session, this.#text, this.#value);
      case "body":
        return handler.call(self, session, step.isAsync ? this.#chunk!.slice() : this.#chunk!);
      default:
        return handler.call(self, session);
    }
  }

  /** Applies what a handler returned; true if that ends the phase. */
  #apply(part: FilterPart, phase: EventPhase, value: unknown): boolean {
    const decision = decisionOf(value);
    const problem =
      decision === null
        ? `the ${phase.name} handler returned ${typeof value}, expected nothing or a verdict such as reject()`
        : phase.verdicts.includes(decision.kind)
          ? null
          : `${decision.kind}() is no verdict of phase ${phase.name}; it has ${phase.verdicts.join(", ") || "none"}`;
    if (problem !== null) {
      const error = new UsageError("PMILTER_ERR_VERDICT", problem);
      if (decision?.origin) Object.defineProperty(error, "stack", { value: decision.origin.stack });
      return this.#fail(part, phase, "error", error);
    }
    return this.#decide(part, phase, decision!, false);
  }

  /** A handler failed: its changes are dropped, and the configured fallback is its verdict. True if that ends the phase. */
  #fail(part: FilterPart, phase: EventPhase, cause: "error" | "timeout", error: unknown): boolean {
    const { filter } = part;
    const decides = phase.verdicts.length > 0 && phase.scope !== "none";
    const fallback = cause === "error" ? filter.onError : filter.onTimeout;
    part.dropChanges();
    this.#reportFailure(cause, filter, phase, error, decides ? fallback : "none");
    return decides && this.#fallBack(part, phase, fallback);
  }

  #fallBack(part: FilterPart, phase: EventPhase, fallback: Fallback): boolean {
    switch (fallback) {
      case "continue":
        return false;
      case "accept":
        return this.#decide(part, phase, ACCEPT, true);
      case "reject":
        return this.#decide(part, phase, REJECT, true);
      case "tempfail":
        return this.#decide(part, phase, TEMPFAIL, true);
      default:
        return fallback satisfies never;
    }
  }

  /** Applies a verdict that the phase has; true if it ends the phase for all filters. */
  #decide(part: FilterPart, phase: EventPhase, decision: Decision, isFallback: boolean): boolean {
    const { filter } = part;
    const { kind } = decision;
    const ofConnection = phase.scope === "connection";
    if (kind === "skip") {
      part.skipsBody = true;
      return false;
    }
    if (kind === "accept") {
      part.done = ofConnection ? "connection" : "message";
      this.#someAccepted = true;
      return false;
    }
    const isForRecipient = phase.scope === "recipient" && kind !== "discard";
    if (filter.isObserved) {
      // What it would have ended is over for this filter; a refused recipient or command ends nothing.
      if (phase.scope !== "none" && !isForRecipient) part.done = ofConnection ? "connection" : "message";
      this.#reportVerdict(
        decision,
        filter,
        phase.name,
        isFallback,
        ofConnection ? "connection" : isForRecipient ? "recipient" : "message",
      );
      return false;
    }
    if (ofConnection) {
      this.#reportVerdict(decision, filter, phase.name, isFallback, "connection");
      this.session.decideConnection(decision.packet);
      return true;
    }
    if (phase.scope === "none") {
      this.session.answer(decision.packet);
      return true;
    }
    if (isForRecipient && !this.#isSimulated) {
      // The mail server's own rejection stands, whatever a filter says of it (8.4).
      if (this.#isRejectedRecipient) return false;
      this.#reportVerdict(decision, filter, phase.name, isFallback, "recipient");
      this.session.answer(decision.packet);
      this.message!.recipients.pop();
      return true;
    }
    this.#decideMessage({ decision, filter, phase: phase.name, isFallback }, phase.scope === "message");
    return true;
  }

  /**
   * A verdict on the message, given now if the event at hand can carry it, else as soon as one can.
   * @param mayAnswer the event's reply is about the message (at `envrcpt` it would be about the recipient, except DISCARD)
   */
  #decideMessage(verdict: Deferred, mayAnswer: boolean): void {
    const isDiscard = verdict.decision.kind === "discard";
    if (this.session.wantsReply && (mayAnswer || isDiscard)) {
      this.#deliver(verdict);
      return;
    }
    this.#deferred = verdict;
    this.session.proceed();
  }

  #deliver({ decision, filter, phase, isFallback }: Deferred): void {
    if (decision.kind !== "accept" || this.#host.reportsAccepted) {
      this.#reportVerdict(decision, filter, phase, isFallback, "message");
    }
    this.session.decideMessage(decision.packet);
    this.#forgetMessage();
  }

  /**
   * A limit of the configuration is passed: its fallback is a verdict on the message (on the connection, before one).
   * @returns true if the phase goes on
   */
  #limit(phase: EventPhase, what: string): boolean {
    const { onError } = this.#chain.policy;
    if (!this.#overLimit) this.#reportFailure("limit", null, phase, new Error(what), onError);
    this.#overLimit = true;
    if (onError === "continue") return true;
    const decision = onError === "accept" ? ACCEPT : onError === "reject" ? REJECT : TEMPFAIL;
    if (phase.scope === "connection") {
      this.session.decideConnection(decision.packet);
      return false;
    }
    if (!isOfMessage(phase)) return true;
    this.#decideMessage({ decision, filter: null, phase: phase.name, isFallback: true }, phase.scope === "message");
    return false;
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
        if (this.#isRejectedRecipient) this.message!.recipients.pop();
        break;
      case "body":
        if (session.wantsReply && this.#nobodyWantsBody()) {
          session.answer(PLAIN_REPLIES.SKIP);
          return;
        }
        break;
      default:
    }
    if (this.#someAccepted && phase.scope !== "none" && this.#isAllDone(phase)) {
      if (phase.scope === "connection") session.decideConnection(PLAIN_REPLIES.ACCEPT);
      else this.#decideMessage({ decision: ACCEPT, filter: null, phase: phase.name, isFallback: false }, true);
      return;
    }
    session.proceed();
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
    const message = this.message!;
    const layers = this.#allChanges();
    for (const part of this.#parts) {
      if (part?.changes && part.filter.isObserved) this.#reportObservedChanges(part, part.changes);
    }
    if (layers.length > 0) sendChanges(this.#writer, message, layers, session.keepsLeadingSpace);
    const quarantined = this.#parts.findLast((part) => part?.changes?.quarantine && !part.filter.isObserved);
    if (quarantined !== undefined || this.#host.reportsAccepted) {
      const quarantine = quarantined?.changes?.quarantine ?? null;
      this.#host.report({
        ...this.#subject(layers),
        kind: "verdict",
        verdict: quarantine === null ? "accept" : "quarantine",
        scope: "message",
        filter: quarantined?.filter.loaded.name ?? null,
        phase: "eom",
        site: quarantine === null ? null : siteOf(quarantine.origin),
        reply: null,
        reason: quarantine?.reason ?? null,
        isFallback: false,
        isObserved: false,
        changes: layers.reduce((sum, changes) => sum + changes.count, 0),
      });
    }
    session.proceed();
    session.endMessage();
    this.#forgetMessage();
  }

  #allChanges(): FilterChanges[] {
    return this.changesBefore({ index: this.#parts.length });
  }

  #forgetMessage(): void {
    this.message = null;
    this.#deferred = null;
    this.#overLimit = false;
    this.#chunk = null;
    for (const part of this.#parts) part?.endMessage();
  }

  #forgetSession(): void {
    this.#forgetMessage();
    this.#parts = new Array(this.#chain.filters.length);
    this.#someAccepted = false;
    this.helo = "";
  }

  /** Postfix gives mail from its sendmail command a made-up session, with a queue id from CONNECT on (13.4). */
  #detectSimulated(): boolean {
    const { macros } = this.session;
    return macros.get("i") !== undefined && (macros.get("v") ?? "").startsWith("Postfix");
  }

  #wait(step: Step, index: number, part: FilterPart, phase: EventPhase, promise: PromiseLike<unknown>): void {
    const { policy } = this.#chain;
    const now = this.#host.now();
    if (this.#deadline === 0) {
      this.#deadline = now + (phase === PHASES.eom ? policy.eomTimeoutMs : policy.handlerTimeoutMs);
    }
    const budget = Math.max(0, this.#deadline - now);
    const ms = part.filter.timeoutMs === null ? budget : Math.min(budget, part.filter.timeoutMs);
    if (phase === PHASES.eom && this.#cancelProgress === null && this.#mayProgress()) this.#startProgress();
    const waiting: Waiting = {
      step,
      index,
      part,
      phase,
      cancelDeadline: this.#host.after(ms, () => {
        this.#settle(waiting, "timeout", new Error(`not settled after ${Math.round(ms) / 1000} s`));
      }),
    };
    this.#waiting = waiting;
    promise.then(
      (value) => this.#settle(waiting, "value", value),
      (error: unknown) => this.#settle(waiting, "error", error),
    );
  }

  #settle(waiting: Waiting, how: "value" | "error" | "timeout", value: unknown): void {
    const { part, phase, index } = waiting;
    if (this.#waiting !== waiting) {
      // Its time was over, or the connection: what it says now changes nothing.
      if (how === "error") this.#reportFailure("late", part.filter, phase, value, "none");
      return;
    }
    waiting.cancelDeadline();
    this.#waiting = null;
    const isEnded =
      how === "value" ? value !== undefined && this.#apply(part, phase, value) : this.#fail(part, phase, how, value);
    if (!isEnded) this.#run(phase, index + 1);
    // Still the same phase if another handler is awaited; see #wait.
    if (this.isWaiting) return;
    this.#stopWaiting();
    this.#host.resume();
  }

  #stopWaiting(): void {
    this.#waiting?.cancelDeadline();
    this.#waiting = null;
    this.#deadline = 0;
    this.#cancelProgress?.();
    this.#cancelProgress = null;
  }

  /** Servers older than PROGRESS would take it for an error; QUARANTINE came with the same release (Sendmail 8.13). */
  #mayProgress(): boolean {
    const { version, actions } = this.session.options;
    return version >= 6 || (actions & ACTION.QUARANTINE) !== 0;
  }

  #startProgress(): void {
    this.#cancelProgress = this.#host.after(PROGRESS_INTERVAL_MS, () => {
      this.#writer.packet(PLAIN_REPLIES.PROGRESS);
      this.#host.flush();
      this.#startProgress();
    });
  }

  #subject(layers: readonly FilterChanges[] = this.#allChanges()): Subject {
    const { client, macros } = this.session;
    const { message } = this;
    const address = client.address === "" ? client.family : client.address;
    return {
      queueId: macros.get("i") ?? "",
      client: `${client.hostname} [${address}]`,
      sender: message?.sender.raw ?? "",
      recipients: message === null ? [] : applyRecipients(message, layers).map((recipient) => recipient.raw),
    };
  }

  #reportVerdict(
    decision: Decision,
    filter: ChainFilter | null,
    phase: Phase,
    isFallback: boolean,
    scope: VerdictReport["scope"],
  ): void {
    if (decision.kind === "skip") return;
    this.#host.report({
      ...this.#subject(),
      kind: "verdict",
      verdict: decision.kind,
      scope,
      filter: filter?.loaded.name ?? null,
      phase,
      site: siteOf(decision.origin),
      reply: decision.reply,
      reason: null,
      isFallback,
      isObserved: filter?.isObserved ?? false,
      changes: 0,
    });
  }

  #reportObservedChanges(part: FilterPart, changes: FilterChanges): void {
    this.#host.report({
      ...this.#subject(),
      kind: "verdict",
      verdict: changes.quarantine === null ? "accept" : "quarantine",
      scope: "message",
      filter: part.filter.loaded.name,
      phase: "eom",
      site: siteOf(changes.quarantine?.origin),
      reply: null,
      reason: changes.quarantine?.reason ?? null,
      isFallback: false,
      isObserved: true,
      changes: changes.count,
    });
  }

  #reportFailure(
    cause: FailureReport["cause"],
    filter: ChainFilter | null,
    phase: EventPhase,
    error: unknown,
    fallback: FailureReport["fallback"],
  ): void {
    const site: Site | null =
      siteOf(error) ?? (filter === null ? null : { file: filter.files[phase.name] ?? "", line: 0 });
    this.#host.report({
      ...this.#subject(),
      kind: "failure",
      cause,
      filter: filter?.loaded.name ?? null,
      phase: phase.name,
      site,
      message: error instanceof Error ? `${error.name}: ${error.message}` : `thrown: ${String(error)}`,
      fallback,
    });
  }
}

function isOfMessage(phase: PhaseInfo): boolean {
  return phase.scope === "message" || phase.scope === "recipient";
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
