/** No reason is longer: it stands in each refusal, in containerd's log and in a table. */
const MAX_LENGTH = 300;

/** V8 and Node themselves give up: what follows is where they were. */
const FATAL = /^(FATAL ERROR: .*|.*: Assertion .* failed\.?|# (?!Fatal error in |Failure|$).*)/;
/** main.ts's own last word. */
const OWN = /^containerd-shim-stasis-v2: (.*)/;
/** What Node has above the text of what nobody caught: the line of the program, and this below its place. */
const CARET = /^\s*\^+\s*$/;
/** Where it was, and under which Node; the end of an error's properties; warnings, which nothing ends of. */
const NOISE =
  /^(\s+at |Node\.js v|-----|\s*\d+: (0x|file:|\S+ \()|[\s{}[\](),]*$|\s+\[?\w+\]?: |\(Use `|\(node:\d+\) |#)/;

/**
 * The line of a program's stream of errors that tells why it has ended; empty where none does.
 * @param text the end of what it wrote, as Node, V8 or the shim's own program write it
 */
export function lastWords(text: string): string {
  const lines = text.split('\n').map((line) => line.trimEnd());
  const line =
    lines.findLast((one) => FATAL.test(one))?.replace(/^# /, '') ??
    OWN.exec(lines.findLast((one) => OWN.test(one)) ?? '')?.[1] ??
    uncaught(lines) ??
    lines.findLast((one) => !NOISE.test(one)) ??
    '';
  const said = line.trim();
  return said.length > MAX_LENGTH ? `${said.slice(0, MAX_LENGTH)}…` : said;
}

function uncaught(lines: readonly string[]): string | undefined {
  const caret = lines.findLastIndex((line) => CARET.test(line));
  return caret < 0 ? undefined : lines.slice(caret + 1).find((line) => !NOISE.test(line));
}
