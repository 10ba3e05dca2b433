import { InvalidArgument } from '../src/errors.ts';

/** What containerd passes to a shim binary: Go flags before an action (containerd's runtime v2 protocol). */
export interface ShimArguments {
  /** `start`, `delete`, …; empty where flags alone were given. */
  action: string;
  namespace: string;
  /** containerd's gRPC socket. */
  address: string;
  /** Program that publishes events where containerd's ttrpc socket does not. */
  publishBinary: string;
  id: string;
  bundle: string;
  debug: boolean;
  socket: string;
  version: boolean;
  info: boolean;
}

const texts: Readonly<
  Record<string, 'namespace' | 'address' | 'publishBinary' | 'id' | 'bundle' | 'socket'>
> = {
  namespace: 'namespace',
  address: 'address',
  'publish-binary': 'publishBinary',
  id: 'id',
  bundle: 'bundle',
  socket: 'socket',
};
const switches: Readonly<Record<string, 'debug' | 'version' | 'info'>> = {
  debug: 'debug',
  v: 'version',
  info: 'info',
};

/**
 * Parses Go flag syntax: `-k v`, `-k=v`, `--k`; parsing stops at the first word that is no flag.
 * @throws InvalidArgument for an unknown flag or a flag without its value
 */
export function parseArguments(argv: readonly string[]): ShimArguments {
  const parsed: ShimArguments = {
    action: '',
    namespace: '',
    address: '',
    publishBinary: '',
    id: '',
    bundle: '',
    debug: false,
    socket: '',
    version: false,
    info: false,
  };
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] ?? '';
    const match = /^--?([^-=][^=]*)(?:=([\s\S]*))?$/.exec(word);
    if (match === null) {
      parsed.action = word === '--' ? (argv[i + 1] ?? '') : word;
      break;
    }
    const [, name = '', inline] = match;
    const text = texts[name];
    const flag = switches[name];
    if (text !== undefined) {
      const value = inline ?? argv[++i];
      if (value === undefined) throw new InvalidArgument(`flag needs an argument: -${name}`);
      parsed[text] = value;
    } else if (flag !== undefined) {
      parsed[flag] = inline === undefined || ['1', 't', 'T', 'true', 'TRUE', 'True'].includes(inline);
    } else {
      throw new InvalidArgument(`flag provided but not defined: -${name}`);
    }
  }
  return parsed;
}
