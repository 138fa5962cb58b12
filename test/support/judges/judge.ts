/** What a judge is: a mail reader by other authors, which says what parts a message has. */
import { createHash } from "node:crypto";
import type { OutsideTool } from "../available.ts";

/** A part without parts in it, as one reader sees it. Those of a forwarded message count like all others. */
export interface Leaf {
  /** In lower case, such as `text/plain`; `""` if this judge tells no types. */
  readonly type: string;
  /** The file name as this reader shows it, or `""`. */
  readonly name: string;
  /** Of the decoded content: SHA-256 in hexadecimal digits, and its length in bytes. */
  readonly hash: string;
  readonly size: number;
  /** Python only: the decoded content of a text in its charset. */
  readonly text?: string;
  /** SHA-256 of its header and content as they stand in the message; `""` if this judge does not have them. */
  readonly raw: string;
  /** The names of its header's fields in lower case, in order; empty if this judge does not have them. */
  readonly fields: readonly string[];
  /** Python only: readers may decode the content differently, since it breaks the rules of its encoding. */
  readonly isBroken: boolean;
}

export interface Judge extends AsyncDisposable {
  readonly name: string;
  /** All leaves of a message, in order. */
  leaves(mail: Uint8Array): Promise<readonly Leaf[]>;
}

/** A judge, and whether it is there: for `describeWith`. */
export interface JudgeSource {
  readonly tool: OutsideTool;
  open(): Judge;
}

export function hashOf(content: Uint8Array | string): string {
  return createHash("sha256").update(content).digest("hex");
}
