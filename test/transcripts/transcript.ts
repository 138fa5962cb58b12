/**
 * Transcripts: conversations of a mail server with pmilter as text, and their parser. A transcript says what the mail
 * server does, event by event, what it is answered, and what becomes of the message; where that is played is another
 * matter (`transports.ts`). The text has three parts:
 *
 *     A sentence: what is shown. It names the test.
 *     not sendmail: why this cannot be played there
 *
 *     --- configuration
 *     [handler.session]
 *     envfrom_handler = "word.ts"
 *
 *     --- session
 *     > connect mx.client.test 192.0.2.7
 *     > helo mx.client.test
 *     > envfrom <refuse@example.test> SIZE=100
 *     < reject
 *     < 550 5.7.1 Not welcome here
 *
 * The configuration is that of the server, with the filters of `filters/` beside it. In the session
 *
 * - `>` is an event, with its arguments as they are on the wire: connect NAME ADDRESS, helo NAME, envfrom and envrcpt
 *   <ADDRESS> PARAMS, data, header NAME: VALUE, eoh, body, eom, abort, unknown LINE, quit;
 * - `<` is what it is answered: changes first (all, or none if the message behind `=` shows them; in the words of handlers: addHeader NAME: VALUE, insertHeader INDEX
 *   NAME: VALUE, changeHeader INDEX NAME: VALUE, deleteHeader INDEX NAME, changeFrom, addRecipient and deleteRecipient
 *   <ADDRESS> PARAMS, replaceBody, quarantine REASON), then a verdict, then the SMTP reply if the filter gave one. The
 *   verdict may also be `continue`, `no reply` or `not sent` (the event was not asked for, or skipped); nothing stands
 *   for any of these. `<postfix` and `<sendmail` hold for a mail server with these habits alone;
 * - `|` is text that belongs to the line above: of a header, also a changed one, its folded lines, of body its lines, of
 *   `=` the message;
 * - `=`, after an eom that refuses nothing, says what becomes of the message: `delivered` or `held` from <ADDRESS> to
 *   <ADDRESS> …, with the message; or `nothing`.
 *
 * Empty lines and lines that begin with `#` say nothing.
 */

export const TRANSPORTS = ["memory", "unix", "tcp", "binary", "postfix", "sendmail"] as const;
export type TransportName = (typeof TRANSPORTS)[number];

const HABITS = ["postfix", "sendmail"] as const;
export type HabitName = (typeof HABITS)[number];

/** The events, each with the form of its arguments. */
const EVENTS = {
  connect: /^(\S+) (\S+)$/,
  helo: /^(\S+)$/,
  envfrom: /^(<\S*>)((?: \S+)*)$/,
  envrcpt: /^(<\S+>)((?: \S+)*)$/,
  data: /^$/,
  header: /^([!-9;-~]+):( .*|)$/,
  eoh: /^$/,
  body: /^$/,
  eom: /^$/,
  abort: /^$/,
  unknown: /^(\S.*)$/,
  quit: /^$/,
} as const;
export type EventName = keyof typeof EVENTS;

/** The changes, each with the form of its arguments. */
const CHANGES: Readonly<Record<string, RegExp>> = {
  addHeader: /^[!-9;-~]+: .*$/,
  insertHeader: /^\d+ [!-9;-~]+: .*$/,
  changeHeader: /^\d+ [!-9;-~]+: .*$/,
  deleteHeader: /^\d+ [!-9;-~]+$/,
  changeFrom: /^<\S*>(?: \S+)*$/,
  addRecipient: /^<\S+>(?: \S+)*$/,
  deleteRecipient: /^<\S+>$/,
  replaceBody: /^$/,
  quarantine: /^\S.*$/,
};

const VERDICTS = ["accept", "reject", "tempfail", "discard", "skip", "continue", "no reply", "not sent"] as const;
export type Verdict = (typeof VERDICTS)[number];

/** What a step is answered. */
export interface Answer {
  readonly changes: readonly string[];
  /** Undefined: the mail server goes on. */
  readonly verdict: Verdict | undefined;
  /** The lines of the SMTP reply: `550-5.7.1 one`, `550 5.7.1 two`. */
  readonly reply: readonly string[];
}

/** What becomes of a message. */
export type Fate =
  | { readonly kind: "nothing" }
  | {
      readonly kind: "delivered" | "held";
      /** With their brackets. */
      readonly from: string;
      readonly to: readonly string[];
      readonly message: readonly string[];
    };

export interface Step {
  /** From 1. */
  readonly line: number;
  readonly event: EventName;
  /** The groups of the event's form. */
  readonly args: readonly string[];
  /** Folded lines of a header, lines of a body. */
  readonly text: readonly string[];
  readonly answers: Readonly<Record<HabitName, Answer>>;
  /** Of an `eom` that refuses nothing. */
  readonly fate: Fate | undefined;
}

export interface Transcript {
  readonly file: string;
  readonly title: string;
  /** Why it is not played somewhere. */
  readonly not: ReadonlyMap<TransportName, string>;
  readonly configuration: string;
  readonly steps: readonly Step[];
}

/** A transcript that is not one; the message says where. */
export class TranscriptError extends Error {
  override readonly name = "TranscriptError";
}

/** @throws TranscriptError with file and line */
export function parseTranscript(text: string, file: string): Transcript {
  return new Parser(text, file).parse();
}

interface AnswerDraft {
  changes: string[];
  verdict: Verdict | undefined;
  reply: string[];
}

interface StepDraft extends Omit<Step, "text" | "answers" | "fate"> {
  text: string[];
  answers: Record<HabitName, AnswerDraft>;
  fate: Fate | undefined;
}

class Parser {
  readonly #lines: readonly string[];
  readonly #file: string;
  /** The line that is read, from 1. */
  #line = 0;
  readonly #steps: StepDraft[] = [];
  /** Takes the text of `|`; undefined where it may not stand. */
  #takeText: ((text: string) => void) | undefined;

  constructor(text: string, file: string) {
    this.#lines = text.split("\n");
    this.#file = file;
  }

  parse(): Transcript {
    const { title, not } = this.#head();
    const configuration = this.#configuration();
    while (this.#line < this.#lines.length) this.#sessionLine(this.#next());
    this.#endStep();
    if (this.#steps.length === 0) this.#fail("a session has at least one event");
    return { file: this.#file, title, not, configuration, steps: this.#steps };
  }

  #next(): string {
    const line = this.#lines[this.#line]!;
    this.#line += 1;
    if (/\s$/.test(line)) this.#fail("white space at the end of the line");
    return line;
  }

  #fail(message: string, line = this.#line): never {
    throw new TranscriptError(`${this.#file}:${line}: ${message}`);
  }

  /** The lines up to a separator, which is read. */
  *#until(separator: string): Generator<string> {
    while (this.#line < this.#lines.length) {
      const line = this.#next();
      if (line === separator) return;
      if (line.startsWith("---")) this.#fail(`expected "${separator}", got "${line}"`);
      yield line;
    }
    this.#fail(`expected "${separator}", got the end`);
  }

  #head(): Pick<Transcript, "title" | "not"> {
    let title: string | undefined;
    const not = new Map<TransportName, string>();
    for (const line of this.#until("--- configuration")) {
      if (line === "" || line.startsWith("#")) continue;
      if (title === undefined) {
        title = line;
        continue;
      }
      const [, names, reason] = /^not ([a-z, ]+): (.+)$/.exec(line) ?? this.#fail('expected "not TRANSPORT: REASON"');
      for (const name of names!.split(", ")) {
        const known = TRANSPORTS.find((one) => one === name);
        if (known === undefined) this.#fail(`no transport "${name}"; there are ${TRANSPORTS.join(", ")}`);
        not.set(known, reason!);
      }
    }
    return { title: title ?? this.#fail("a transcript begins with a sentence: what it shows"), not };
  }

  #configuration(): string {
    const first = this.#line;
    const text = [...this.#until("--- session")].join("\n");
    try {
      Bun.TOML.parse(text);
    } catch (error) {
      this.#fail(`no TOML: ${error instanceof Error ? error.message : String(error)}`, first + 1);
    }
    return text;
  }

  #sessionLine(line: string): void {
    if (line === "" || line.startsWith("#")) return;
    if (line === "|" || line.startsWith("| ")) {
      if (this.#takeText === undefined) this.#fail("text belongs to header, body, a change or =");
      this.#takeText(line.slice(2));
      return;
    }
    const [, sign, habit, rest] =
      /^([>=]|<(postfix|sendmail)?) (.*)$/.exec(line) ??
      this.#fail("expected >, <, <postfix, <sendmail, = or |, and a space");
    this.#takeText = undefined;
    if (sign === ">") this.#event(rest!);
    else if (sign === "=") this.#fate(rest!);
    else
      this.#answer(
        rest!,
        HABITS.filter((name) => habit === undefined || habit === name),
      );
  }

  #event(text: string): void {
    this.#endStep();
    const [, name, rest] = /^(\w+) ?(.*)$/.exec(text) ?? this.#fail("expected an event");
    if (!isEvent(name!)) this.#fail(`no event "${name}"; there are ${Object.keys(EVENTS).join(", ")}`);
    const args = EVENTS[name].exec(rest!)?.slice(1) ?? this.#fail(`${name} does not take "${rest}"`);
    const answers = { postfix: emptyAnswer(), sendmail: emptyAnswer() };
    const step: StepDraft = { line: this.#line, event: name, args, text: [], answers, fate: undefined };
    this.#steps.push(step);
    if (name === "header" || name === "body") this.#takeText = (text) => step.text.push(text);
  }

  #answer(text: string, habits: readonly HabitName[]): void {
    const step = this.#steps.at(-1) ?? this.#fail("an answer comes after an event");
    if (step.fate !== undefined) this.#fail("an answer comes before =");
    for (const habit of habits) this.#addAnswer(step, step.answers[habit], text);
  }

  #addAnswer(step: StepDraft, answer: AnswerDraft, text: string): void {
    const verdict = VERDICTS.find((name) => name === text);
    if (verdict !== undefined) {
      if (answer.verdict !== undefined) this.#fail("a second verdict");
      answer.verdict = verdict;
      return;
    }
    const code = /^(\d)\d\d[ -]/.exec(text);
    if (code !== null) {
      const digit = { reject: "5", tempfail: "4" }[String(answer.verdict)];
      if (digit === undefined) this.#fail("an SMTP reply comes after reject or tempfail");
      if (code[1] !== digit) this.#fail(`the code of ${answer.verdict} begins with ${digit}`);
      answer.reply.push(text);
      return;
    }
    const [, name, rest] = /^(\w+) ?(.*)$/.exec(text) ?? this.#fail("expected a change, a verdict or an SMTP reply");
    const form = CHANGES[name!];
    if (form === undefined)
      this.#fail(
        `"${text}" is no change (${Object.keys(CHANGES).join(", ")}), no verdict (${VERDICTS.join(", ")}) and no SMTP reply`,
      );
    if (!form.test(rest!)) this.#fail(`${name} does not take "${rest}"`);
    if (step.event !== "eom") this.#fail("changes come at eom");
    if (answer.verdict !== undefined) this.#fail("a change comes before the verdict");
    const index = answer.changes.push(text) - 1;
    const before = this.#takeText;
    this.#takeText = (line) => {
      before?.(line);
      answer.changes[index] += `\n${line}`;
    };
  }

  #fate(text: string): void {
    const step = this.#steps.at(-1);
    if (step?.event !== "eom" || isRefusal(step.answers.postfix.verdict))
      this.#fail("= comes after an eom that refuses nothing");
    if (step.fate !== undefined) this.#fail("a second =");
    if (text === "nothing") {
      step.fate = { kind: "nothing" };
      return;
    }
    const [, kind, from, to] =
      /^(delivered|held) from (<\S*>) to((?: <\S+>)+)$/.exec(text) ??
      this.#fail('expected "delivered" or "held" from <ADDRESS> to <ADDRESS> …, or "nothing"');
    const message: string[] = [];
    step.fate = { kind: kind === "held" ? "held" : "delivered", from: from!, to: to!.trim().split(" "), message };
    this.#takeText = (line) => message.push(line);
  }

  #endStep(): void {
    const step = this.#steps.at(-1);
    if (step?.event === "eom" && step.fate === undefined && !isRefusal(step.answers.postfix.verdict)) {
      this.#fail("what becomes of the message? Expected = behind this eom", step.line);
    }
  }
}

function emptyAnswer(): AnswerDraft {
  return { changes: [], verdict: undefined, reply: [] };
}

function isEvent(name: string): name is EventName {
  return name in EVENTS;
}

export function isRefusal(verdict: Verdict | undefined): boolean {
  return verdict === "reject" || verdict === "tempfail";
}
