import {
  appendFileSync,
  chmodSync,
  cpSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  type Stats,
} from 'node:fs';
import { makeNode, S_IFCHR, S_IFIFO, deviceNumber, setTimes } from '../../../src/sys/inode.ts';
import { readXattrs, setXattr } from '../../../src/sys/xattr.ts';

/** Numbers that look random and are the same for the same seed. */
export class Dice {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0 || 1;
  }

  roll(sides: number): number {
    this.#state ^= this.#state << 13;
    this.#state >>>= 0;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    this.#state >>>= 0;
    return this.#state % sides;
  }

  pick<T>(values: readonly T[]): T | undefined {
    return values[this.roll(Math.max(1, values.length))];
  }
}

interface Found {
  readonly path: string;
  readonly stat: Stats;
}

function find(root: string): Found[] {
  return readdirSync(root, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => ({ path: `${root}/${name}`, stat: lstatSync(`${root}/${name}`) }));
}

const names = ['a', 'b', 'c.d', 'c', 'c d', '\u00e9', 'x'.repeat(120), '.hidden', 'z'];

/** Changes a tree in one of the ways in which containers do. */
export function mutate(root: string, dice: Dice): void {
  const all = find(root);
  const files = all.filter(({ stat }) => stat.isFile());
  const folders = [{ path: root, stat: lstatSync(root) }, ...all.filter(({ stat }) => stat.isDirectory())];
  const fresh = (): string => {
    const folder = dice.pick(folders)?.path ?? root;
    const name = dice.pick(names) ?? 'n';
    for (let at = 1; ; at++) {
      const path = at === 1 ? `${folder}/${name}` : `${folder}/${name}-${at}`;
      if (!all.some((each) => each.path === path)) return path;
    }
  };
  const any = dice.pick(all);
  const file = dice.pick(files);
  const text = `${dice.roll(1e6)}`.repeat(dice.roll(400) + 1);
  const steps: (() => void)[] = [
    () => writeFileSync(fresh(), text, { mode: dice.pick([0o644, 0o600, 0o755]) ?? 0o644 }),
    () => mkdirSync(fresh()),
    () => symlinkSync(dice.pick(['/etc/passwd', '../up', 'x'.repeat(130)]) ?? '', fresh()),
    () => file && appendFileSync(file.path, text),
    () => file && writeFileSync(file.path, text),
    () => file && rewriteInPlace(file),
    () => file && linkSync(file.path, fresh()),
    () => any && rmSync(any.path, { recursive: true }),
    () => any && renameInto(any, fresh()),
    () =>
      any &&
      !any.stat.isSymbolicLink() &&
      chmodSync(any.path, dice.pick([0o700, 0o4755, 0o2755, 0o1777]) ?? 0),
    () =>
      any && lchownSync(any.path, dice.pick([0, 1000, 3_000_000]) ?? 0, dice.pick([0, 2_000_000_000]) ?? 0),
    () =>
      any && setTimes(latin1(any.path), dice.pick([0, 1_700_000_000]) ?? 0, dice.pick([0, 123_456_789]) ?? 0),
    () =>
      file &&
      setXattr(latin1(file.path), `user.${dice.pick(['a', 'b']) ?? ''}`, Buffer.from(text.slice(0, 50))),
    () => file && changeAttribute(file, dice),
    () => makeNode(latin1(fresh()), S_IFIFO | 0o600, 0n),
    () => makeNode(latin1(fresh()), S_IFCHR | 0o600, deviceNumber(259, 70_000)),
    () => any && replaceByOther(any),
    () => any?.stat.isDirectory() === true && remake(any),
  ];
  dice.pick(steps)?.();
}

function latin1(path: string): string {
  return Buffer.from(path).toString('latin1');
}

/** Another content of the same size, with the times put back: only the kernel's own time tells. */
function rewriteInPlace({ path, stat }: Found): void {
  const content = readFileSync(path);
  if (content.length === 0) return;
  content[0] = (content[0] ?? 0) ^ 1;
  writeFileSync(path, content, { flag: 'r+' });
  setTimes(latin1(path), Math.floor(stat.mtimeMs / 1000), 0);
}

function changeAttribute({ path }: Found, dice: Dice): void {
  const name = dice.pick([...readXattrs(latin1(path)).keys()]);
  if (name !== undefined) setXattr(latin1(path), name, Buffer.from(String(dice.roll(1e6))));
}

function renameInto({ path }: Found, to: string): void {
  if (!to.startsWith(`${path}/`)) renameSync(path, to);
}

function replaceByOther({ path, stat }: Found): void {
  rmSync(path, { recursive: true });
  if (stat.isDirectory()) writeFileSync(path, 'was a folder');
  else mkdirSync(path);
}

/** A folder of the same name and content with other inodes. */
function remake({ path }: Found): void {
  const aside = `${path}.aside`;
  renameSync(path, aside);
  try {
    cpSync(aside, path, { recursive: true, verbatimSymlinks: true, filter: (from) => !isSpecial(from) });
  } finally {
    rmSync(aside, { recursive: true });
  }
}

function isSpecial(path: string): boolean {
  const stat = lstatSync(path);
  return !stat.isFile() && !stat.isDirectory() && !stat.isSymbolicLink();
}
