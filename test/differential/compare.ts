/**
 * Compares what two filters answered to one stream, command by command. Replies are matched to commands by order: pmilter
 * gives one to each command that wants one, libmilter's table of states tells which it ignores.
 */
import { type Answer, type Command, isFinal, type Reply, show } from "./commands.ts";
import { MacrosSeen, Said } from "./context.ts";
import { DIFFERENCES, isOdd, isSame, type Seen, staleMacros, type Until } from "./differences.ts";
import { type Fate, LibmilterStates } from "./libmilter.ts";

/** Final replies that both mail servers take where they are answered: docs/protocol.md, "Which reply where". */
const LEGAL: Readonly<Record<string, string>> = {
  O: "O",
  C: "carty",
  H: "carty",
  M: "cartyd",
  R: "cartyd",
  T: "cartyd",
  L: "cartyd",
  N: "cartyd",
  B: "cartyds",
  E: "cartyd",
  U: "crty",
};
/** What libmilter reads (`MILTER_CHUNK_SIZE`). */
const MAX_PAYLOAD = 65_535;

export class Mismatch extends Error {
  override readonly name = "Mismatch";
}

/** What became of the commands of one stream. */
export interface Tally {
  /** Commands whose answers were compared. */
  compared: number;
  /** Commands behind a difference, which could not be. */
  suspended: number;
  /** Names of differences, one a time that it was seen. */
  readonly differences: string[];
}

export interface Sides {
  readonly libmilter: readonly Reply[];
  readonly pmilter: readonly Reply[];
}

/** Takes replies from the front of a list. */
class Replies {
  readonly #all: readonly Reply[];
  #at = 0;

  constructor(all: readonly Reply[]) {
    this.#all = all;
  }

  /** What comes up to `finals` final replies; fewer if the connection was closed. */
  take(finals: number): Answer {
    const changes: Reply[] = [];
    const found: Reply[] = [];
    while (found.length < finals && this.#at < this.#all.length) {
      const reply = this.#all[this.#at++]!;
      (isFinal(reply) ? found : changes).push(reply);
    }
    return { changes, final: found[0], second: found[1], isClosed: found.length < finals };
  }

  get isAtEnd(): boolean {
    return this.#at === this.#all.length;
  }

  get left(): readonly Reply[] {
    return this.#all.slice(this.#at);
  }
}

/**
 * @param commands all of the stream, its OPTNEG too
 * @param protocol what was negotiated
 * @throws Mismatch at the first difference that is not known
 */
export function compare(commands: readonly Command[], protocol: number, phases: string, sides: Sides): Tally {
  const states = new LibmilterStates(protocol, phases);
  const libmilterReplies = new Replies(sides.libmilter);
  const pmilterReplies = new Replies(sides.pmilter);
  const said = new Said();
  const macros = new MacrosSeen();
  const tally: Tally = { compared: 0, suspended: 0, differences: [] };
  const rows: string[] = [];
  let sender: string | null = null;
  let isNegotiated = false;
  let isTainted = false;
  let until: Until = "same";
  /** What no mail server sends may have closed a connection long before a reply is missed. */
  let odd: Pick<Seen, "command" | "fate" | "messageFinal" | "connectionFinal"> | null = null;

  const fail = (problem: string): never => {
    throw new Mismatch(`${problem}\n${rows.join("\n")}`);
  };

  for (const command of commands) {
    const { code } = command;
    // What libmilter cannot read ends it before the command is looked at.
    const isUnreadable = command.length === 0x7fff_ffff || command.payload.length > MAX_PAYLOAD;
    const fate: Fate = isUnreadable
      ? { isIgnored: false, endsMessage: false, before: "init", replies: 1 }
      : states.take(command);
    let libmilter = libmilterReplies.take(fate.replies);
    let pmilter = pmilterReplies.take(
      command.length !== undefined || LibmilterStates.answers(code, isNegotiated ? protocol : 0) ? 1 : 0,
    );
    // Where no reply is due, a closed connection is seen by the lack of all that would follow.
    if (pmilter.isClosed && libmilter.final === undefined && libmilterReplies.isAtEnd)
      libmilter = { ...libmilter, isClosed: true };
    if (libmilter.isClosed && pmilter.final === undefined && pmilterReplies.isAtEnd)
      pmilter = { ...pmilter, isClosed: true };
    if (libmilter.final !== undefined) states.answered(command, libmilter.final.code);
    macros.take(command);
    if (code === "M") sender = /^<?([^\0>]*)/.exec(command.payload.toString("latin1"))![1]!;
    rows.push(row(command, fate, libmilter, pmilter, until));

    // The verdict on a connection is given again to whatever comes.
    const isLegal = `${LEGAL[code] ?? ""}${said.connectionFinal?.code ?? ""}`.includes(pmilter.final?.code ?? "");
    if (pmilter.final !== undefined && !isLegal) {
      fail(`pmilter's reply ${pmilter.final.code} is not legal here`);
    }
    if (code !== "E" && pmilter.changes.length > 0) fail("pmilter changes a message before its end");

    // libmilter calls no `abort` if MAIL or HELO come behind it.
    if (code === "U" && (fate.before === "mail" || fate.before === "rcpt")) isTainted = true;
    const { messageFinal, connectionFinal } = said;
    if (isOdd(command) || (code === "O" && isNegotiated)) odd = { command, fate, messageFinal, connectionFinal };
    if (until === "message" && code === "M") until = "same";
    if (until === "session" && code === "C" && !fate.isIgnored) until = "same";

    let seen: Seen = {
      command,
      fate,
      messageFinal,
      connectionFinal,
      ...(pmilter.isClosed !== libmilter.isClosed && odd),
      libmilter,
      pmilter,
      decidedBy: said.decidedBy,
      isNegotiated,
      isTainted,
      isSimulated: macros.hasEarlyId && macros.version.startsWith("Postfix"),
      isSendmail: /^\d/.test(macros.version),
      macros,
      sender,
    };
    if (until === "same" && !isTainted && !macros.isLoose) {
      const stale = staleMacros(seen);
      if (stale.length > 0) fail(`pmilter kept ${stale.join(" and ")} from another message`);
    }
    const { isClosed } = seen.pmilter;
    if (until === "same" || isClosed !== libmilter.isClosed || isStateful(code)) {
      let isKnown = false;
      for (const difference of DIFFERENCES) {
        if (!difference.is(seen)) continue;
        tally.differences.push(difference.name);
        isKnown = true;
        if (difference.settle !== undefined) {
          seen = difference.settle(seen);
          continue;
        }
        until = longer(until, difference.until);
        isTainted = true;
        break;
      }
      // What belongs to the connection is the same whatever became of a message.
      const isCompared = until === "same" || (until === "message" && !isKnown && "CHU".includes(code));
      if (isCompared && !isSame(seen)) fail(`different answers to ${show(command)}`);
      if (isClosed !== libmilter.isClosed && !isKnown) fail(`one closes at ${show(command)}`);
      if (isCompared) tally.compared += 1;
      else tally.suspended += 1;
    } else tally.suspended += 1;
    if (isClosed || libmilter.isClosed || until === "end") return tally;
    said.take(command, pmilter);
    if (code === "E") macros.endMessage();
    if (code === "O") isNegotiated = true;
    if (code === "Q") break;
  }
  if (libmilterReplies.left.length > 0) fail(`libmilter answers more: ${libmilterReplies.left.map(show).join(", ")}`);
  if (pmilterReplies.left.length > 0) fail(`pmilter answers more: ${pmilterReplies.left.map(show).join(", ")}`);
  return tally;
}

/** Commands after which the two may be in different sessions. */
function isStateful(code: string): boolean {
  return "COKHU".includes(code);
}

const LENGTHS: readonly Until[] = ["same", "message", "session", "end"];

function longer(left: Until, right: Until): Until {
  return LENGTHS.indexOf(left) > LENGTHS.indexOf(right) ? left : right;
}

function row(command: Command, fate: Fate, libmilter: Answer, pmilter: Answer, until: Until): string {
  const text = ({ changes, final, second, isClosed }: Answer): string =>
    [...changes, final, second]
      .filter((reply) => reply !== undefined)
      .map(show)
      .concat(isClosed ? ["closed"] : [])
      .join(", ") || "nothing";
  const note = `${fate.isIgnored ? ` (ignored in ${fate.before})` : ""}${until === "same" ? "" : ` [${until}]`}`;
  const answers = [text(libmilter), text(pmilter)];
  if (answers[0] === answers[1]) return `  ${show(command)}${note}: ${answers[0]}`;
  return `  ${show(command)}${note}\n    libmilter: ${answers[0]}\n    pmilter:   ${answers[1]}`;
}
