/**
 * The filter's side of a milter connection, without I/O: push the bytes of a read, take events, give each a decision;
 * replies are appended to the writer. Handlers are not known here.
 *
 * An event is the {@link PhaseInfo} of its phase. Between an event and its decision nothing else may be taken. A
 * verdict and the reply that carries it are two things: where no reply is awaited, the owner keeps its verdict until
 * `eom`, which always has one.
 */
import { stringEnd } from "./bytes.ts";
import { type Client, readClient, UNKNOWN_CLIENT } from "./client.ts";
import { COMMAND, type CommandName, nameOf, PROTOCOL } from "./constants.ts";
import { PLAIN_REPLIES, plainCodeOf, type ReplyWriter } from "./encode.ts";
import { ProtocolError } from "./errors.ts";
import { Framer } from "./framer.ts";
import { SessionMacros } from "./macros.ts";
import { negotiate, type Options, readOffer, type Wants } from "./negotiate.ts";
import { isOfMessage, PHASE_LIST, type Phase, type PhaseInfo, PHASES } from "./phases.ts";
import { type PendingVerdict, Replay, type Resumption } from "./resumption.ts";
import { type SessionCommand, type SessionState, type Transition, TRANSITIONS } from "./state.ts";
import { END, OPENING, OWED, Survey } from "./survey.ts";

export interface SessionLimits {
  /** Bytes of a packet, its code included. */
  readonly packet: number;
  /** Bytes of the macros of one stage. */
  readonly macros: number;
}

export interface PacketTap {
  /** The payload is `bytes[start, end)`. */
  seen(code: number, bytes: Uint8Array, start: number, end: number): void;
}

export type EventPhase = PhaseInfo & { readonly name: Phase };

interface CommandInfo {
  readonly name: SessionCommand;
  readonly code: number;
  readonly phase: EventPhase;
  readonly steps: Readonly<Record<SessionState, Transition>>;
}

/** By code byte; undefined for MACRO and for bytes that are no command. */
const COMMANDS: (CommandInfo | undefined)[] = new Array(256).fill(undefined);
for (const [name, code] of Object.entries(COMMAND) as [CommandName, number][]) {
  if (name === "MACRO") continue;
  const steps = Object.fromEntries(Object.entries(TRANSITIONS).map(([state, row]) => [state, row[name]]));
  COMMANDS[code] = {
    name,
    code,
    phase: PHASE_LIST.find((phase) => phase.command === code) ?? PHASES.close,
    steps: steps as Record<SessionState, Transition>,
  };
}

/** By code byte, the marks of a survey: commands get a reply unless their NR flag was granted. */
const ANSWERED = new Uint8Array(256);
for (const phase of PHASE_LIST) if (phase !== PHASES.abort && phase !== PHASES.close) ANSWERED[phase.command] = OWED;
/** Once BODYEOB is read, the mail server also waits for the handlers of all packets before it. */
ANSWERED[COMMAND.BODYEOB]! |= END;
/** A worker that resumes the session without them would have the wrong client or HELO name. */
for (const phase of [PHASES.connect, PHASES.helo]) ANSWERED[phase.command]! |= OPENING;

/** By code byte, the commands that end a session, and a message, as marks of a survey: `firstOwed` is the first of them. */
const SESSION_ENDS = new Uint8Array(256);
for (const name of ["QUIT", "QUIT_NC"] as const) SESSION_ENDS[COMMAND[name]] = OWED;
const MESSAGE_ENDS = SESSION_ENDS.slice();
for (const name of ["BODYEOB", "ABORT"] as const) MESSAGE_ENDS[COMMAND[name]] = OWED;

const NR_FLAGS = PHASE_LIST.reduce((flags, phase) => flags | phase.nr, 0);
const ANSWERED_UNDER = new Map<number, Uint8Array>();

/** The marks once these flags are granted. Sessions share them, since there are few combinations of flags. */
function answeredUnder(protocol: number): Uint8Array {
  const key = protocol & NR_FLAGS;
  let answered = ANSWERED_UNDER.get(key);
  if (answered === undefined) {
    answered = ANSWERED.slice();
    for (const phase of PHASE_LIST) if ((key & phase.nr) !== 0) answered[phase.command]! &= ~OWED;
    ANSWERED_UNDER.set(key, answered);
  }
  return answered;
}

const ALL_CODES = new Uint8Array(256).fill(1);

export class MilterSession {
  readonly macros = new SessionMacros();
  /** The packets that were pushed and not taken: see {@link MilterSession.survey}. */
  readonly unread = new Survey();
  /** The negotiated version, actions and protocol steps. */
  options: Options = { version: 0, actions: 0, protocol: 0 };
  /** Set at the `connect` event; {@link UNKNOWN_CLIENT} before. */
  client: Client = UNKNOWN_CLIENT;
  /** Whether the current event gets a reply of its own. If not, a verdict waits for `eom`. */
  wantsReply = false;
  /** True after QUIT: close the connection once the replies are out. */
  isOver = false;
  /** A MACRO packet was over `limits.macros` and was dropped; the owner decides on the message. */
  macrosOverLimit = false;

  /** Of HELO, MAIL, RCPT, HEADER and UNKNOWN: bytes of the first string of the packet, without its NUL. */
  firstLength = 0;
  /** Of HEADER: bytes of the second string. */
  secondLength = 0;

  /** Gets each packet whose code is in `tapped`, once it was taken: for the session record and for tracing. */
  tap: PacketTap | null = null;
  /** By code byte, 1 for the packets that `tap` gets. */
  tapped: Uint8Array = ALL_CODES;

  readonly #wants: Wants;
  readonly #limits: SessionLimits;
  readonly #writer: ReplyWriter;
  readonly #framer: Framer;
  #state: SessionState = "start";
  /** The command of the current packet has to be looked at again: an `abort` or `close` event came before it. */
  #again = false;
  /** BODYEOB carried a piece of body, whose event is out; its `eom` follows. */
  #eomDue = false;
  /** A session has begun for which no `close` event was given. */
  #open = false;
  /** As `macrosOverLimit`, for macros whose command has not come yet. */
  #isOverPending = false;
  /** Of a session that was begun elsewhere; else null. */
  #replay: Replay | null = null;
  /** The reply that ended the message or the connection early. */
  #final: Uint8Array = PLAIN_REPLIES.TEMPFAIL;
  /** By code byte, the marks of the commands: see `Survey`. */
  #owed: Uint8Array = ANSWERED;

  constructor(wants: Wants, limits: SessionLimits, writer: ReplyWriter) {
    this.#wants = wants;
    this.#limits = limits;
    this.#writer = writer;
    this.#framer = new Framer(limits.packet);
  }

  get state(): SessionState {
    return this.#state;
  }

  /** The payload of the current event's packet is `bytes[start, end)`; see `Framer` for how long it is valid. */
  get bytes(): Uint8Array {
    return this.#framer.bytes;
  }
  get start(): number {
    return this.#framer.start;
  }
  get end(): number {
    return this.#framer.end;
  }
  /** The framer, for the session record and for keeping bytes past their read. */
  get framer(): Framer {
    return this.#framer;
  }

  /** Whether values of headers carry the white space that followed the colon, both ways. */
  get keepsLeadingSpace(): boolean {
    return (this.options.protocol & PROTOCOL.HDR_LEADSPC) !== 0;
  }

  /** Whether SKIP may be answered to BODY. */
  get maySkip(): boolean {
    return (this.options.protocol & PROTOCOL.SKIP) !== 0;
  }

  /** Takes the bytes of a read. They must stay unchanged until `next` gives null. */
  push(chunk: Uint8Array): void {
    this.unread.isCurrent = false;
    this.#framer.push(chunk);
  }

  /** The current event is replayed: its reply was sent before. */
  get isReplay(): boolean {
    return this.#replay !== null && this.#replay.isSilent;
  }

  /**
   * The code of the current packet if its reply is still to come, else 0.
   * @param isWaiting the current event has not been decided
   */
  owing(isWaiting: boolean): number {
    const { code } = this.#framer;
    const isOwed = isWaiting && this.wantsReply;
    const isOwedLater = this.#eomDue || (this.#again && !this.isReplay && (this.#owed[code]! & OWED) !== 0);
    return isOwed || isOwedLater ? code : 0;
  }

  /** Number of whole packets that have come and are not dealt with, without the event at hand and the replayed opening. */
  get untaken(): number {
    const left = this.#replay === null ? 0 : this.#replay.left;
    return this.unread.untaken - left + (this.#again || this.#eomDue ? 1 : 0);
  }

  /** The opening is being replayed: see {@link Replay}. */
  get isInOpening(): boolean {
    return this.#replay !== null && this.#replay.isInOpening;
  }

  /** The last packet of the opening gets a reply. */
  get answersOpening(): boolean {
    return this.#replay !== null && this.#replay.answersOpening;
  }

  /** Macros of a message have come whose command has not. A worker that resumes the session without them must not run handlers for that message. */
  get hasMacrosAhead(): boolean {
    if (this.#nextMessage !== null) return true;
    const { lastCode, lastFirst } = this.unread;
    if (this.untaken > 0) {
      // Packets before the last command go with it. An ABORT may come before the macros, also while a message is open.
      return lastCode === COMMAND.MACRO && (lastFirst === COMMAND.MAIL || this.#state !== "message");
    }
    const isOpen = this.#state === "message" || this.#state === "decided";
    return isOpen ? this.macros.areOfMail : this.macros.areOfMessage;
  }

  /** CONNECT or HELO, or macros of theirs, have come and are not dealt with. Replayed packets do not count. */
  get isOpeningAhead(): boolean {
    const { lastCode, lastFirst, openings } = this.unread;
    const isAnsweredAhead = this.#replay !== null && this.#replay.answersOpening && this.#replay.left > 0;
    if (openings > (isAnsweredAhead ? 1 : 0)) return true;
    const areMacros = this.untaken > 0 && lastCode === COMMAND.MACRO;
    return areMacros && (lastFirst === COMMAND.CONNECT || lastFirst === COMMAND.HELO);
  }

  get #pending(): PendingVerdict | null {
    return this.#replay === null ? null : this.#replay.pending;
  }

  get #nextMessage(): Uint8Array | null {
    return this.#replay === null ? null : this.#replay.nextMessage;
  }

  /** The state from which another worker would resume the session now. */
  get resumableState(): SessionState {
    const pending = this.#pending;
    if (pending === null) return this.#state;
    return pending.scope === "message" ? "decided" : "refused";
  }

  /** The plain code of the pending verdict, 0 if there is none. */
  get pendingCode(): number {
    const packet = this.#pending?.packet ?? this.#nextMessage;
    if (packet !== null) return plainCodeOf(packet);
    return this.#state === "decided" || this.#state === "refused" ? plainCodeOf(this.#final) : 0;
  }

  /** The end of the message is read, and its `eom` event is still to come. */
  get hasEndRead(): boolean {
    return this.#eomDue || this.unread.ends > 0;
  }

  /**
   * Whether the unread packets end the call of this phase: by an `ABORT` of its message before the end of that, or by a
   * `QUIT` of its SMTP session; null if they do not. It walks through them: call it where somebody asks.
   */
  endAhead(phase: EventPhase): "ABORT" | "QUIT" | null {
    const ahead = new Survey();
    this.#framer.survey(ahead, isOfMessage(phase) ? MESSAGE_ENDS : SESSION_ENDS, 0);
    const code = ahead.firstOwed;
    if (code === COMMAND.ABORT) return "ABORT";
    return code === 0 || code === COMMAND.BODYEOB ? null : "QUIT";
  }

  /** Brings {@link MilterSession.unread} up to date. It reads the bytes once a push; packets that are taken count down. */
  survey(): void {
    if (!this.unread.isCurrent) this.#framer.survey(this.unread, this.#owed, this.#replay?.silentLeft ?? 0);
  }

  /**
   * The next event, or null when more bytes are needed. Negotiation, macros, and commands to a message that has its
   * final reply are dealt with here.
   * @throws ProtocolError the peer broke the protocol; the connection can only be closed, after {@link hangUp}
   */
  next(): EventPhase | null {
    for (;;) {
      if (this.#eomDue) {
        this.#eomDue = false;
        this.#framer.start = this.#framer.end;
        this.wantsReply = true;
        return PHASES.eom;
      }
      if (this.isOver) return null;
      if (this.#again) this.#again = false;
      else {
        if (!this.#framer.next()) return null;
        this.unread.take(this.#framer.code);
        if (this.#replay !== null) {
          const pending = this.#replay.take();
          if (pending !== null) this.#putInForce(pending);
        }
      }

      const code = this.#framer.code;
      if (code === COMMAND.MACRO) {
        this.#takeMacros();
        this.#tell(code);
        continue;
      }
      const command = COMMANDS[code];
      if (command === undefined) {
        throw new ProtocolError("PMILTER_ERR_COMMAND", `unknown command ${nameOf(COMMAND, code)}`);
      }
      this.wantsReply = (this.#owed[code]! & OWED) !== 0 && !this.isReplay;
      switch (command.steps[this.#state]) {
        case "take": {
          this.#commitMacros();
          const nextMessage = this.#nextMessage;
          if (nextMessage !== null && isOfMessage(command.phase)) {
            this.#giveVerdict(nextMessage);
            continue;
          }
          const event = this.#take(command);
          this.#tell(code);
          if (event !== null) return event;
          continue;
        }
        case "abort":
          this.#again = true;
          return this.#abort();
        case "close":
          this.#again = true;
          if (this.#state === "message") return this.#abort();
          this.wantsReply = false;
          this.#state = "idle";
          if (!this.#open) continue;
          this.#open = false;
          return PHASES.close;
        case "drop":
          this.#commitMacros();
          continue;
        case "repeat":
          this.#commitMacros();
          if (this.wantsReply) this.#writer.packet(this.#final);
          continue;
        case "error":
          throw new ProtocolError(
            "PMILTER_ERR_ORDER",
            this.#state === "start" ? `${command.name} before OPTNEG` : `a second ${command.name} on one connection`,
          );
      }
    }
  }

  /**
   * The connection has ended without QUIT, or is about to: each call gives an event that is still due, then null.
   */
  hangUp(): EventPhase | null {
    this.isOver = true;
    this.wantsReply = false;
    if (this.#state === "message") return this.#abort();
    if (!this.#open) return null;
    this.#open = false;
    return PHASES.close;
  }

  /** Another worker may resume the session now: it is between messages, not refused, and past CONNECT. */
  get mayMove(): boolean {
    const { resumableState } = this;
    return !this.hasMacrosAhead && (resumableState === "connected" || resumableState === "decided");
  }

  /** Resumes a session that was negotiated and begun in another worker. Call it before anything is pushed. */
  resume(resumption: Resumption): void {
    const { actions, lost, opening, partial, protocol, version } = resumption;
    // Version 0: the negotiation is still to come.
    if (version !== 0) this.#grant({ version, actions, protocol });
    this.#replay = new Replay(resumption);
    this.#framer.push(opening);
    if (partial.length > 0) this.#framer.push(partial);
    if (lost !== null) this.#framer.expectLost(lost.missing, lost.code);
  }

  /** The replay is over: the pending verdict is in force, unless handlers refused the opening here. */
  #putInForce({ packet, scope }: PendingVerdict): void {
    if (this.#state === "refused") return;
    this.#open = true;
    this.#final = packet;
    this.#state = scope === "message" ? "decided" : "refused";
  }

  /** A message begins that already has its verdict: no handler runs for it. */
  #giveVerdict(packet: Uint8Array): void {
    this.#forgetVerdict();
    this.#open = true;
    this.answer(packet);
    this.#final = packet;
    this.endMessage();
    this.#state = this.#framer.code === COMMAND.BODYEOB ? "connected" : "decided";
  }

  #forgetVerdict(): void {
    if (this.#replay !== null) this.#replay.nextMessage = null;
  }

  /** The event is answered with CONTINUE, if it gets an answer. */
  proceed(): void {
    if (this.wantsReply) this.#writer.packet(PLAIN_REPLIES.CONTINUE);
  }

  /** The event is answered, and nothing changes: for SKIP, and for a verdict on one recipient or unknown command. */
  answer(packet: Uint8Array): void {
    if (this.wantsReply) this.#writer.packet(packet);
  }

  /** The final reply for the message. If the message is not at its end, its later commands get the same reply. */
  decideMessage(packet: Uint8Array): void {
    this.#writer.packet(packet);
    this.#final = packet;
    this.endMessage();
    if (this.#framer.code !== COMMAND.BODYEOB) this.#state = "decided";
  }

  /** The final reply for the connection. Later commands get the same reply. */
  decideConnection(packet: Uint8Array): void {
    this.answer(packet);
    this.#final = packet;
    this.#state = "refused";
  }

  /** The message is over: it got its `eom` reply, or was aborted. */
  endMessage(): void {
    if (this.#state === "message") this.#state = "connected";
    this.macros.clearFrom(COMMAND.MAIL);
    this.macrosOverLimit = false;
  }

  /** The session is over: nothing of it may reach the next session on this connection. */
  endSession(): void {
    this.#forgetVerdict();
    this.client = UNKNOWN_CLIENT;
    this.macros.clearFrom(COMMAND.CONNECT);
  }

  #tell(code: number): void {
    if (this.tap !== null && this.tapped[code] === 1)
      this.tap.seen(code, this.#framer.bytes, this.#framer.start, this.#framer.end);
  }

  #takeMacros(): void {
    if (this.#state === "start") throw new ProtocolError("PMILTER_ERR_ORDER", "MACRO before OPTNEG");
    const { bytes, start, end } = this.#framer;
    if (!this.macros.put(bytes, start, end, this.#limits.macros)) this.#isOverPending = true;
  }

  /** The current command is taken, or answered at once: its macros are in force. */
  #commitMacros(): void {
    this.macros.commit();
    if (!this.#isOverPending) return;
    this.#isOverPending = false;
    this.macrosOverLimit = true;
  }

  /** The event of a command that fits; null if it is dealt with here. */
  #take(command: CommandInfo): EventPhase | null {
    const { bytes, start, end } = this.#framer;
    switch (command.name) {
      case "OPTNEG":
        this.#negotiate(readOffer(bytes, start, end));
        return null;
      case "CONNECT":
        this.client = readClient(bytes, start, end);
        this.#open = true;
        this.#state = "connected";
        this.macros.clearAfter(COMMAND.CONNECT);
        break;
      case "HELO":
        this.firstLength = stringEnd(bytes, start, end, "the HELO name") - start;
        this.#begin("connected");
        this.macros.clearAfter(COMMAND.HELO);
        break;
      case "MAIL":
        this.#checkAddress("the first string of MAIL", "MAIL");
        this.#begin("message");
        this.macros.clearAfter(COMMAND.MAIL);
        break;
      case "RCPT":
        this.#checkAddress("the first string of RCPT", "RCPT");
        this.#begin("message");
        this.macros.clearAfter(COMMAND.RCPT);
        break;
      case "HEADER":
        this.#checkHeader();
        this.#begin("message");
        break;
      case "DATA":
      case "EOH":
      case "BODY":
        this.#begin("message");
        break;
      case "BODYEOB":
        this.#begin("message");
        if (end > start) {
          this.#eomDue = true;
          this.wantsReply = false;
          return PHASES.body;
        }
        break;
      case "UNKNOWN":
        this.firstLength = stringEnd(bytes, start, end, "the UNKNOWN command") - start;
        this.#open = true;
        break;
      case "ABORT":
        return this.#abort();
      case "QUIT":
      case "QUIT_NC": {
        this.isOver = command.name === "QUIT";
        this.#state = "idle";
        if (!this.#open) return null;
        this.#open = false;
        return PHASES.close;
      }
      default:
        return command.name satisfies never;
    }
    return command.phase;
  }

  #checkAddress(what: string, command: string): void {
    const { bytes, start, end } = this.#framer;
    this.firstLength = stringEnd(bytes, start, end, what) - start;
    checkEnd(bytes, end, command);
  }

  #checkHeader(): void {
    const { bytes, start, end } = this.#framer;
    const nameEnd = stringEnd(bytes, start, end, "the first string of HEADER");
    const valueEnd = stringEnd(bytes, nameEnd + 1, end, "string 2 of HEADER");
    checkEnd(bytes, end, "HEADER");
    this.firstLength = nameEnd - start;
    this.secondLength = valueEnd - nameEnd - 1;
  }

  /** The message is over at once: a command that comes while `abort` handlers are awaited causes no second `abort`. */
  #abort(): EventPhase {
    this.#state = "connected";
    this.wantsReply = false;
    return PHASES.abort;
  }

  #begin(state: "connected" | "message"): void {
    this.#open = true;
    this.#state = state;
  }

  #negotiate(offer: Options): void {
    const answer = negotiate(offer, this.#wants);
    this.#grant(answer);
    this.#writer.optneg(answer.version, answer.actions, answer.protocol, answer.lists);
  }

  #grant(options: Options): void {
    this.options = options;
    this.#state = "idle";
    // A session can end with nothing but `close` after its negotiation (libmilter calls the close callback then too).
    this.#open = true;
    this.#owed = answeredUnder(options.protocol);
  }
}

/** Checks that a payload ends with NUL. */
function checkEnd(bytes: Uint8Array, end: number, command: string): void {
  if (bytes[end - 1] === 0) return;
  throw new ProtocolError("PMILTER_ERR_MISSING_NUL", `the last string of ${command} does not end with NUL`);
}
