/** Plays streams to both filters, negotiated alike, and sums up what was compared. */
import { join } from "node:path";
import { decodeReply, type OptnegReply } from "../../src/protocol/replies.ts";
import { Random } from "../protocol/random.ts";
import { type Pmilter, startPmilter } from "../support/pmilter.ts";
import { bytesOf, type Command, command, parseReplies, type Reply, show } from "./commands.ts";
import { compare, Mismatch, type Tally } from "./compare.ts";
import { exchange, pooled } from "./exchange.ts";
import { LibmilterStates } from "./libmilter.ts";
import { startPeer } from "./peer.ts";
import { type Offer, optneg, streamOf } from "./streams.ts";

/** The same variable as for the other tests that are made from seeds. */
export const FIRST_SEED = Number(Bun.env["PMILTER_SEED"] ?? 1);

/** Connections at a time, to each of the two. */
const AT_A_TIME = 12;

export interface Variant {
  readonly name: string;
  /** The phases that have rules, by letter. */
  readonly phases: string;
  readonly defersContent: boolean;
}

export const VARIANTS: readonly Variant[] = [
  { name: "all phases", phases: "chfrdlnbeu", defersContent: false },
  { name: "all phases, content deferred", phases: "chfrdlnbeu", defersContent: true },
  { name: "envelope and end", phases: "fre", defersContent: true },
  { name: "content and end", phases: "lbe", defersContent: false },
  { name: "sender, and content deferred", phases: "fnb", defersContent: true },
  { name: "connection and unknown commands", phases: "chu", defersContent: true },
];

export interface Stream {
  readonly name: string;
  readonly commands: readonly Command[];
}

export class Sums {
  sessions = 0;
  compared = 0;
  suspended = 0;
  /** Sessions in which each difference was seen. */
  readonly differences = new Map<string, number>();
  readonly failures: string[] = [];

  add({ compared, suspended, differences }: Tally): void {
    this.sessions += 1;
    this.compared += compared;
    this.suspended += suspended;
    for (const name of new Set(differences)) this.see(name);
  }

  see(difference: string): void {
    this.differences.set(difference, (this.differences.get(difference) ?? 0) + 1);
  }

  /** @throws Error with the first of the failures, if there are any */
  check(): void {
    if (this.failures.length === 0) return;
    const failures = this.failures.splice(0);
    throw new Error(`${failures.length} mismatches, of them\n${failures.slice(0, 3).join("\n")}`);
  }
}

export async function startServer({ phases, defersContent }: Variant): Promise<Pmilter> {
  const rules = join(import.meta.dir, "rules.ts");
  return await startPmilter({
    server: { workers: 1, defer_content: defersContent },
    config: `[[filter]]\npath = "filter.ts"\n`,
    files: {
      "filter.ts": `import { defineFilter } from "pmilter";
import { handlersOf } from ${JSON.stringify(rules)};
export default defineFilter({ name: "rules", macros: { eom: ["{x}"] }, ...handlersOf(${JSON.stringify(phases)}) });
`,
    },
  });
}

export function socketOf(server: Pmilter): string {
  return server.addresses[0]!.replace(/^unix:/, "");
}

/** The answer to an offer; null if the connection is closed. */
export async function negotiated(path: string, offer: Offer): Promise<OptnegReply | null> {
  const { bytes } = await exchange(path, bytesOf([optneg(offer), command("Q")]), "never");
  const [reply] = parseReplies(bytes);
  if (reply === undefined) return null;
  const decoded = decodeReply(reply.code.charCodeAt(0), reply.payload);
  return decoded.kind === "optneg" ? decoded : null;
}

/** Streams from seeds of their own, which begin with the offer (a few have something before it). */
export function generatedStreams(offer: Offer, seed: number, count: number): Stream[] {
  return Array.from({ length: count }, (_, at) => {
    const { first, commands } = streamOf(new Random(seed + at));
    return { name: `stream ${at}`, commands: [...first, optneg(offer), ...commands] };
  });
}

/** All replies of pmilter to a stream. */
export async function repliesOf(path: string, commands: readonly Command[], protocol: number): Promise<Reply[]> {
  const hasQuit = commands.some(({ code }) => code === "Q");
  const finals = commands.filter(({ code }) => LibmilterStates.answers(code, protocol)).length;
  return parseReplies((await exchange(path, bytesOf(commands), hasQuit ? "never" : finals)).bytes);
}

/** What is the same for many streams. */
export interface Stage {
  readonly variant: Variant;
  /** Where pmilter listens. */
  readonly server: string;
  /** The program of the peer, and a path for its socket. */
  readonly program: string;
  readonly socket: string;
}

/** Plays streams that begin with the same offer to both. */
export async function play(
  { variant, server, program, socket }: Stage,
  offer: Offer,
  streams: readonly Stream[],
  sums: Sums,
): Promise<void> {
  const { phases } = variant;
  const where = `${variant.name}, offer ${JSON.stringify(offer)}`;
  const answer = await negotiated(server, offer);
  if (answer === null) throw new Error(`${where}: pmilter does not negotiate`);
  const { actions, protocol, lists } = answer;
  await using peer = await startPeer({ program, path: socket, phases, mode: "exact", actions, protocol, lists });
  await pooled(streams, AT_A_TIME, async ({ name, commands }) => {
    const here = `${where}, ${name} (PMILTER_SEED=${FIRST_SEED})`;
    try {
      const [theirs, pmilter] = await Promise.all([
        exchange(peer.path, bytesOf(commands), "now"),
        repliesOf(server, commands, protocol),
      ]);
      sums.add(compare(commands, protocol, phases, { libmilter: parseReplies(theirs.bytes), pmilter }));
    } catch (error) {
      if (!(error instanceof Mismatch)) throw new Error(`${here}:\n${commands.map(show).join("\n")}`, { cause: error });
      sums.failures.push(`${here}: ${error.message}`);
    }
  });
  const problems = await peer.problems();
  if (problems !== "") throw new Error(`${where}: the peer complains: ${problems}`);
}
