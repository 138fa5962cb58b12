/**
 * Streams of a mail server, made from a seed: most as a mail server would send them, with all that is rare but legal;
 * others with commands left out, doubled, moved or put in anywhere; some with no order at all; some with a packet that
 * is malformed.
 *
 * Two oddities are left out, since libmilter reads past the end of its memory: a MACRO with a name and no value (a filter
 * that then asks for a macro mostly dies of it), and an UNKNOWN without its NUL.
 */
import { PROTOCOL } from "../../src/protocol/constants.ts";
import type { Random } from "../protocol/random.ts";
import { words } from "../server/wire.ts";
import { type Command, command } from "./commands.ts";
import { CHANGES, VERDICTS } from "./rules.ts";

export interface Offer {
  readonly version: number;
  readonly actions: number;
  readonly protocol: number;
}

/** What Postfix and Sendmail offer. */
export const EVERYTHING: Offer = { version: 6, actions: 0x1ff, protocol: 0x1fffff };

export interface GeneratedStream {
  /** Before the OPTNEG: nothing, but for a few. */
  readonly first: readonly Command[];
  /** Behind the OPTNEG with its offer. */
  readonly commands: readonly Command[];
}

const VERDICT_WORDS = VERDICTS.map(([word]) => `do-${word}`);
const END_WORDS = VERDICTS.map(([word]) => `end-${word}`).filter((word) => word !== "end-skip");
const CHANGE_WORDS = CHANGES.map((word) => `eom-${word}`);

const NR_OF_CONTENT = PROTOCOL.NR_HDR | PROTOCOL.NR_EOH | PROTOCOL.NR_BODY;

/** Flags that a version knows; Postfix offers NR_HDR to all. */
export function flagsOf(version: number): { readonly actions: number; readonly protocol: number } {
  if (version >= 6) return { actions: 0x1ff, protocol: 0x1fffff };
  return { actions: 0x3f, protocol: 0xff | (version >= 3 ? 0x100 : 0) | (version >= 4 ? 0x200 : 0) };
}

/** An offer of any bits, whatever its version knows. */
export function anyOffer(random: Random): Offer {
  const mask = (all: number): number =>
    (random.pick([0, all, 0xffff_ffff, random.u32() & all, random.u32(), random.u32() | random.u32()]) &
      0xffff_ffff) >>>
    0;
  return {
    version: random.pick([2, 3, 4, 5, 6, 6, 7, 8, 99, 0x7fff_ffff]),
    actions: mask(0x1ff),
    protocol: mask(0x1fffff),
  };
}

/** An offer that a mail server of its version can mean. */
export function offerOf(random: Random): Offer {
  const version = random.pick([2, 3, 4, 6, 6, 6, 6, 8, 99]);
  const all = flagsOf(version);
  const actions = random.pick([
    all.actions,
    all.actions,
    all.actions & random.u32(),
    all.actions & (random.u32() | random.u32()),
    0,
  ]);
  // EOH and BODY are both answered or neither is: a verdict at EOH that waited for a piece of body in BODYEOB is not in
  // `libmilter.ts`.
  const protocol = random.pick([
    all.protocol,
    all.protocol,
    all.protocol & ~(NR_OF_CONTENT | PROTOCOL.SKIP),
    all.protocol & ~NR_OF_CONTENT & 0x3ff,
    all.protocol & (random.u32() | random.u32()) & ~NR_OF_CONTENT,
    all.protocol & (random.u32() | NR_OF_CONTENT),
    0,
  ]);
  return { version, actions, protocol: protocol >>> 0 };
}

export function optneg({ version, actions, protocol }: Offer): Command {
  return command("O", words(version, actions, protocol));
}

export function streamOf(random: Random): GeneratedStream {
  const shape = random.pick(["legal", "legal", "legal", "legal", "unusual", "unusual", "unusual", "soup"] as const);
  const isMalformed = random.chance(0.1);
  const maker = new Maker(random, !isMalformed);
  const commands = shape === "soup" ? maker.soup() : maker.session();
  if (shape === "unusual") for (let count = 1 + random.below(3); count > 0; count--) maker.disturb(commands);
  if (isMalformed) commands.splice(random.below(commands.length + 1), 0, ...maker.malformed());
  // A command that is answered whatever went before, so that a connection that was closed is seen to be.
  commands.push(command("U", "NOOP\0"));
  // A few end without a QUIT.
  if (random.chance(0.9)) commands.push(command("Q"));
  const first = random.chance(0.01) ? [maker.any()] : [];
  return { first, commands };
}

class Maker {
  readonly #random: Random;
  /** How much of a stream has words in it: some pass through whole. */
  readonly #wordiness: number;

  /** One thing in a stream closes a connection, so that it is known which did. */
  #mayBeOdd: boolean;

  constructor(random: Random, mayBeOdd: boolean) {
    this.#random = random;
    this.#mayBeOdd = mayBeOdd;
    this.#wordiness = random.pick([0, 0.05, 0.15]);
  }

  session(): Command[] {
    const random = this.#random;
    const commands: Command[] = [];
    for (let connections = random.chance(0.15) ? 2 : 1; connections > 0; connections--) {
      // A mail server that dropped its client at once.
      if (random.chance(0.02)) return commands;
      if (random.chance(0.03)) commands.push(this.#unknown());
      commands.push(...this.#macros("C"), this.#connect());
      if (random.chance(0.05)) commands.push(this.#unknown());
      for (let helos = random.pick([0, 1, 1, 1, 1, 2]); helos > 0; helos--) {
        commands.push(...this.#macros("H"), this.#helo());
      }
      for (let messages = random.pick([0, 1, 1, 1, 2, 3]); messages > 0; messages--) commands.push(...this.#message());
      if (random.chance(0.05)) commands.push(this.#unknown());
      if (connections === 1) continue;
      // libmilter takes a QUIT_NC only behind the end of a message or an unknown command.
      if (random.chance(0.8)) commands.push(this.#unknown());
      commands.push(command("K"));
    }
    return commands;
  }

  #message(): Command[] {
    const random = this.#random;
    const commands = [...this.#macros("M"), this.#mail()];
    if (random.chance(0.05)) return this.#aborted(commands);
    for (let rcpts = random.pick([1, 1, 1, 2, 3]); rcpts > 0; rcpts--) {
      // Macros of a later command, which do not outlive this one.
      if (random.chance(0.03)) commands.push(this.#macro(random.pick(["T", "N", "E"])));
      commands.push(...this.#macros("R"), this.#rcpt());
    }
    if (random.chance(0.04)) commands.push(this.#unknown());
    if (random.chance(0.05)) return this.#aborted(commands);
    if (random.chance(0.7)) commands.push(...this.#macros("T"), command("T"));
    for (let headers = random.below(6); headers > 0; headers--) commands.push(...this.#macros("L"), this.#header());
    if (random.chance(0.03)) return this.#aborted(commands);
    commands.push(...this.#macros("N"), command("N"));
    for (let chunks = random.pick([0, 1, 1, 2, 3]); chunks > 0; chunks--) {
      commands.push(...this.#macros("B"), command("B", this.#chunk()));
    }
    if (random.chance(0.03)) return this.#aborted(commands);
    commands.push(...this.#macros("E"), random.chance(0.1) ? command("E", this.#chunk()) : command("E"));
    // Postfix ends each transaction with it.
    if (random.chance(0.3)) commands.push(command("A"));
    return commands;
  }

  #aborted(commands: Command[]): Command[] {
    commands.push(command("A"));
    if (this.#random.chance(0.2)) commands.push(command("A"));
    return commands;
  }

  soup(): Command[] {
    return Array.from({ length: this.#random.below(25) }, () => this.any());
  }

  /** Leaves a command out, doubles it, swaps it with the next, or puts another in. */
  disturb(commands: Command[]): void {
    const random = this.#random;
    const at = random.below(commands.length);
    switch (random.below(5)) {
      case 0:
        commands.splice(at, 1);
        return;
      case 1:
        if (commands.length > 0) commands.splice(at, 0, commands[at]!);
        return;
      case 2:
        if (at + 1 < commands.length) commands.splice(at, 2, commands[at + 1]!, commands[at]!);
        return;
      default:
        commands.splice(at, 0, this.any());
    }
  }

  /** A packet that is malformed; sometimes behind the verdict on the connection. */
  malformed(): Command[] {
    const refused = this.#random.chance(0.4) ? [command("H", "do-reject\0")] : [];
    return [...refused, this.#malformed()];
  }

  #malformed(): Command {
    const random = this.#random;
    const offer = words(6, 0x1ff, 0x1fffff);
    return random.pick<() => Command>([
      () => command(random.pick(["M", "R"]), "<a@example.org>"),
      () => command(random.pick(["M", "R"]), "<a@example.org>\0SIZE=1"),
      () => command(random.pick(["C", "H", "M", "R", "L", "U"])),
      () => command("H", "mx.example.org"),
      () => command("L", random.pick(["Subject", "Subject\0", "Subject\0 cut"])),
      () => command("B"),
      () => command("C", random.pick(["mx.example.org\0", "mx.example.org\x004", "mx.example.org", "\0X\0\0\0"])),
      () => command("D"),
      () => command("D", "Mi\0id1\0cut"),
      () => command("D", "M{mail_addr}"),
      () => command(random.pick(["x", "z", "S", "o", "?", "\x01", "\xff"]), random.pick(["", "payload"])),
      () => ({ ...command("N"), length: random.pick([0, 0xffff_ffff, 0x7fff_ffff]) }),
      () => command("O", random.pick<Uint8Array>([offer, offer.subarray(0, 11), words(1, 0, 0)])),
      () => command("B", Buffer.alloc(random.pick([65_536, 70_000]), "x")),
      () => command("L", `X-Long\0${"x".repeat(70_000)}\0`),
    ])();
  }

  any(): Command {
    const random = this.#random;
    return random.pick<() => Command>([
      () => this.#connect(),
      () => this.#helo(),
      () => this.#mail(),
      () => this.#mail(),
      () => this.#rcpt(),
      () => this.#rcpt(),
      () => command("T"),
      () => this.#header(),
      () => this.#header(),
      () => command("N"),
      () => command("B", this.#chunk()),
      () => command("E"),
      () => command("E", this.#chunk()),
      () => command("A"),
      () => this.#unknown(),
      () => command("K"),
      () => this.#macro(random.pick([..."CHMRTNEULBAKQ*"])),
    ])();
  }

  #macros(stage: string): Command[] {
    const chance = "LBT".includes(stage) ? 0.1 : 0.6;
    return this.#random.chance(chance) ? [this.#macro(stage)] : [];
  }

  #macro(stage: string): Command {
    const random = this.#random;
    if (random.chance(0.15)) return command("D", stage);
    const pairs: string[] = [];
    const id = `id${random.below(90)}`;
    if ("MRTNEA".includes(stage) && random.chance(0.7)) pairs.push(random.pick(["i", "i", "{i}"]), id);
    if (stage === "C") {
      pairs.push("j", "mail.example.org", "{daemon_name}", "MTA");
      if (random.chance(0.5)) pairs.push("v", random.pick(["Postfix 3.7.11", "Postfix 3.7.11", "8.17.1"]));
      // As in the sessions that Postfix makes up for local mail.
      if (random.chance(0.5)) pairs.push("i", id);
    }
    if (stage === "M") pairs.push("{mail_addr}", random.pick(["a@example.org", "", "b@example.org"]));
    if (stage === "R") pairs.push("{rcpt_addr}", random.pick(["c@example.org", "d@example.org"]));
    // pmilter keeps those of an unknown command for the one that comes, whichever it is.
    if (random.chance(0.2)) pairs.push(stage === "U" ? "{u}" : "{x}", `x${random.below(90)}`);
    return command("D", stage + pairs.map((text) => `${text}\0`).join(""));
  }

  #connect(): Command {
    const random = this.#random;
    // Addresses that are none.
    if (this.#mayBeOdd && random.chance(0.004)) {
      this.#mayBeOdd = false;
      return command("C", `mx.example.org\0${random.pick(["4\0\x19not.an.address", "6\0\x19192.0.2.7"])}\0`);
    }
    const host = this.#word("client.example.net", ["do"]);
    const port = String.fromCharCode(1 + random.below(100), 1 + random.below(100));
    const rest = random.pick([
      `4${port}192.0.2.${random.below(256)}\0`,
      `4${port}192.0.2.${random.below(256)}\0`,
      "4\0\x00192.0.2.1\0",
      `6${port}2001:db8::${random.below(90) + 1}\0`,
      `6${port}IPv6:2001:db8:0:0:0:0:0:${random.below(90) + 1}\0`,
      "L\0\0/run/client.sock\0",
      "U",
    ]);
    return command("C", `${host}\0${rest}`);
  }

  #helo(): Command {
    return command("H", `${this.#word(this.#random.pick(["mx.example.net", "", "[192.0.2.1]"]), ["do"])}\0`);
  }

  #mail(): Command {
    const address = this.#random.pick([
      `<${this.#word("from")}@example.com>`,
      "<>",
      "",
      `${this.#word("bare")}@a.test`,
    ]);
    return command("M", `${address}\0${this.#params(["SIZE=99", "BODY=8BITMIME", "RET=FULL"])}`);
  }

  #rcpt(): Command {
    const random = this.#random;
    const address = random.pick([
      `<${this.#word(`to${random.below(9)}`)}@example.org>`,
      `<${this.#word(`to${random.below(9)}`)}@example.org>`,
      `${random.chance(0.15) ? random.pick(["do-reject", "do-discard"]) : this.#word("bare")}@b.test`,
      random.chance(0.2) ? "<>" : `<${this.#word("x")}@b.test>`,
    ]);
    return command("R", `${address}\0${this.#params(["NOTIFY=NEVER", "ORCPT=rfc822;x@y"])}`);
  }

  #params(all: readonly string[]): string {
    if (!this.#random.chance(0.3)) return "";
    return all
      .slice(0, 1 + this.#random.below(all.length))
      .map((param) => `${this.#word(param)}\0`)
      .join("");
  }

  #header(): Command {
    const random = this.#random;
    // libmilter takes a header without a name for none.
    if (this.#mayBeOdd && random.chance(0.002)) {
      this.#mayBeOdd = false;
      return command("L", "\0 value\0");
    }
    const name = random.pick(["Subject", "subject", "SUBJECT", "X-Drop", "X-Drop", "From", "To", "Received", "X-Any"]);
    const space = random.pick([" ", " ", " ", "", "  ", "\t"]);
    const text = random.chance(0.01)
      ? "eom-change"
      : this.#word(random.pick(["hello", "", "folded\n\tvalue", "gr\u00fc\u00df", "a:b"]));
    // Bytes that are no UTF-8.
    const odd = random.chance(0.1) ? random.pick(["\xff\xfe", "\xc3", "caf\xe9 \xe2\x82"]) : "";
    const value = Buffer.concat([Buffer.from(space + text), Buffer.from(odd, "latin1")]);
    return command("L", Buffer.concat([Buffer.from(`${name}\0`), value, Buffer.alloc(1)]));
  }

  #chunk(): Buffer {
    const random = this.#random;
    const text = Buffer.from(`${random.chance(0.02) ? "do-accept" : this.#word("Hello")}\r\n`);
    if (random.chance(0.01)) return Buffer.concat([text, Buffer.alloc(65_535 - text.length, "0123456789\r\n")]);
    return random.chance(0.2) ? Buffer.concat([text, random.bytes(random.below(40))]) : text;
  }

  #unknown(): Command {
    return command("U", `${this.#word(this.#random.pick(["WHO", "", "XCMD a b"]), ["do"])}\0`);
  }

  /** Text, now and then with a word of the rules. */
  #word(text: string, kinds: readonly string[] = ["do", "end", "eom"]): string {
    const random = this.#random;
    if (!random.chance(this.#wordiness)) return text;
    const kind = random.pick([...kinds, ...(kinds.includes("eom") ? ["eom", "eom", "eom"] : [])]);
    const word = random.pick(kind === "do" ? VERDICT_WORDS : kind === "end" ? END_WORDS : CHANGE_WORDS);
    return `${text}${word}.`;
  }
}
