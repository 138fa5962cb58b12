/** Tables as text and in Markdown, the first column to the left and the rest to the right. Pure. */

export interface Table {
  readonly title: string;
  readonly columns: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Printed below, a line each. */
  readonly notes?: readonly string[];
}

export function formatTable({ title, columns, rows, notes = [] }: Table): string {
  const widths = columns.map((column, at) => Math.max(column.length, ...rows.map((row) => row[at]!.length)));
  const line = (cells: readonly string[]) =>
    cells.map((cell, at) => (at === 0 ? cell.padEnd(widths[at]!) : cell.padStart(widths[at]!))).join("  ");
  const body = [line(columns), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line)];
  return `${[title, "", ...body, ...notes.map((note) => `  ${note}`)].join("\n")}\n`;
}

export function markdownTable({ columns, rows, notes = [] }: Table): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const rule = `| ${columns.map((_, at) => (at === 0 ? "---" : "---:")).join(" | ")} |`;
  const lines = [line(columns), rule, ...rows.map(line)];
  if (notes.length > 0) lines.push("", ...notes.map((note) => `- ${note}`));
  return `${lines.join("\n")}\n`;
}
