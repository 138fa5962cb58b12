/** A mistake that a check finds in a handler, or in its options in the configuration. */
import { isAbsolute, relative } from "node:path";

export interface Problem {
  readonly file: string;
  /** From 1; 0 if not known. */
  readonly line: number;
  /** From 1; 0 if not known. */
  readonly column: number;
  /** Its further lines are indented. */
  readonly text: string;
}

/** `file:line:column: text`; a path below `folder` is relative to it. */
export function formatProblem({ column, file, line, text }: Problem, folder: string): string {
  const below = relative(folder, file);
  const name = below === "" || below.startsWith("..") || isAbsolute(below) ? file : below;
  return `${[name, ...(line > 0 ? [line] : []), ...(line > 0 && column > 0 ? [column] : [])].join(":")}: ${text}`;
}

/** In the order of files and lines. */
export function inOrder(problems: readonly Problem[]): Problem[] {
  return problems.toSorted((a, b) =>
    a.file === b.file ? a.line - b.line || a.column - b.column : a.file < b.file ? -1 : 1,
  );
}
