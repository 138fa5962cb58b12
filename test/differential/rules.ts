/**
 * The rules of the differential test, pmilter's side; `peer.c` holds the same for libmilter. What a filter does is
 * decided by words in the stream alone, so that both filters need to know nothing else:
 *
 * - `do-X` in a name, an address, an argument, a header, a piece of body or an unknown command: the verdict X there;
 * - `end-X` anywhere in a message: the verdict X at its `eom`;
 * - `eom-X` anywhere in a message: the change X at its `eom`.
 *
 * At `eom` each message also gets headers that say what the filter saw of it, so that arguments, macros and ended
 * messages are compared too.
 */
import { accept, type Client, discard, reject, type Session, skip, tempfail, type Verdict } from "../../src/index.ts";
import { encodeText } from "../../src/protocol/bytes.ts";

export type Letter = "c" | "h" | "f" | "r" | "d" | "l" | "n" | "b" | "e" | "u";

/** In the order in which they are looked for; `peer.c` has the same list. */
export const VERDICTS = [
  ["accept", () => accept()],
  ["discard", () => discard()],
  ["skip", () => skip()],
  ["reject", () => reject()],
  ["tempfail", () => tempfail()],
  ["text5", () => reject("550 5.7.1 Not welcome here")],
  ["text4", () => tempfail("451 4.7.1 Try again later")],
  ["shut", () => tempfail("421 4.3.2 Going down")],
  ["lines5", () => reject("554 5.6.0 first line\nsecond line\nthird")],
  ["lines4", () => tempfail("450 4.2.0 one\ntwo")],
  ["percent", () => reject("550 5.7.0 100% no, %s and %%")],
  ["utf8", () => reject("553 5.1.8 Zur\u00fcck \u2192")],
] as const satisfies readonly (readonly [string, () => Verdict])[];
export type VerdictWord = (typeof VERDICTS)[number][0];

/** Bit by bit what a message asks for at its end; `peer.c` has the same list. */
export const CHANGES = [
  "add",
  "fold",
  "top",
  "mid",
  "change",
  "drop",
  "drop2",
  "rcpt",
  "rcptpar",
  "norcpt",
  "from",
  "frompar",
  "fromnull",
  "body",
  "bodybig",
  "bodyempty",
  "hold",
] as const;

/** The words that are no verdict of a phase. */
const LACKS: Readonly<Record<string, readonly string[]>> = {
  c: ["discard", "skip"],
  h: ["discard", "skip"],
  u: ["accept", "discard", "skip"],
  b: [],
};
const NO_SKIP = ["skip"];

/** The index of the verdict that the first word in `texts` asks for, -1 without any. */
export function verdictIn(letter: Letter, prefix: "do-" | "end-", ...texts: readonly string[]): number {
  const lacks = LACKS[letter] ?? NO_SKIP;
  for (const [index, [word]] of VERDICTS.entries()) {
    if (!lacks.includes(word) && texts.some((text) => text.includes(prefix + word))) return index;
  }
  return -1;
}

/** A message that asks for both is refused at the end of its headers. */
const EOH_REJECTS = (1 << CHANGES.indexOf("fold")) | (1 << CHANGES.indexOf("top"));

const TRACE_LIMIT = 4000;
const RECIPIENTS_LIMIT = 400;
/** More than one packet, and little enough that a socket takes what a stream gets of them. */
const BIG_BODY_BYTES = 70_000;
/** Asked for at `eom`, in the order of the header that says them. */
export const MACROS = ["i", "{i}", "j", "{mail_addr}", "{rcpt_addr}", "{x}"];

/** FNV-1a. */
function hash(text: string | Uint8Array): string {
  const bytes = typeof text === "string" ? encodeText(text) : text;
  let value = 0x811c9dc5;
  for (const byte of bytes) value = Math.imul(value ^ byte, 0x01000193);
  return `${bytes.length}.${(value >>> 0).toString(16)}`;
}

class Notes {
  trace = "";
  changes = 0;
  end = -1;

  see(kind: string, text: string | Uint8Array): void {
    if (this.trace.length < TRACE_LIMIT) this.trace += `${kind}${hash(text)};`;
    const plain = typeof text === "string" ? text : Buffer.from(text).toString("latin1");
    for (const [bit, word] of CHANGES.entries()) if (plain.includes(`eom-${word}`)) this.changes |= 1 << bit;
    if (this.end === -1) this.end = verdictIn("e", "end-", plain);
  }
}

const NOTES = new WeakMap<object, Notes>();

function notesOf(session: { readonly message: object }): Notes {
  let notes = NOTES.get(session.message);
  if (notes === undefined) NOTES.set(session.message, (notes = new Notes()));
  return notes;
}

function decide(letter: Letter, ...texts: readonly string[]): Verdict | undefined {
  const found = verdictIn(letter, "do-", ...texts);
  return found === -1 ? undefined : VERDICTS[found]![1]();
}

function clientLine({ hostname, family, address, port }: Client): string {
  return `${hash(hostname)} ${family} ${address} ${port}`;
}

/** Changes that were not granted are not made, as with libmilter, whose calls then fail. */
function attempt(change: () => void): void {
  try {
    change();
  } catch {}
}

function change(session: Session<"eom">, changes: number): void {
  const { message } = session;
  const wants = (word: (typeof CHANGES)[number]) => (changes & (1 << CHANGES.indexOf(word))) !== 0;
  const recipient = message.recipients[0]?.address ?? "";
  const count = (name: string) => message.headers.getAll(name).length;
  const subjects = count("Subject");
  const drops = count("X-Drop");
  if (wants("add")) attempt(() => message.addHeader("X-Add", "added"));
  if (wants("fold")) attempt(() => message.addHeader("X-Fold", "one\n\ttwo\n three"));
  if (wants("top")) attempt(() => message.insertHeader(0, "X-Top", "top"));
  if (wants("mid")) attempt(() => message.insertHeader(1, "X-Mid", "mid"));
  if (wants("change") && subjects > 0) attempt(() => message.changeHeader("Subject", "changed", subjects));
  if (wants("drop2") && drops > 1) attempt(() => message.deleteHeader("X-Drop", 2));
  if (wants("drop") && drops > 0) attempt(() => message.deleteHeader("X-Drop", 1));
  if (wants("norcpt") && recipient !== "") attempt(() => message.deleteRecipient(recipient));
  if (wants("rcpt")) attempt(() => message.addRecipient("added@example.org"));
  if (wants("rcptpar")) attempt(() => message.addRecipient("<par@example.org>", ["NOTIFY=NEVER", "ORCPT=rfc822;x"]));
  if (wants("fromnull")) attempt(() => message.changeFrom(""));
  else if (wants("frompar")) attempt(() => message.changeFrom("par@example.org", ["RET=HDRS", "ENVID=7"]));
  else if (wants("from")) attempt(() => message.changeFrom("<new@example.org>"));
  if (wants("bodyempty")) attempt(() => message.replaceBody(""));
  else if (wants("bodybig")) attempt(() => message.replaceBody(Buffer.alloc(BIG_BODY_BYTES, "big body\r\n")));
  else if (wants("body")) attempt(() => message.replaceBody("new\r\nbody\r\n"));
  if (wants("hold")) attempt(() => message.quarantine("held for inspection"));
}

interface Counts {
  aborts: number;
}

export const PHASES = {
  connect(session: Session<"connect">) {
    (session.state as Partial<Counts>).aborts = 0;
    return decide("c", session.client.hostname) as Verdict<"accept" | "reject" | "tempfail"> | undefined;
  },
  helo(_session: Session<"helo">, name: string) {
    return decide("h", name) as Verdict<"accept" | "reject" | "tempfail"> | undefined;
  },
  envfrom(session: Session<"envfrom">, sender: string, params: readonly string[]) {
    const notes = notesOf(session);
    notes.see("f", sender);
    for (const param of params) notes.see("p", param);
    return decide("f", sender, ...params) as OfMessage;
  },
  envrcpt(session: Session<"envrcpt">, recipient: string, params: readonly string[]) {
    const notes = notesOf(session);
    notes.see("r", recipient);
    for (const param of params) notes.see("p", param);
    return decide("r", recipient, ...params) as OfMessage;
  },
  data(session: Session<"data">) {
    notesOf(session).see("d", "");
  },
  header(session: Session<"header">, name: string, value: string) {
    const notes = notesOf(session);
    notes.see("l", name);
    notes.see("v", value);
    return decide("l", name, value) as OfMessage;
  },
  eoh(session: Session<"eoh">) {
    // There is no text in it: the words of the message decide.
    const notes = notesOf(session);
    notes.see("n", "");
    return (notes.changes & EOH_REJECTS) === EOH_REJECTS ? reject("550 5.7.1 At the end of the headers") : undefined;
  },
  body(session: Session<"body">, chunk: Uint8Array) {
    notesOf(session).see("b", chunk);
    return decide("b", Buffer.from(chunk).toString("latin1")) as Verdict | undefined;
  },
  eom(session: Session<"eom">) {
    const notes = notesOf(session);
    const verdict = notes.end === -1 ? undefined : VERDICTS[notes.end]![1]();
    if (verdict !== undefined && verdict.kind !== "accept") return verdict as OfMessage;
    const macros = MACROS.map((name) => session.macros.get(name) ?? "-");
    let recipients = "";
    for (const { raw } of session.message.recipients) {
      if (recipients.length < RECIPIENTS_LIMIT) recipients += `${hash(raw)},`;
    }
    attempt(() => session.message.addHeader("X-Trace", `t ${notes.trace} ${recipients}`));
    attempt(() => session.message.addHeader("X-Macros", `m ${macros.join(" ")}`));
    const { aborts = 0 } = session.state as Partial<Counts>;
    attempt(() => session.message.addHeader("X-Aborts", String(aborts)));
    attempt(() => session.message.addHeader("X-Session", `${clientLine(session.client)} ${hash(session.helo)}`));
    change(session, notes.changes);
    return verdict as OfMessage;
  },
  unknown(_session: Session<"unknown">, command: string) {
    return decide("u", command) as Verdict<"reject" | "tempfail"> | undefined;
  },
  abort(session: Session<"abort">) {
    const counts = session.state as Partial<Counts>;
    counts.aborts = (counts.aborts ?? 0) + 1;
  },
};

type OfMessage = Verdict<"accept" | "reject" | "tempfail" | "discard"> | undefined;

const PHASE_OF: Readonly<Record<Letter | "a", keyof typeof PHASES>> = {
  c: "connect",
  h: "helo",
  f: "envfrom",
  r: "envrcpt",
  d: "data",
  l: "header",
  n: "eoh",
  b: "body",
  e: "eom",
  u: "unknown",
  a: "abort",
};

/** The handlers of some phases. `abort` always goes with them: it only counts. */
export function handlersOf(letters: string): Partial<typeof PHASES> {
  const names = [...`${letters}a`].map((letter) => PHASE_OF[letter as Letter]);
  return Object.fromEntries(names.map((name) => [name, PHASES[name]]));
}
