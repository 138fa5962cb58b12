/** What adds to the sum of a message: lists, and the client's confirmed name. */

/** What a list is asked about. */
export const SUBJECTS = ["client", "name", "helo", "sender", "from", "links"] as const;
export type Subject = (typeof SUBJECTS)[number];

/** Subjects that are known once the envelope is; the others at the end of the message. */
export const ENVELOPE: ReadonlySet<Subject> = new Set(["client", "name", "helo", "sender"]);

export interface Source {
  /** For logs, replies and results. */
  readonly name: string;
  /** Where it is asked; `""` for what is no list. */
  readonly zone: string;
  readonly of: Subject;
  /** A hit lets the message pass, whatever the sum is. */
  readonly allow: boolean;
  /** What it adds at least and at most. */
  readonly lowest: number;
  readonly highest: number;
  /** Words of a reply, with placeholders. */
  readonly text: string;
}

export interface DnsList extends Source {
  /** Whether it is asked about the addresses in links as well. */
  readonly addresses: boolean;
  /** What codes add; null if none of them counts. */
  score(codes: readonly string[]): number | null;
}

export type Outcome =
  | { readonly status: "clear" }
  | { readonly status: "failed"; readonly reason: string }
  | { readonly status: "listed"; readonly what: string; readonly codes: readonly string[]; readonly score: number };

export const CLEAR: Outcome = { status: "clear" };

/** A question under way, or its outcome. */
export class Asked {
  readonly source: Source;
  /** Null until it is known. */
  outcome: Outcome | null = null;
  /** Never rejects. */
  readonly done: Promise<void>;

  constructor(source: Source, asking: Promise<Outcome>) {
    this.source = source;
    this.done = asking.then(
      (outcome) => void (this.outcome = outcome),
      (error: unknown) => void (this.outcome = { status: "failed", reason: String(error) }),
    );
  }
}

export interface Judgement {
  readonly sum: number;
  /** `open`: what is not known yet decides. `tempfail`: what failed could have let the message pass. */
  readonly verdict: "pass" | "reject" | "tempfail" | "open";
}

/**
 * Judges by what is known so far, and by what the rest can add.
 * @param later sources that are asked later
 */
export function judge(asked: readonly Asked[], later: readonly Source[], rejectAt: number): Judgement {
  let sum = 0;
  let isAllowed = false;
  const open: Source[] = [...later];
  const failed: Source[] = [];
  for (const { outcome, source } of asked) {
    if (outcome === null) open.push(source);
    else if (outcome.status === "failed") failed.push(source);
    else if (outcome.status === "listed" && source.allow) isAllowed = true;
    else if (outcome.status === "listed") sum += outcome.score;
  }
  if (isAllowed || sum + most(open) < rejectAt) return { sum, verdict: "pass" };
  if (sum + least(open) + least(failed) >= rejectAt) return { sum, verdict: "reject" };
  if (open.length > 0) return { sum, verdict: "open" };
  return { sum, verdict: sum >= rejectAt ? "tempfail" : "pass" };
}

function most(sources: readonly Source[]): number {
  return sources.reduce((sum, { highest }) => sum + Math.max(0, highest), 0);
}

function least(sources: readonly Source[]): number {
  return sources.reduce((sum, { allow, lowest }) => sum + (allow ? -Infinity : Math.min(0, lowest)), 0);
}
