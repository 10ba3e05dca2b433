import { version } from '../version.ts';

/** What a call of stasisd that is not to serve prints, and its exit code. */
export interface Answer {
  readonly stdout: string;
  readonly stderr: string;
  readonly exit: number;
}

const usage = `Usage: stasisd [--help | --version]

Serves one containerd: its snapshotter "stasis" over ZFS, and the checkpoints that stasis takes and restores.
There are no other options: everything is set in /etc/stasis/config.toml, or in the file that STASIS_CONFIG
names (man stasis.toml). systemd runs it: systemctl status stasisd.
`;

const known: Readonly<Record<string, string>> = {
  '-h': usage,
  '--help': usage,
  '-v': `stasisd ${version}\n`,
  '--version': `stasisd ${version}\n`,
};

/** What stasisd's arguments ask for instead of serving; undefined where there are none. The codes are those of docs/exit-codes.md. */
export function answerTo(argv: readonly string[]): Answer | undefined {
  const [first] = argv;
  if (first === undefined) return undefined;
  const unknown = argv.find((one) => !Object.hasOwn(known, one));
  if (unknown === undefined) return { stdout: known[first] ?? '', stderr: '', exit: 0 };
  const stderr = `stasisd: unknown argument ${JSON.stringify(unknown)}\n  next: see \`stasisd --help\`\n`;
  return { stdout: '', stderr, exit: 2 };
}
