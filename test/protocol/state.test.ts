/**
 * The state table, exhaustively: every state with every command, under every set of NR flags, gives exactly these
 * events, this one reply (or none), and this state (docs/protocol.md, "Order of commands").
 */
import { describe, expect, test } from "bun:test";
import { ReplyWriter } from "../../src/protocol/encode.ts";
import { PLAIN_REPLIES } from "../../src/protocol/encode.ts";
import { ProtocolError } from "../../src/protocol/errors.ts";
import { MilterSession } from "../../src/protocol/session.ts";
import { type SessionCommand, type SessionState, SESSION_STATES } from "../../src/protocol/state.ts";
import { mustEqual } from "./random.ts";
import { ALL, cmd, NR, packetsOf } from "./wire.ts";

const LIMITS = { packet: 1 << 20, macros: 4096 };

/** What is sent as each command; a piece of body in BODYEOB is a case of its own. */
const SENT = {
  OPTNEG: cmd.optneg(),
  CONNECT: cmd.connect(),
  HELO: cmd.helo(),
  MAIL: cmd.mail(),
  RCPT: cmd.rcpt(),
  DATA: cmd.data(),
  HEADER: cmd.header(),
  EOH: cmd.eoh(),
  BODY: cmd.body(),
  BODYEOB: cmd.eom(),
  "BODYEOB with body": cmd.eom("Bye\r\n"),
  ABORT: cmd.abort(),
  QUIT: cmd.quit(),
  QUIT_NC: cmd.quitNc(),
  UNKNOWN: cmd.unknown(),
} as const satisfies Record<SessionCommand | "BODYEOB with body", Buffer>;
type Sent = keyof typeof SENT;

/** The flag that takes a command's reply away. */
const NR_OF: Readonly<Partial<Record<Sent, number>>> = {
  CONNECT: NR.connect,
  HELO: NR.helo,
  MAIL: NR.envfrom,
  RCPT: NR.envrcpt,
  DATA: NR.data,
  HEADER: NR.header,
  EOH: NR.eoh,
  BODY: NR.body,
  UNKNOWN: NR.unknown,
};

/**
 * `events > reply > state after`. Replies: `c` CONTINUE and `r` the final reply again, both only if no NR flag takes
 * them away; `-` none; `O` the answer to OPTNEG; `error` a ProtocolError PMILTER_ERR_ORDER.
 */
const EXPECTED: Readonly<Record<SessionState, Readonly<Record<Sent, string>>>> = {
  start: {
    OPTNEG: " > O > idle",
    CONNECT: "error",
    HELO: "error",
    MAIL: "error",
    RCPT: "error",
    DATA: "error",
    HEADER: "error",
    EOH: "error",
    BODY: "error",
    BODYEOB: "error",
    "BODYEOB with body": "error",
    ABORT: "error",
    QUIT: " > - > idle",
    QUIT_NC: "error",
    UNKNOWN: "error",
  },
  idle: {
    OPTNEG: "error",
    CONNECT: "connect > c > connected",
    HELO: "helo > c > connected",
    MAIL: "envfrom > c > message",
    RCPT: "envrcpt > c > message",
    DATA: "data > c > message",
    HEADER: "header > c > message",
    EOH: "eoh > c > message",
    BODY: "body > c > message",
    BODYEOB: "eom > c > connected",
    "BODYEOB with body": "body eom > c > connected",
    ABORT: " > - > idle",
    QUIT: "close > - > idle",
    QUIT_NC: "close > - > idle",
    UNKNOWN: "unknown > c > idle",
  },
  connected: {
    OPTNEG: "error",
    CONNECT: "close connect > c > connected",
    HELO: "helo > c > connected",
    MAIL: "envfrom > c > message",
    RCPT: "envrcpt > c > message",
    DATA: "data > c > message",
    HEADER: "header > c > message",
    EOH: "eoh > c > message",
    BODY: "body > c > message",
    BODYEOB: "eom > c > connected",
    "BODYEOB with body": "body eom > c > connected",
    ABORT: " > - > connected",
    QUIT: "close > - > idle",
    QUIT_NC: "close > - > idle",
    UNKNOWN: "unknown > c > connected",
  },
  message: {
    OPTNEG: "error",
    CONNECT: "abort close connect > c > connected",
    HELO: "abort helo > c > connected",
    MAIL: "abort envfrom > c > message",
    RCPT: "envrcpt > c > message",
    DATA: "data > c > message",
    HEADER: "header > c > message",
    EOH: "eoh > c > message",
    BODY: "body > c > message",
    BODYEOB: "eom > c > connected",
    "BODYEOB with body": "body eom > c > connected",
    ABORT: "abort > - > connected",
    QUIT: "abort close > - > idle",
    QUIT_NC: "abort close > - > idle",
    UNKNOWN: "unknown > c > message",
  },
  // The message has its final reply: nothing of it is an event any more, and no abort follows.
  decided: {
    OPTNEG: "error",
    CONNECT: "close connect > c > connected",
    HELO: "helo > c > connected",
    MAIL: "envfrom > c > message",
    RCPT: " > r > decided",
    DATA: " > r > decided",
    HEADER: " > r > decided",
    EOH: " > r > decided",
    BODY: " > r > decided",
    BODYEOB: " > r > decided",
    "BODYEOB with body": " > r > decided",
    ABORT: " > - > decided",
    QUIT: "close > - > idle",
    QUIT_NC: "close > - > idle",
    UNKNOWN: "unknown > c > decided",
  },
  refused: {
    OPTNEG: "error",
    CONNECT: "close connect > c > connected",
    HELO: " > r > refused",
    MAIL: " > r > refused",
    RCPT: " > r > refused",
    DATA: " > r > refused",
    HEADER: " > r > refused",
    EOH: " > r > refused",
    BODY: " > r > refused",
    BODYEOB: " > r > refused",
    "BODYEOB with body": " > r > refused",
    ABORT: " > - > refused",
    QUIT: "close > - > idle",
    QUIT_NC: "close > - > idle",
    UNKNOWN: " > r > refused",
  },
};

/** An owner that lets everything pass, as `Conversation` does without handlers. */
class Owner {
  readonly writer = new ReplyWriter();
  readonly session: MilterSession;

  constructor(nr: number) {
    this.session = new MilterSession({ actions: 0, protocol: nr, macros: {} }, LIMITS, this.writer);
  }

  send(bytes: Uint8Array): string[] {
    this.session.push(bytes);
    const events: string[] = [];
    for (let event = this.session.next(); event !== null; event = this.session.next()) {
      events.push(event.name);
      if (event.name === "abort") this.session.endMessage();
      else if (event.name === "close") this.session.endSession();
      else {
        this.session.proceed();
        if (event.name === "eom") this.session.endMessage();
      }
    }
    return events;
  }

  replies(): string {
    const text = packetsOf(this.writer.buffer.subarray(0, this.writer.length)).map((sent) => sent[0]);
    this.writer.clear();
    return text.join("");
  }
}

function ownerIn(state: SessionState, nr: number): Owner {
  const owner = new Owner(nr);
  if (state === "start") return owner;
  owner.send(SENT.OPTNEG);
  if (state !== "idle") owner.send(SENT.CONNECT);
  if (state === "message" || state === "decided") owner.send(SENT.MAIL);
  if (state === "decided") owner.session.decideMessage(PLAIN_REPLIES.REJECT);
  if (state === "refused") owner.session.decideConnection(PLAIN_REPLIES.REJECT);
  owner.replies();
  return owner;
}

/** All 512 sets of NR flags. */
const NR_SETS = Array.from({ length: 512 }, (_, set) =>
  Object.values(NR).reduce((mask, flag, index) => ((set >> index) & 1 ? mask | flag : mask), 0),
);

describe("MilterSession", () => {
  describe.each(Object.values(SESSION_STATES))("in state %s", (state) => {
    test.each(Object.keys(SENT) as Sent[])("takes %s, under each set of NR flags", (sent) => {
      const expected = EXPECTED[state][sent];
      const [events, reply, after] = expected.split(" > ");
      for (const nr of NR_SETS) {
        const owner = ownerIn(state, nr);
        mustEqual(owner.session.state, state, "state before");
        if (expected === "error") {
          let code = "none";
          try {
            owner.send(SENT[sent]);
          } catch (error) {
            code = (error as ProtocolError).code;
          }
          mustEqual(code, "PMILTER_ERR_ORDER", "error");
          mustEqual(owner.replies(), "", "replies to an error");
          continue;
        }
        const isSilent = state !== "start" && ((NR_OF[sent] ?? 0) & nr) !== 0;
        const owed = reply === "-" || isSilent ? "" : reply!;
        mustEqual(owner.send(SENT[sent]).join(" "), events!, `events under NR ${nr.toString(16)}`);
        mustEqual(owner.replies(), owed, `replies under NR ${nr.toString(16)}`);
        mustEqual(owner.session.state, after!, "state after");
        mustEqual(owner.session.isOver, sent === "QUIT", "isOver");
      }
    });

    test("MACRO changes no state and is not answered", () => {
      const owner = ownerIn(state, 0);
      if (state === "start") {
        expect(() => owner.send(cmd.macro("C", { j: "x" }))).toThrow(ProtocolError);
        return;
      }
      for (const stage of "CHMRTLNBEUAQ\x01") expect(owner.send(cmd.macro(stage, { j: "x" }))).toEqual([]);
      expect(owner.replies()).toBe("");
      expect(owner.session.state).toBe(state);
    });

    test("the connection's end gives what is still due, once", () => {
      const owner = ownerIn(state, 0);
      const events: string[] = [];
      for (let event = owner.session.hangUp(); event !== null; event = owner.session.hangUp()) {
        events.push(event.name);
        if (event.name === "abort") owner.session.endMessage();
        else owner.session.endSession();
      }
      const due = { start: [], idle: ["close"], message: ["abort", "close"] } as Partial<
        Record<SessionState, string[]>
      >;
      expect(events).toEqual(due[state] ?? ["close"]);
      expect(owner.replies()).toBe("");
      expect(owner.session.isOver).toBe(true);
    });
  });

  test("the table above has every command byte that is no command end the connection", () => {
    const known = new Set(Object.values(SENT).map((bytes) => bytes[4]));
    for (let code = 0; code < 256; code++) {
      if (known.has(code) || code === "D".charCodeAt(0)) continue;
      const owner = ownerIn("connected", ALL);
      let problem = "none";
      try {
        owner.send(Buffer.of(0, 0, 0, 1, code));
      } catch (error) {
        problem = (error as ProtocolError).code;
      }
      mustEqual(problem, "PMILTER_ERR_COMMAND", `command 0x${code.toString(16)}`);
    }
  });
});
