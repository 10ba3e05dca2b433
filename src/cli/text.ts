/**
 * Text from elsewhere (labels, logs, names) as one line that cannot move the cursor, colour the terminal or
 * reorder what is read: control and format characters are written as escapes.
 */
export function printable(text: string): string {
  return text.replace(
    /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

/** Several lines as one, with semicolons between where none ends with a mark of its own. */
export function oneLine(text: string): string {
  return printable(
    text
      .split(/\r?\n/)
      .map((line) => line.trim())
      .filter((line) => line !== '')
      .reduce((all, line) => (all === '' ? line : `${all}${/[.:;,]$/.test(all) ? '' : ';'} ${line}`), ''),
  );
}
