// Pieces of markdown, in the form that prettier gives them.

/** Text that may stand in a table. */
export function cell(text: string): string {
  return text.replaceAll('|', '\\|').replace(/[<>*]/g, (char) => `\\${char}`);
}

export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = titles.map((title, column) =>
    Math.max(3, ...[title, ...rows.map((row) => row[column] ?? '')].map((text) => [...text].length)),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((text, column) => text + ' '.repeat((widths[column] ?? 0) - [...text].length)).join(' | ')} |`;
  const rule = widths.map((width) => '-'.repeat(width));
  return `${[line(titles), line(rule), ...rows.map(line)].join('\n')}\n`;
}
