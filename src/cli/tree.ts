import { printable } from './text.ts';

export interface Node {
  readonly label: string;
  readonly children: readonly Node[];
}

const unicode = { tee: '├─ ', corner: '└─ ', pipe: '│  ', blank: '   ' };
const ascii = { tee: '|- ', corner: '`- ', pipe: '|  ', blank: '   ' };

/** Whether the terminal's character set holds lines and dots, by the locale as setlocale(3) finds it. */
export function hasUnicode(env: NodeJS.ProcessEnv): boolean {
  return /utf-?8/i.test(env['LC_ALL'] || env['LC_CTYPE'] || env['LANG'] || '');
}

/** Draws trees. Works without recursion: a container can have been rewound ten thousand times. */
export function drawTree(roots: readonly Node[], withUnicode: boolean): string {
  const marks = withUnicode ? unicode : ascii;
  const lines: string[] = [];
  const stack = roots.toReversed().map((node) => ({ node, own: '', below: '' }));
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const { node, own, below } = next;
    lines.push(`${own}${printable(node.label)}\n`);
    const last = node.children.length - 1;
    for (let index = last; index >= 0; index--) {
      const child = node.children[index];
      if (child === undefined) continue;
      stack.push({
        node: child,
        own: below + (index === last ? marks.corner : marks.tee),
        below: below + (index === last ? marks.blank : marks.pipe),
      });
    }
  }
  return lines.join('');
}
