/**
 * Writes the record of a connection's session, with which the main thread can answer for the session at any moment, and
 * have another worker resume it. A step is recorded before it is worked on: a worker that is lost in it leaves a record.
 */
import type { ChainFilter } from "../handler/chain.ts";
import type { Conversation } from "../handler/conversation.ts";
import { USER_MACRO } from "../handler/reporter.ts";
import { COMMAND } from "../protocol/constants.ts";
import type { EventPhase } from "../protocol/session.ts";
import type { ResumedSession } from "../shared/messages.ts";
import { AHEAD_FLAGS, FLAG, type SessionRecords } from "../shared/session-records.ts";

/** The macro `i`. */
const QUEUE_ID_MACRO = 0x69;

/** By code byte, 1 for the packets that {@link Recorder.seen} has to get. */
export const RECORDED = new Uint8Array(256);
for (const name of ["OPTNEG", "QUIT", "QUIT_NC", "MACRO", "CONNECT", "HELO", "MAIL"] as const)
  RECORDED[COMMAND[name]] = 1;

export class Recorder {
  readonly #records: SessionRecords;
  readonly #slot: number;
  readonly #conversation: Conversation;
  #hasRead = false;
  /** As it is on record: see `MilterSession`. */
  #isOpeningAhead = false;

  constructor(records: SessionRecords, slot: number, conversation: Conversation) {
    this.#records = records;
    this.#slot = slot;
    this.#conversation = conversation;
  }

  /** The mail server has sent something to this worker. */
  get hasRead(): boolean {
    return this.#hasRead;
  }

  /** Another worker could resume the session: the packets of its opening are all on record. */
  get mayResume(): boolean {
    return this.#records.mayResume(this.#slot);
  }

  /** The session is resumed: on record before anything is worked on, since this worker may be lost as well. */
  resumed({ actions, opening, protocol, version }: ResumedSession): void {
    this.#records.setOptions(this.#slot, version, actions, protocol);
    this.#records.setOpening(this.#slot, opening);
    this.#setState();
    this.unread();
  }

  /** The unread packets, before they are worked on. */
  unread(): void {
    const { isWaiting, session } = this.#conversation;
    session.survey();
    const { framer, unread, untaken } = session;
    const owing = session.owing(isWaiting);
    const firstOwed = owing === 0 ? unread.firstOwed : owing;
    this.#records.setOwed(this.#slot, unread.owed + (owing === 0 ? 0 : 1), firstOwed, untaken);
    this.#records.setPartial(this.#slot, framer, unread);
    this.#setAhead(0, 0);
  }

  /** The mail server has sent something. */
  read(): void {
    this.unread();
    if (this.#hasRead) return;
    this.#hasRead = true;
    this.#records.setFlags(this.#slot, FLAG.READ);
  }

  /** The unread packets have been worked on as far as possible. Call it with the lock of the row, if replies were written. */
  settled(isHalfSent: boolean): void {
    const { isWaiting, session } = this.#conversation;
    const owing = session.owing(isWaiting);
    this.#setState();
    this.#setAhead(isHalfSent ? FLAG.UNSENT : 0, FLAG.UNSENT);
    if (!isWaiting) this.#records.endCall(this.#slot);
    // Which of the packets that are left gets the first reply is not known.
    this.#records.setOwed(this.#slot, session.unread.owed + (owing === 0 ? 0 : 1), owing, session.untaken);
  }

  /** A handler is about to run. */
  calling(phase: EventPhase, filter: ChainFilter): void {
    if (this.#isOpeningAhead) this.#setAhead(0, 0);
    // The other phases themselves tell whether a message is open.
    if (phase.scope === "none") this.#setState();
    this.#records.enter(this.#slot, phase, filter.index, this.#conversation.session.untaken);
  }

  /** The handler is awaited. @param alreadyMs how long its phase was awaited in another worker */
  waiting(alreadyMs: number): void {
    this.#records.wait(this.#slot, alreadyMs);
  }

  /** The rest of the replies has left. */
  sent(): void {
    this.#records.setFlags(this.#slot, 0, FLAG.UNSENT);
  }

  /** The session is over: it has nothing to resume. */
  over(): void {
    this.#records.setFlags(this.#slot, FLAG.OVER);
  }

  /** A packet was taken whose payload is `bytes[start, end)`: see `PacketTap`. */
  seen(code: number, bytes: Uint8Array, start: number, end: number): void {
    const { session } = this.#conversation;
    // Replayed packets are on record. Recording them again would begin the record anew, and drop the packets after them.
    if (session.isInOpening) return;
    switch (code) {
      case COMMAND.OPTNEG: {
        const { actions, protocol, version } = session.options;
        this.#records.setOptions(this.#slot, version, actions, protocol);
        return;
      }
      case COMMAND.QUIT:
        this.over();
        return;
      case COMMAND.QUIT_NC:
        this.#records.forgetOpening(this.#slot);
        this.#records.setFlags(this.#slot, FLAG.ANEW);
        return;
      case COMMAND.MACRO:
        this.#keepQueueId(bytes, start, end);
        break;
      case COMMAND.MAIL:
        this.#records.setMail(
          this.#slot,
          bytes,
          start,
          start + session.firstLength,
          session.macros.get(USER_MACRO) ?? "",
        );
        return;
      case COMMAND.CONNECT:
        this.#records.setFlags(this.#slot, FLAG.ANEW);
        break;
      default:
    }
    this.#records.keepOpening(this.#slot, code, bytes, start, end);
  }

  #setState(): void {
    const { pendingCode, session } = this.#conversation;
    this.#records.setState(this.#slot, session.resumableState, pendingCode);
  }

  /** Sets the flags about packets that were not worked on, together with flags of the caller. */
  #setAhead(set: number, clear: number): void {
    const { answersOpening, hasMacrosAhead, isInOpening, isOpeningAhead } = this.#conversation.session;
    this.#isOpeningAhead = isOpeningAhead;
    const ahead =
      (hasMacrosAhead ? FLAG.MACROS_AHEAD : 0) |
      (isOpeningAhead ? FLAG.OPENING_AHEAD : 0) |
      (isInOpening ? FLAG.IN_OPENING : 0) |
      (answersOpening ? FLAG.ANSWERS_OPENING : 0);
    this.#records.setFlags(this.#slot, ahead | set, AHEAD_FLAGS | clear);
  }

  /** Both mail servers name the queue id first: Sendmail from MAIL on, Postfix once it has accepted a recipient. */
  #keepQueueId(bytes: Uint8Array, start: number, end: number): void {
    const isThere = bytes[start + 1] === QUEUE_ID_MACRO && bytes[start + 2] === 0;
    const valueEnd = isThere ? bytes.indexOf(0, start + 3) : -1;
    if (valueEnd !== -1 && valueEnd < end) this.#records.setQueueId(this.#slot, bytes, start + 3, valueEnd);
    else if (bytes[start] === COMMAND.MAIL) this.#records.setQueueId(this.#slot, bytes, 0, 0);
  }
}
