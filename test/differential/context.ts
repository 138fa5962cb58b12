/** What went before in a stream, as far as it decides whether an answer is a known difference. */
import type { Answer, Command, Reply } from "./commands.ts";

/** What pmilter has said, as far as later answers depend on it. */
export class Said {
  messageFinal: Reply | null = null;
  connectionFinal: Reply | null = null;
  decidedBy = "";

  take({ code }: Command, { final }: Answer): void {
    switch (code) {
      case "C":
      case "K":
        this.messageFinal = null;
        this.connectionFinal = final !== undefined && final.code !== "c" ? final : null;
        return;
      case "H":
        if (this.connectionFinal !== null) return;
        this.messageFinal = null;
        if (final !== undefined && final.code !== "c") this.connectionFinal = final;
        return;
      case "M":
        if (this.connectionFinal !== null) return;
        this.messageFinal = null;
        break;
      case "R":
        if (final === undefined || !"ad".includes(final.code)) return;
        break;
      case "T":
      case "L":
      case "N":
      case "B":
        break;
      default:
        return;
    }
    if (this.connectionFinal !== null || this.messageFinal !== null) return;
    if (final === undefined || !"artyd".includes(final.code)) return;
    this.messageFinal = final;
    this.decidedBy = code;
  }
}

/** The macros that came, as far as the two keep different ones. */
export class MacrosSeen {
  /** The last `v`. */
  version = "";
  /** A queue id came for CONNECT. */
  hasEarlyId = false;
  /** A packet without macros came. */
  hadEmpty = false;
  /** Values that came for CONNECT and HELO, and "-" for none. */
  readonly early = new Set<string>(["-"]);
  /** Macros came right before an ABORT or unknown command: whether they last depends on what is open. */
  isLoose = false;
  /** By stage, the names that came for the message at hand, and those of packets since the last command. */
  #fresh = new Map<string, ReadonlySet<string>>();
  #pending = new Map<string, ReadonlySet<string>>();

  take({ code, payload }: Command): void {
    if (code !== "D") {
      this.#takeCommand(code);
      return;
    }
    if (payload.length === 0) return;
    const stage = String.fromCharCode(payload[0]!);
    const strings = payload.subarray(1).toString("latin1").split("\0").slice(0, -1);
    const names = new Set<string>();
    if (strings.length === 0) this.hadEmpty = true;
    for (let at = 0; at + 1 < strings.length; at += 2) {
      const name = plainName(strings[at]!);
      const value = strings[at + 1]!;
      if (name === "v") this.version = value;
      if (stage === "C" || stage === "H") this.early.add(value);
      if (stage === "C" && name === "i") this.hasEarlyId = true;
      names.add(name);
    }
    if (!OF_MESSAGE.includes(stage)) return;
    this.#pending.set(stage, names);
    this.#fresh.set(stage, names);
  }

  /** Whether a macro of that name came for this very message. */
  isFresh(name: string): boolean {
    return [...this.#fresh.values()].some((names) => names.has(plainName(name)));
  }

  /** What came right before a command belongs to it, also if that ends a message first; with ABORT they go. */
  #takeCommand(code: string): void {
    if ((code === "A" || code === "U") && this.#pending.size > 0) this.isLoose = true;
    if (code === "A") this.#fresh = new Map();
    if ("MCHK".includes(code)) this.#fresh = this.#pending;
    if (code === "M" || code === "R") for (const stage of "RTNE".slice(code === "M" ? 0 : 1)) this.#fresh.delete(stage);
    this.#pending = new Map();
  }

  /** The message has ended: nothing of it is fresh. */
  endMessage(): void {
    this.#fresh = new Map();
  }
}

const OF_MESSAGE = "MRTNE";

/** One-letter names come with and without braces. */
function plainName(name: string): string {
  return name.replace(/^\{(.)\}$/, "$1");
}
