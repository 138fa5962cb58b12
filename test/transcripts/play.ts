/**
 * Plays the steps of a transcript and compares. What plays them is a {@link Player}; it says what it saw in the words
 * of transcripts, so that a difference reads like one of the text.
 */
import { expect } from "bun:test";
import type { Answer, Fate, HabitName, Step, Transcript, Verdict } from "./transcript.ts";

/** What was seen of a step. */
export interface Seen {
  readonly verdict: Verdict;
  readonly reply: readonly string[];
  /** Undefined: changes cannot be seen here. */
  readonly changes?: readonly string[];
  readonly fate?: Fate;
}

export interface Player {
  readonly habit: HabitName;
  /**
   * @param answer what the transcript has for a mail server of this habit
   * @returns what was seen, with what cannot be seen here as it is in `answer`
   */
  play(step: Step, answer: Answer): Promise<Seen>;
  /** Ends what is open; after the last step, or the one that failed. */
  end(): Promise<void>;
}

/** Verdicts with which the mail server goes on: nothing need stand for them. */
const GOES_ON: ReadonlySet<Verdict> = new Set(["continue", "no reply", "not sent"]);

export async function playTranscript({ steps }: Transcript, player: Player): Promise<void> {
  try {
    for (const step of steps) await playStep(step, player);
  } finally {
    await player.end();
  }
}

async function playStep(step: Step, player: Player): Promise<void> {
  const answer = step.answers[player.habit];
  const seen = await player.play(step, answer);
  const isOn = (verdict: Verdict): boolean => GOES_ON.has(verdict) || (step.event === "eom" && verdict === "accept");
  const isShown = seen.fate !== undefined && seen.fate.kind !== "nothing" && answer.changes.length === 0;
  expect({
    line: step.line,
    event: step.event,
    changes: isShown ? [] : (seen.changes ?? answer.changes),
    verdict: answer.verdict === undefined && isOn(seen.verdict) ? undefined : seen.verdict,
    reply: seen.reply,
    fate: seen.fate,
  }).toEqual({
    line: step.line,
    event: step.event,
    changes: answer.changes,
    verdict: answer.verdict,
    reply: answer.reply,
    fate: step.fate,
  });
}

/** `550-5.7.1 one`, `550 5.7.1 two`. */
export function replyLines(code: number, lines: readonly string[]): string[] {
  return lines.map((line, index) => `${code}${index < lines.length - 1 ? "-" : " "}${line}`);
}

/** Lines as one text with CRLF. */
export function crlf(lines: readonly string[]): string {
  return lines.map((line) => `${line}\r\n`).join("");
}

/** The lines of a text whose lines all end. */
export function linesOf(text: string): string[] {
  return text.replace(/\r?\n$/, "").split(/\r?\n/);
}
