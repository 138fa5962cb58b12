/**
 * The protocol session under any stream and any decisions of its owner: events or a ProtocolError and nothing else, the
 * same for every split, exactly one reply for each packet that wants one, and an end for all that was begun.
 */
import { UNKNOWN_CLIENT } from "../../../src/protocol/client.ts";
import { encodeReplyCode, PLAIN_REPLIES, ReplyWriter } from "../../../src/protocol/encode.ts";
import { ProtocolError } from "../../../src/protocol/errors.ts";
import { decodeReply } from "../../../src/protocol/replies.ts";
import { type EventPhase, MilterSession } from "../../../src/protocol/session.ts";
import { PHASES } from "../../../src/protocol/phases.ts";
import { Random } from "../../protocol/random.ts";
import { anyStream } from "../../protocol/streams.ts";
import { ALL, packetsOf } from "../../protocol/wire.ts";
import { Fault, must, type Target } from "../target.ts";
import { owedReplies } from "./owed.ts";

const LIMITS = [
  { packet: 1 << 20, macros: 4096 },
  { packet: 70_000, macros: 10 },
  { packet: 30, macros: 0 },
] as const;

const REFUSALS = [
  PLAIN_REPLIES.REJECT,
  PLAIN_REPLIES.TEMPFAIL,
  encodeReplyCode("550 5.7.1 no"),
  encodeReplyCode("421 bye"),
];
const FINALS = [...REFUSALS, PLAIN_REPLIES.ACCEPT, PLAIN_REPLIES.DISCARD];
/** Longer streams are not run byte by byte. */
const MOST_SINGLE_BYTES = 5000;

/** An owner that decides at random; the same at each run over the same events. */
class Owner {
  readonly log: string[] = [];
  readonly writer = new ReplyWriter();
  readonly session: MilterSession;
  readonly #random: Random;
  pushed = 0;
  error = "";
  #isMessageOpen = false;
  #eventsSinceClose = 0;
  #closes = 0;

  constructor(seed: number) {
    this.#random = new Random(seed);
    const random = this.#random;
    const protocol = random.pick([0, ALL, ALL, 0x400, random.u32() & ALL]);
    // One that is switched off is not sent; it may come nevertheless.
    const macros = random.chance(0.3) ? { RCPT: ["{rcpt_mailer}"], EOM: ["i"] } : {};
    this.session = new MilterSession(
      { actions: random.u32() & 0x1ff, protocol, macros },
      random.pick(LIMITS),
      this.writer,
    );
  }

  /** @param isPoisoned each read is overwritten once it was taken */
  run(reads: readonly Uint8Array[], isPoisoned: boolean): void {
    const { session } = this;
    try {
      for (const read of reads) {
        const chunk = Buffer.from(read);
        const wasNegotiated = session.state !== "start";
        session.push(chunk);
        this.pushed += read.length;
        session.survey();
        for (let event = session.next(); event !== null; event = session.next()) {
          this.#take(event);
        }
        if (isPoisoned && !session.isOver) chunk.fill(0x2a);
        const isWhole = wasNegotiated && !session.isOver;
        must(!isWhole || session.unread.owed === 0, () => `owed ${session.unread.owed} with all packets taken`);
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.error = error.code;
    }
    const { length } = this.writer;
    let ends = 0;
    for (let event = session.hangUp(); event !== null; event = session.hangUp()) {
      must(++ends <= 2, "hangUp gives more than abort and close");
      this.#take(event);
    }
    must(this.writer.length === length, "a reply after the end");
    must(!this.#isMessageOpen, "a message has no abort");
    must(this.#eventsSinceClose === 0, "a session has no close");
  }

  /** Bytes of the packets that were taken. */
  get taken(): number {
    return this.pushed - this.session.framer.restBytes;
  }

  get result(): string {
    const replies = Buffer.from(this.writer.copy()).toString("latin1");
    return JSON.stringify({ log: this.log, replies, error: this.error });
  }

  #take(event: EventPhase): void {
    const { session } = this;
    const { bytes, start, end } = session;
    const payload =
      event.command === 0 || event === PHASES.abort ? "" : Buffer.from(bytes.subarray(start, end)).toString("latin1");
    const macros = ["i", "j", "{x}"].map((name) => session.macros.get(name));
    this.log.push(
      JSON.stringify([event.name, payload, session.wantsReply, macros, session.client, session.macrosOverLimit]),
    );
    this.#follow(event);
    this.#decide(event);
  }

  /** What must hold between events. */
  #follow(event: EventPhase): void {
    const isOfMessage = event.scope === "message" || event.scope === "recipient";
    if (event === PHASES.close) {
      this.#closes += 1;
      must(this.#eventsSinceClose > 0 || this.#closes === 1, "a close for nothing");
      this.#eventsSinceClose = 0;
    } else this.#eventsSinceClose += 1;
    if (event === PHASES.abort) must(this.#isMessageOpen, "an abort without a message");
    else if (!isOfMessage && event !== PHASES.unknown) must(!this.#isMessageOpen, `${event.name} within a message`);
    else if (event === PHASES.envfrom) must(!this.#isMessageOpen, "a message within a message");
    if (isOfMessage) this.#isMessageOpen = true;
  }

  #decide(event: EventPhase): void {
    const { session } = this;
    const random = this.#random;
    switch (event) {
      case PHASES.abort:
        session.endMessage();
        this.#isMessageOpen = false;
        return;
      case PHASES.close:
        session.endSession();
        must(
          session.client === UNKNOWN_CLIENT && session.macros.get("j") === undefined,
          "a session left something behind",
        );
        return;
      case PHASES.connect:
      case PHASES.helo:
        if (random.chance(0.1)) session.decideConnection(random.pick([...REFUSALS, PLAIN_REPLIES.ACCEPT]));
        else session.proceed();
        return;
      case PHASES.unknown:
        if (random.chance(0.3)) session.answer(random.pick(REFUSALS));
        else session.proceed();
        return;
      default:
    }
    if (session.wantsReply && random.chance(event === PHASES.eom ? 0.5 : 0.1)) {
      session.decideMessage(random.pick(FINALS));
      this.#isMessageOpen = false;
    } else if (event === PHASES.eom) {
      session.proceed();
      session.endMessage();
      this.#isMessageOpen = false;
    } else if (event === PHASES.envrcpt && random.chance(0.2)) session.answer(random.pick(REFUSALS));
    else if (event === PHASES.body && session.maySkip && random.chance(0.2)) session.answer(PLAIN_REPLIES.SKIP);
    else session.proceed();
  }
}

export const sessionTarget: Target = {
  name: "session",
  unit: "packet",
  generate: anyStream,
  check(input, random) {
    const seed = random.u32();
    const whole = new Owner(seed);
    whole.run([input], false);
    const cuts = new Owner(seed);
    cuts.run(random.cut(input), true);
    must(cuts.result === whole.result, () => `cuts give ${cuts.result}, all at once ${whole.result}`);
    if (input.length <= MOST_SINGLE_BYTES) {
      const single = new Owner(seed);
      single.run(
        Array.from(input, (byte) => Buffer.of(byte)),
        true,
      );
      must(single.result === whole.result, () => `byte by byte gives ${single.result}, all at once ${whole.result}`);
    }
    checkReplies(whole, Buffer.from(input));
  },
};

function checkReplies(owner: Owner, input: Buffer): void {
  const replies = packetsOf(owner.writer.copy());
  for (const reply of replies) {
    const bytes = Buffer.from(reply, "latin1");
    decodeReply(bytes[0]!, bytes, 1, bytes.length);
  }
  const isCommandError = owner.error !== "" && !/LENGTH_ZERO|TOO_LARGE/.test(owner.error);
  const { protocol } = owner.session.options;
  const owed = owedReplies(input.subarray(0, owner.taken), protocol, isCommandError);
  if (replies.length !== owed.length) {
    throw new Fault(`${replies.length} replies (${replies.map(([code]) => code).join("")}) to ${owed.join("")}`);
  }
}
