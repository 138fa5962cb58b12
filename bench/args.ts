/** The command line of the benchmark. Pure. */

export const SUITES = [
  "micro",
  "wire",
  "hold",
  "skip",
  "memory",
  "life",
  "cores",
  "profile",
  "mta",
  "scale",
  "mime",
  "services",
] as const;
export type SuiteName = (typeof SUITES)[number];

/** The peers that are not ours, of the suites `wire` and `mta`. */
export const PEERS = ["libmilter", "bare-c", "pymilter", "pmilter-perl", "go"] as const;
export type PeerName = (typeof PEERS)[number];

export interface BenchArguments {
  readonly suites: readonly SuiteName[];
  readonly isQuick: boolean;
  readonly json: string | null;
  /** The file of the results page; null for none, or for the default of a full run. */
  readonly results: string | null;
  /** The revision to compare with; null to measure alone. */
  readonly compare: string | null;
  readonly failsOnSlower: boolean;
  readonly seed: number | null;
  readonly rounds: number | null;
  readonly connections: number | null;
  readonly generators: number | null;
  readonly workers: number | "auto" | null;
  /** Null: all that can be had. */
  readonly peers: readonly PeerName[] | null;
  readonly isHelp: boolean;
}

/** Wrong usage; the message is for the user. */
export class BenchUsageError extends Error {
  override readonly name = "BenchUsageError";
}

export const HELP = `Usage: bun run bench [micro] [wire] [hold] [skip] [memory] [life] [cores] [profile] [mta] [scale] [mime] [services] [options]

Measures pmilter and prints tables; without a name, everything. See bench/README.md.

  micro   packet reader, reply writer, a whole message in memory: time and allocation
  wire    messages per second over a unix socket, against the server process
  hold    what it costs that a connection outlives its worker, and that each worker has its share
  skip    a body of 50 MB for a filter that skips it, with its verdict deferred and at once
  memory  idle connections, a message of 50 MB, and many messages one after the other
  life    from start to first answer, and what a reload costs those who wait for a reply
  cores   how work spreads over the workers, and what the main thread does
  profile where the processor's time of a worker goes (Debian's linux-perf needed)
  mta     a private Postfix without and with filters (root and Debian's postfix needed)
  scale   what a message costs as recipients, headers, body, filters or connections grow
  mime    what it takes to read and to edit messages by size and number of parts, beside other mail readers
  services what it costs a message to ask the store or the DNS

Options:
  --quick            everything once and shortly, within 3 minutes: a smoke test, not a measurement
  --json FILE        also write every measurement to FILE
  --results FILE     write the results page to FILE, its plots into results/ beside it (a full run writes
                     bench/RESULTS.md without being told)
  --compare REV      instead of that, compare the working tree with another revision of this repository in micro and
                     wire: faster, slower, or no difference seen
  --fail-on-slower   with --compare: exit code 1 if anything is slower
  --seed N           of the mail of mixed sizes in wire, which is new in each run and printed
  --rounds N         measurements of each variant, 1 to 50 (default 5; with --compare 12)
  --connections N    connections of the load generators together, 1 to 5000, and in wire no others (default 20)
  --generators N     load generator processes, 1 to 16 (default: half the cores)
  --workers N        handler workers of the servers, 1 to 64, or auto (default)
  --peers A,B        peers of wire and mta, built or found here: ${PEERS.join(", ")};
                     or none (default: all that can be had)
  -h, --help         this text
`;

const NUMBERS = {
  "--rounds": { key: "rounds", most: 50 },
  "--connections": { key: "connections", most: 5000 },
  "--generators": { key: "generators", most: 16 },
  "--workers": { key: "workers", most: 64 },
  "--seed": { key: "seed", most: 0xffff_ffff },
} as const;

/** Options with a value that is taken as it stands. */
const TEXTS = { "--json": "json", "--results": "results", "--compare": "compare" } as const;

/** The suites that can compare two revisions. */
export const COMPARED = ["micro", "wire"] as const satisfies readonly SuiteName[];
export type ComparedSuite = (typeof COMPARED)[number];

/** @throws BenchUsageError */
export function parseBenchArguments(args: readonly string[]): BenchArguments {
  const suites = new Set<SuiteName>();
  const numbers: Partial<Record<(typeof NUMBERS)[keyof typeof NUMBERS]["key"], number>> = {};
  let isQuick = false;
  let isHelp = false;
  let isAuto = false;
  let failsOnSlower = false;
  const texts: Partial<Record<(typeof TEXTS)[keyof typeof TEXTS], string>> = {};
  let peers: readonly PeerName[] | null = null;
  for (let at = 0; at < args.length; at++) {
    const [name = "", attached] = splitOption(args[at]!);
    const value = (): string => {
      const text = attached ?? args[++at];
      if (text === undefined || text === "" || (attached === undefined && text.startsWith("-"))) {
        throw new BenchUsageError(`${name} needs a value`);
      }
      return text;
    };
    const suite = SUITES.find((known) => known === name);
    if (suite !== undefined) suites.add(suite);
    else if (name in TEXTS) texts[TEXTS[name as keyof typeof TEXTS]] = value();
    else if (name === "--peers") peers = peerNames(value());
    else if (name in NUMBERS) {
      const { key, most } = NUMBERS[name as keyof typeof NUMBERS];
      const text = value();
      if (key === "workers" && text === "auto") isAuto = true;
      else numbers[key] = wholeNumber(name, text, most);
    } else if (attached !== undefined) throw new BenchUsageError(unknown(args[at]!));
    else if (name === "--quick") isQuick = true;
    else if (name === "--fail-on-slower") failsOnSlower = true;
    else if (name === "--help" || name === "-h") isHelp = true;
    else throw new BenchUsageError(unknown(name));
  }
  const { json = null, results = null, compare = null } = texts;
  if (failsOnSlower && compare === null) throw new BenchUsageError("--fail-on-slower goes with --compare");
  if (compare !== null) checkCompared(suites, results);
  return {
    suites: suites.size === 0 ? (compare === null ? SUITES : COMPARED) : SUITES.filter((suite) => suites.has(suite)),
    isQuick,
    json,
    results,
    compare,
    failsOnSlower,
    peers,
    isHelp,
    seed: numbers.seed ?? null,
    rounds: numbers.rounds ?? null,
    connections: numbers.connections ?? null,
    generators: numbers.generators ?? null,
    workers: isAuto ? "auto" : (numbers.workers ?? null),
  };
}

function checkCompared(suites: ReadonlySet<SuiteName>, results: string | null): void {
  if (results !== null) throw new BenchUsageError("--results does not go with --compare, whose verdict is printed");
  for (const suite of suites) {
    if (!COMPARED.some((known) => known === suite)) {
      throw new BenchUsageError(`--compare measures ${COMPARED.join(" and ")}, not ${suite}`);
    }
  }
}

function splitOption(argument: string): [string, string | undefined] {
  const at = argument.startsWith("--") ? argument.indexOf("=") : -1;
  return at === -1 ? [argument, undefined] : [argument.slice(0, at), argument.slice(at + 1)];
}

function wholeNumber(name: string, text: string, most: number): number {
  const number = Number(text);
  if (!/^\d+$/.test(text) || number < 1 || number > most) {
    throw new BenchUsageError(`${name} is a number from 1 to ${most}, got "${text}"`);
  }
  return number;
}

function peerNames(text: string): readonly PeerName[] {
  const names = new Set(text.split(","));
  if (names.has("none")) {
    if (names.size > 1) throw new BenchUsageError(`--peers: none goes with no other, got "${text}"`);
    return [];
  }
  for (const name of names) {
    if (!PEERS.some((known) => known === name)) {
      throw new BenchUsageError(`--peers: there is no peer "${name}", expected ${PEERS.join(", ")} or none`);
    }
  }
  return PEERS.filter((peer) => names.has(peer));
}

function unknown(argument: string): string {
  return argument.startsWith("-")
    ? `there is no option ${argument}`
    : `there is no suite "${argument}", expected ${SUITES.join(", ")}`;
}
