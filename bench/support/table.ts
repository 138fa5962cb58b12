/** Tables as text, the first column to the left and the others to the right. Pure. */

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
