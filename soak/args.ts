/** The command line of the soak. Pure. */

export const FAULT_SETS = ["all", "handlers", "none"] as const;
/** `handlers`: faults of handlers that leave the worker alive; `all`: also faults that lose a worker. */
export type FaultSet = (typeof FAULT_SETS)[number];

export interface SoakArguments {
  readonly seconds: number;
  readonly seed: number;
  readonly connections: number;
  /** Messages a second that are begun at most. */
  readonly rate: number;
  readonly faults: FaultSet;
  /** Milliseconds that a reply may take beyond the promised time. */
  readonly allowanceMs: number;
  /** Takes the server's whole log, "" for none. */
  readonly log: string;
  readonly isJson: boolean;
  readonly isHelp: boolean;
}

/** Wrong usage; the message is for the user. */
export class SoakUsageError extends Error {
  override readonly name = "SoakUsageError";
}

export const HELP = `Usage: bun run soak [options]

Runs the real server under mixed traffic, with reloads, failing handlers, lost workers and vanishing clients, and counts
every message in and every answer out. Exit code 1 if anything was dropped, wrong, late or left over. See soak/README.md.

Options:
  --seconds N        how long, 5 to 604800 (default 60)
  --seed S           what to repeat, 0 to 4294967295 (default: another each time)
  --connections N    connections at a time, 10 to 2000 (default 40)
  --rate N           messages a second, 1 to 5000 (default 200)
  --faults SET       all (default), handlers (those that leave their worker alive), none
  --allowance S      seconds that an answer may take beyond what is promised, for a loaded machine (default 2)
  --log FILE         keeps the server's whole log there
  --json             the summary as data
  -h, --help         this text
`;

const NUMBERS = {
  "--seconds": { key: "seconds", least: 5, most: 604_800 },
  "--seed": { key: "seed", least: 0, most: 0xffff_ffff },
  "--connections": { key: "connections", least: 10, most: 2000 },
  "--rate": { key: "rate", least: 1, most: 5000 },
  "--allowance": { key: "allowance", least: 0, most: 600 },
} as const;
type NumberKey = (typeof NUMBERS)[keyof typeof NUMBERS]["key"];

/**
 * @param seed the seed if the command line names none
 * @throws SoakUsageError
 */
export function parseSoakArguments(args: readonly string[], seed: number): SoakArguments {
  const numbers: Partial<Record<NumberKey, number>> = {};
  let faults: FaultSet = "all";
  let log = "";
  let isJson = false;
  let isHelp = false;
  for (let at = 0; at < args.length; at++) {
    const [name = "", attached] = splitOption(args[at]!);
    const value = (): string => {
      const text = attached ?? args[++at];
      if (text === undefined || text === "" || (attached === undefined && text.startsWith("-"))) {
        throw new SoakUsageError(`${name} needs a value`);
      }
      return text;
    };
    if (name in NUMBERS) {
      const { key, least, most } = NUMBERS[name as keyof typeof NUMBERS];
      numbers[key] = numberOf(name, value(), least, most, key === "allowance");
    } else if (name === "--faults") {
      const text = value();
      const found = FAULT_SETS.find((set) => set === text);
      if (found === undefined) throw new SoakUsageError(`--faults is one of ${FAULT_SETS.join(", ")}, got "${text}"`);
      faults = found;
    } else if (name === "--log") log = value();
    else if (attached !== undefined) throw new SoakUsageError(`there is no option ${args[at]}`);
    else if (name === "--json") isJson = true;
    else if (name === "--help" || name === "-h") isHelp = true;
    else if (name.startsWith("-")) throw new SoakUsageError(`there is no option ${name}`);
    else throw new SoakUsageError(`only options are expected, got "${name}"`);
  }
  return {
    seconds: numbers.seconds ?? 60,
    seed: numbers.seed ?? seed,
    connections: numbers.connections ?? 40,
    rate: numbers.rate ?? 200,
    faults,
    allowanceMs: (numbers.allowance ?? 2) * 1000,
    log,
    isJson,
    isHelp,
  };
}

function splitOption(argument: string): [string, string | undefined] {
  const at = argument.startsWith("--") ? argument.indexOf("=") : -1;
  return at === -1 ? [argument, undefined] : [argument.slice(0, at), argument.slice(at + 1)];
}

function numberOf(name: string, text: string, least: number, most: number, isFractional: boolean): number {
  const number = Number(text);
  const isNumber = isFractional ? /^\d+(\.\d+)?$/.test(text) : /^\d+$/.test(text);
  if (!isNumber || number < least || number > most) {
    throw new SoakUsageError(`${name} is a number from ${least} to ${most}, got "${text}"`);
  }
  return number;
}
