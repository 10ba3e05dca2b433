import { printable } from './text.ts';

/** Columns under their titles, two spaces apart; those named in `right` are numbers. */
export function table(
  titles: readonly string[],
  rows: readonly string[][],
  right: readonly string[] = [],
): string {
  const lines = [titles, ...rows.map((row) => row.map((cell) => printable(cell)))];
  const widths = titles.map((_, column) => Math.max(...lines.map((line) => width(line[column] ?? ''))));
  return lines
    .map((line) =>
      titles
        .map((title, column) => {
          const cell = line[column] ?? '';
          const padding = ' '.repeat((widths[column] ?? 0) - width(cell));
          return right.includes(title) ? padding + cell : cell + padding;
        })
        .join('  ')
        .trimEnd(),
    )
    .map((line) => `${line}\n`)
    .join('');
}

function width(text: string): number {
  return Array.from(text).length;
}
