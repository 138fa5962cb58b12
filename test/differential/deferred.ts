/**
 * Compares a pmilter that gives verdicts on content at once with one that gives them at the end of the message: what the
 * mail server and its client are left with has to be the same.
 */
import { type Command, isFinal, type Reply, show } from "./commands.ts";

interface Said {
  readonly changes: readonly string[];
  readonly final: Reply | undefined;
}

/** What was said to each command. */
function answersTo(
  commands: readonly Command[],
  replies: readonly Reply[],
  answers: (code: string) => boolean,
): Said[] {
  let at = 0;
  return commands.map(({ code }) => {
    const changes: string[] = [];
    if (!answers(code)) return { changes, final: undefined };
    while (at < replies.length) {
      const reply = replies[at++]!;
      if (isFinal(reply)) return { changes: changes.sort(), final: reply };
      // A message that is refused at once and then aborted has no `abort`; one that would be refused at its end has.
      if (!reply.payload.includes("X-Aborts\0")) changes.push(reply.code + reply.payload.toString("latin1"));
    }
    return { changes, final: undefined };
  });
}

/** CONTINUE at the end of a message is ACCEPT. */
function meaning(code: string, { changes, final }: Said): string {
  const said = final === undefined ? "nothing" : show(final);
  return [...changes, code === "E" && said === '"c"' ? '"a"' : said].join("\n");
}

export interface EndsCompared {
  /** Ends of messages. */
  ends: number;
  /** Those with a verdict on content. */
  decided: number;
}

/**
 * @param answers whether a command of that code gets a reply, without and with deferring
 * @throws Error where they end differently
 */
export function compareEnds(
  commands: readonly Command[],
  replies: { readonly atOnce: readonly Reply[]; readonly deferred: readonly Reply[] },
  answers: { readonly atOnce: (code: string) => boolean; readonly deferred: (code: string) => boolean },
): EndsCompared {
  const atOnce = answersTo(commands, replies.atOnce, answers.atOnce);
  const deferred = answersTo(commands, replies.deferred, answers.deferred);
  const compared: EndsCompared = { ends: 0, decided: 0 };
  /** A message that began with MAIL is open; content has come; a verdict on content was given at once. */
  let isOpen = false;
  let hasContent = false;
  let isDecided = false;
  for (const [index, { code }] of commands.entries()) {
    const left = atOnce[index]!;
    const right = deferred[index]!;
    if (code === "M") {
      isOpen = true;
      hasContent = false;
      isDecided = false;
    }
    // Behind a verdict that was given at once this is still the message before; deferred, it begins one without a sender.
    if (!isOpen && "RTLNBE".includes(code)) return compared;
    const isContent = "LNB".includes(code);
    if (isContent) {
      hasContent = true;
      if ("artyd".includes(left.final?.code ?? "-")) isDecided = true;
    }
    // Between its content and its end a message may have its verdict in one and not yet in the other.
    const isSame = "OCHMU".includes(code) || code === "E" || ("RT".includes(code) && !hasContent);
    if (isSame && meaning(code, left) !== meaning(code, right)) {
      const rows = commands.map((command, at) => {
        const sides = [atOnce[at]!, deferred[at]!].map((said) => meaning(command.code, said).replaceAll("\n", " | "));
        return `  ${show(command)}\n    at once:  ${sides[0]}\n    deferred: ${sides[1]}`;
      });
      throw new Error(`different ends at ${show(commands[index]!)}\n${rows.slice(0, index + 1).join("\n")}`);
    }
    if (code === "E") {
      compared.ends += 1;
      if (isDecided) compared.decided += 1;
    }
    if ("EACHK".includes(code)) isOpen = false;
  }
  return compared;
}
