/** The command line of the fuzzer. Pure. */

export const TARGETS = [
  "framer",
  "session",
  "conversation",
  "replies",
  "mime",
  "mime-edits",
  "dns",
  "config",
  "server",
] as const;
export type TargetName = (typeof TARGETS)[number];

export interface FuzzArguments {
  readonly targets: readonly TargetName[];
  readonly seconds: number;
  /** Null: chosen anew at each run. */
  readonly seed: number | null;
  /** Run the iteration of this seed alone. */
  readonly repeat: number | null;
  /** With `repeat`: this input instead of the one that the seed gives. */
  readonly input: Uint8Array | null;
  readonly isHelp: boolean;
}

/** Wrong usage; the message is for whoever typed it. */
export class FuzzUsageError extends Error {
  override readonly name = "FuzzUsageError";
}

export const HELP = `Usage: bun run fuzz [options]

Feeds random and damaged input to the parts of pmilter until the time is over or a fault is found. A fault is printed
with its seed, with an input that was made as small as possible, and with the command that repeats it.

  framer         packets out of a byte stream, under any splits
  session        the protocol's session under any stream and any decisions
  conversation   the whole chain in memory, with filters that do anything at random
  replies        the decoders of replies, macros, negotiation and text
  mime           the reader of MIME, on messages of any kind
  mime-edits     edits of MIME, on messages of any kind, by a filter in memory
  dns            the reader of DNS answers
  config         configuration files
  server         a server process: hostile connections beside one that must be served right

Options:
  --seconds N     how long, all targets together, 1 to 86400 (default 60)
  --target NAME   only this target; may be given several times
  --seed N        the seed of the run, 0 to 4294967295 (default: another each time; it is printed)
  --repeat N      only the iteration that has this seed; with one --target
  --input HEX     with --repeat: this input in place of the iteration's own
  -h, --help      this text

Exit codes: 0 nothing found; 1 a fault; 2 wrong usage.
`;

const MOST_SECONDS = 86_400;
const MOST_SEED = 0xffff_ffff;

/** @throws FuzzUsageError */
export function parseFuzzArguments(args: readonly string[]): FuzzArguments {
  const targets = new Set<TargetName>();
  let seconds = 60;
  let seed: number | null = null;
  let repeat: number | null = null;
  let input: Uint8Array | null = null;
  let isHelp = false;
  for (let at = 0; at < args.length; at++) {
    const [name = "", attached] = splitOption(args[at]!);
    const value = (): string => {
      const text = attached ?? args[++at];
      if (text === undefined || (attached === undefined && text.startsWith("-"))) {
        throw new FuzzUsageError(`${name} needs a value`);
      }
      return text;
    };
    switch (name) {
      case "--seconds":
        seconds = wholeNumber(name, value(), 1, MOST_SECONDS);
        break;
      case "--seed":
        seed = wholeNumber(name, value(), 0, MOST_SEED);
        break;
      case "--repeat":
        repeat = wholeNumber(name, value(), 0, MOST_SEED);
        break;
      case "--target":
        targets.add(targetOf(value()));
        break;
      case "--input":
        input = bytesOf(value());
        break;
      case "-h":
      case "--help":
        if (attached !== undefined) throw new FuzzUsageError(`${name} takes no value`);
        isHelp = true;
        break;
      default:
        throw new FuzzUsageError(`there is no option ${args[at]}`);
    }
  }
  if (repeat !== null && targets.size !== 1 && !isHelp) throw new FuzzUsageError("--repeat needs one --target");
  if (input !== null && repeat === null && !isHelp) throw new FuzzUsageError("--input needs --repeat");
  return {
    targets: targets.size === 0 ? TARGETS : TARGETS.filter((target) => targets.has(target)),
    seconds,
    seed,
    repeat,
    input,
    isHelp,
  };
}

function splitOption(argument: string): [string, string | undefined] {
  const at = argument.startsWith("--") ? argument.indexOf("=") : -1;
  return at === -1 ? [argument, undefined] : [argument.slice(0, at), argument.slice(at + 1)];
}

function wholeNumber(name: string, text: string, least: number, most: number): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < least || number > most) {
    throw new FuzzUsageError(`${name} is a whole number from ${least} to ${most}, got "${text}"`);
  }
  return number;
}

function targetOf(text: string): TargetName {
  const target = TARGETS.find((name) => name === text);
  if (target === undefined) throw new FuzzUsageError(`there is no target "${text}", expected ${TARGETS.join(", ")}`);
  return target;
}

function bytesOf(text: string): Uint8Array {
  if (!/^([\da-f]{2})*$/i.test(text)) throw new FuzzUsageError("--input is an even number of hex digits");
  return Buffer.from(text, "hex");
}
