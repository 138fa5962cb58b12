/**
 * libmilter's table of states (`engine.c` of Sendmail 8.17), as far as it decides which commands are answered: a
 * command that does not fit is tried again "after HELO", and ignored without an answer if it does not fit there either.
 * It is needed to tell which reply belongs to which command; replies that it does not explain fail the test.
 */
import { PROTOCOL } from "../../src/protocol/constants.ts";
import type { Command } from "./commands.ts";
import { verdictIn, VERDICTS } from "./rules.ts";

const STATES = "init opts conn helo mail rcpt data hdrs eohs body endm quit abrt unkn q_nc".split(" ");
type StateName =
  | "init"
  | "opts"
  | "conn"
  | "helo"
  | "mail"
  | "rcpt"
  | "data"
  | "hdrs"
  | "eohs"
  | "body"
  | "endm"
  | "quit"
  | "abrt"
  | "unkn"
  | "q_nc";

const NEXT: Readonly<Record<StateName, string>> = {
  init: "opts",
  opts: "conn unkn",
  conn: "helo mail unkn",
  helo: "helo mail unkn",
  mail: "rcpt abrt unkn",
  rcpt: "hdrs eohs data body endm rcpt abrt unkn",
  data: "eohs hdrs abrt",
  hdrs: "eohs hdrs abrt",
  eohs: "body endm abrt",
  body: "endm body abrt",
  endm: "quit mail unkn q_nc",
  quit: "",
  abrt: "",
  unkn: "helo mail rcpt abrt data body unkn quit q_nc",
  q_nc: "conn unkn",
};

const STATE_OF: Readonly<Record<string, StateName>> = {
  A: "abrt",
  B: "body",
  C: "conn",
  E: "endm",
  H: "helo",
  L: "hdrs",
  M: "mail",
  O: "opts",
  N: "eohs",
  Q: "quit",
  T: "data",
  R: "rcpt",
  U: "unkn",
  K: "q_nc",
};

/** States that may be passed over once their command was switched off. */
const SKIPPED: readonly (readonly [StateName, number])[] = [
  ["conn", PROTOCOL.NOCONNECT],
  ["helo", PROTOCOL.NOHELO],
  ["mail", PROTOCOL.NOMAIL],
  ["rcpt", PROTOCOL.NORCPT],
  ["hdrs", PROTOCOL.NOHDRS],
  ["eohs", PROTOCOL.NOEOH],
  ["body", PROTOCOL.NOBODY],
  ["data", PROTOCOL.NODATA],
  ["unkn", PROTOCOL.NOUNKNOWN],
];

const NR: Readonly<Record<string, number>> = {
  C: PROTOCOL.NR_CONN,
  H: PROTOCOL.NR_HELO,
  M: PROTOCOL.NR_MAIL,
  R: PROTOCOL.NR_RCPT,
  T: PROTOCOL.NR_DATA,
  L: PROTOCOL.NR_HDR,
  N: PROTOCOL.NR_EOH,
  B: PROTOCOL.NR_BODY,
  U: PROTOCOL.NR_UNKN,
};

const IN_MAIL: ReadonlySet<StateName> = new Set<StateName>(["mail", "rcpt", "data", "hdrs", "eohs", "body"]);

/** What libmilter does with a command. */
export interface Fate {
  /** Ignored: it did not fit. */
  readonly isIgnored: boolean;
  /** The message that was open is over for the filter, though the command does not say so. */
  readonly endsMessage: boolean;
  readonly before: StateName;
  /** Final replies that follow, if it does not close the connection. */
  readonly replies: number;
}

export class LibmilterStates {
  #state: StateName = "init";
  readonly #protocol: number;
  readonly #phases: string;
  #skipsBody = false;
  /** A header has a verdict that waits for the next command with a reply. */
  #isDeferred = false;

  /** @param protocol what was negotiated */
  constructor(protocol: number, phases: string) {
    this.#protocol = protocol;
    this.#phases = phases;
  }

  /** Whether a reply is awaited to a command of that code, once it is taken. */
  static answers(code: string, protocol: number): boolean {
    if (code === "E" || code === "O") return true;
    const nr = NR[code];
    return nr !== undefined && (protocol & nr) === 0;
  }

  take(command: Command): Fate {
    const { code } = command;
    const before = this.#state;
    const next = STATE_OF[code];
    // MACRO, and what is no command.
    if (next === undefined) return { isIgnored: false, endsMessage: false, before, replies: 0 };
    let endsMessage = false;
    if (!this.#fits(before, next)) {
      endsMessage = IN_MAIL.has(before) && code !== "M" && code !== "H";
      this.#state = "helo";
      if (!this.#fits("helo", next)) return { isIgnored: true, endsMessage, before, replies: 0 };
    }
    this.#state = next;
    if (code === "M" || code === "A") this.#forgetMessage();
    // A HELO without its NUL is dropped by the handler itself, after the state has changed.
    if (code === "H" && command.payload.length > 0 && command.payload.at(-1) !== 0)
      return { isIgnored: false, endsMessage, before, replies: 0 };
    return { isIgnored: false, endsMessage, before, replies: this.#repliesTo(command) };
  }

  /** The final reply to the command that was taken last. */
  answered(command: Command, reply: string): void {
    const isFinal = reply === "a" || ("rtdy".includes(reply) && command.code !== "R" && command.code !== "U");
    if (isFinal) this.#state = "helo";
    if (isFinal || command.code === "E") this.#forgetMessage();
  }

  #forgetMessage(): void {
    this.#skipsBody = false;
    this.#isDeferred = false;
  }

  #repliesTo(command: Command): number {
    const { code, payload } = command;
    const isAnswered = LibmilterStates.answers(code, this.#protocol);
    const text = payload.toString("latin1");
    if (code === "L" && !isAnswered && this.#phases.includes("l")) {
      this.#isDeferred ||= verdictIn("l", "do-", ...text.split("\0")) !== -1;
    }
    if (code === "B" && !this.#skipsBody) this.#skipsBody = this.#bodyVerdict(text) === "skip";
    if (code !== "E" || payload.length === 0) return isAnswered ? 1 : 0;
    // The piece of body in a BODYEOB: unless its handler says CONTINUE, that is sent twice, and eom is not run.
    if ((this.#protocol & PROTOCOL.NR_BODY) !== 0) return 0;
    if (this.#isDeferred) return 2;
    const maySkip = (this.#protocol & PROTOCOL.SKIP) !== 0;
    if (this.#skipsBody) return maySkip ? 2 : 1;
    const verdict = this.#bodyVerdict(text);
    return verdict === null || (verdict === "skip" && !maySkip) ? 1 : 2;
  }

  #bodyVerdict(text: string): string | null {
    const found = this.#phases.includes("b") ? verdictIn("b", "do-", text) : -1;
    return found === -1 ? null : VERDICTS[found]![0];
  }

  #fits(from: StateName, to: StateName): boolean {
    for (let at = STATES.indexOf(from); ;) {
      if (NEXT[STATES[at] as StateName].split(" ").includes(to)) return true;
      at += 1;
      const skipped = SKIPPED.find(([name]) => name === STATES[at]);
      if (skipped === undefined || (this.#protocol & skipped[1]) === 0) return false;
    }
  }
}
