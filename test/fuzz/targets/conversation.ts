/**
 * The whole chain in memory, with filters that do anything: whatever the stream and the handlers, nothing but a
 * ProtocolError leaves it, each command has one reply that Postfix would take, and changes come only before that of `eom`.
 */
import { ReplyWriter } from "../../../src/protocol/encode.ts";
import { Conversation } from "../../../src/handler/conversation.ts";
import { ProtocolError } from "../../../src/protocol/errors.ts";
import { decodeReply } from "../../../src/protocol/replies.ts";
import { PHASE_NAMES } from "../../../src/protocol/phases.ts";
import { accept, discard, reject, skip, tempfail } from "../../../src/index.ts";
import { type AnyFilter, chainOf, FakeHost, type Placed, settled } from "../../handler/harness.ts";
import { Random } from "../../protocol/random.ts";
import { anyStream } from "../../protocol/streams.ts";
import { packetsOf } from "../../protocol/wire.ts";
import { must, type Target } from "../target.ts";
import { owedReplies } from "./owed.ts";

const FALLBACKS = ["tempfail", "reject", "accept", "continue"] as const;
const ODD: readonly unknown[] = [
  undefined,
  null,
  "",
  "text",
  0,
  Number.NaN,
  1n,
  Symbol("odd"),
  {},
  [],
  // oxlint-disable-next-line unicorn/no-thenable -- what a handler may return, too
  { then: 1 },
  () => {},
];
const TEXTS = [
  "X-A",
  "Subject",
  "x-a",
  "",
  "a: b",
  "a\nb",
  "a\n b",
  "\0",
  "<a@b>",
  "<>",
  "a b",
  "\udc80",
  "x".repeat(300),
];

type Anything = Readonly<Record<string, (...args: unknown[]) => unknown>>;

/** A session or message with its types forgotten: handlers may do what the types do not let them. */
interface Loose {
  readonly message: Anything & { headers: unknown; recipients: unknown; sender: unknown };
  readonly macros: { get(name: string): unknown };
  readonly state: Record<string, unknown>;
}

const CHANGES = [
  "addHeader",
  "insertHeader",
  "changeHeader",
  "deleteHeader",
  "changeFrom",
  "addRecipient",
  "deleteRecipient",
  "replaceBody",
  "quarantine",
] as const;

/** One call of a handler: some reads, some changes, and then an end of any kind. */
function act(session: Loose, random: Random, host: FakeHost): unknown {
  const read = (get: () => unknown): void => {
    try {
      get();
    } catch (error) {
      // What the phase does not have says so; a handler that does not mind goes on.
      if (random.chance(0.1)) throw error;
    }
  };
  if (random.chance(0.3)) {
    read(() => JSON.stringify([session.message.sender, session.message.recipients]));
    read(() => [...(session.message.headers as Iterable<unknown>)]);
    read(() => session.message["body"]!());
    read(() => session.macros.get(random.pick(["i", "{i}", "", "{rcpt_mailer}"])));
  }
  for (let count = random.chance(0.3) ? random.below(4) : 0; count > 0; count--) {
    const argument = () =>
      random.chance(0.1) ? random.pick(ODD) : random.chance(0.3) ? random.below(4) : random.pick(TEXTS);
    read(() => session.message[random.pick(CHANGES)]!(argument(), argument(), argument()));
  }
  if (random.chance(0.6)) return undefined;
  const end = (): unknown => {
    switch (random.below(9)) {
      case 0:
        return accept();
      case 1:
        return discard();
      case 2:
        return skip();
      case 3:
        return reject(random.pick([undefined, "550 5.7.1 no", "550 100% \n two"]));
      case 4:
        return tempfail(random.pick([undefined, "451 4.7.1 later", "421 bye"]));
      case 5:
        return random.pick(ODD);
      case 6:
        throw random.pick([new Error("on purpose"), ...ODD]);
      default:
        return undefined;
    }
  };
  switch (random.below(5)) {
    case 0:
      return Promise.resolve().then(end);
    case 1: {
      const { promise, resolve } = Promise.withResolvers<void>();
      host.after(random.pick([0, 1000, 5000, 20_000, 300_000]), resolve);
      return promise.then(end);
    }
    case 2:
      return random.chance(0.3) ? new Promise(() => {}) : end();
    default:
      return end();
  }
}

function anyFilter(random: Random, host: FakeHost): Placed {
  const own = new Random(random.u32());
  const filter: Record<string, unknown> = {};
  for (const phase of PHASE_NAMES) {
    if (random.chance(0.5)) filter[phase] = (session: Loose) => act(session, own, host);
  }
  if (Object.keys(filter).length === 0) filter["eom"] = () => undefined;
  if (random.chance(0.3)) filter["collectBody"] = true;
  if (random.chance(0.2)) filter["rejectedRecipients"] = true;
  return [
    filter as AnyFilter,
    {
      onError: random.pick(FALLBACKS),
      onTimeout: random.pick(FALLBACKS),
      isObserved: random.chance(0.2),
      ...(random.chance(0.2) ? { timeoutMs: 1000 } : {}),
    },
  ];
}

const LIMITS = { headers: 3, headerBytes: 100, recipients: 2, macros: 60, body: 100 } as const;

export const conversationTarget: Target = {
  name: "conversation",
  unit: "packet",
  generate: anyStream,
  async check(input, random) {
    const host = new FakeHost(random.chance(0.3));
    const filters = Array.from({ length: 1 + random.below(3) }, () => anyFilter(random, host));
    const chain = chainOf(filters, {
      onError: random.pick(FALLBACKS),
      deferContent: random.chance(0.7),
      ...(random.chance(0.3) ? { limits: LIMITS } : {}),
    });
    const writer = new ReplyWriter();
    const conversation = new Conversation(chain, writer, host);
    const { session } = conversation;
    let sent = Buffer.alloc(0);
    let pushed = 0;
    let problem: unknown = null;
    const flush = (): void => {
      sent = Buffer.concat([sent, writer.buffer.subarray(0, writer.length)]);
      writer.clear();
    };
    const work = (): void => {
      try {
        conversation.pump();
      } catch (error) {
        problem = error;
      }
      if (conversation.isWaiting) {
        session.survey();
        conversation.foresee(random.chance(0.1));
      }
      flush();
    };
    host.flush = flush;
    host.failed = (error) => {
      problem = error;
    };
    host.resume = () => {
      if (problem === null) work();
    };
    for (const piece of random.cut(input)) {
      if (problem !== null || conversation.isOver) break;
      const chunk = Buffer.from(piece);
      // The session may free the memory of what it is given, and its length is 0 then.
      session.push(chunk);
      pushed += piece.length;
      if (conversation.isWaiting) {
        session.survey();
        conversation.foresee(random.chance(0.1));
      } else work();
      if (!conversation.isWaiting && !conversation.isOver && problem === null) chunk.fill(0x2a);
      if (random.chance(0.3)) {
        await settled();
        if (random.chance(0.5)) host.advance(random.pick([500, 4000, 10_000]));
      }
    }
    // What is still awaited has all the time there is.
    for (let turn = 0; turn < 40 && conversation.isWaiting && random.chance(0.95); turn++) {
      await settled();
      host.advance(60_000);
    }
    await settled();
    if (problem !== null && !(problem instanceof ProtocolError)) throw problem;
    const isOpen = problem !== null || conversation.isWaiting;
    const taken = pushed - session.framer.restBytes;
    const { protocol } = session.options;
    conversation.hangUp();
    writer.clear();
    await settled();
    host.advance(1_000_000);
    await settled();
    must(writer.length === 0 || conversation.isOver, "something is written after the end");
    const isLengthError = problem instanceof ProtocolError && /LENGTH_ZERO|TOO_LARGE/.test(problem.code);
    checkReplies(sent, owedReplies(Buffer.from(input).subarray(0, taken), protocol, isOpen && !isLengthError));
  },
};

const CHANGE_CODES = new Set("himb+2-eq");

/** Changes and progress come before a final reply, changes right before one, a new body in one run. */
function checkReplies(sent: Buffer, owed: readonly string[]): void {
  let answered = 0;
  let before = "";
  for (const reply of packetsOf(sent)) {
    const bytes = Buffer.from(reply, "latin1");
    const code = reply[0]!;
    decodeReply(bytes[0]!, bytes, 1, bytes.length);
    if (CHANGE_CODES.has(code)) {
      const command = owed[answered];
      must(command === undefined || command === "E", () => `a change ${code} before the reply to ${command}`);
      const isNewBody = code === "b" && before.includes("b") && !before.endsWith("b");
      must(!isNewBody, () => `a body in two runs: ${before}${code}`);
      before += code;
    } else if (code === "p") {
      must(before === "", () => `progress behind the changes ${before}`);
    } else {
      if (before !== "") must(code === "c", () => `${code} after the changes ${before}`);
      before = "";
      answered += 1;
    }
  }
  must(before === "", () => `changes ${before} without a final reply`);
  must(answered === owed.length, () => `${answered} replies to ${owed.join("")}`);
}
