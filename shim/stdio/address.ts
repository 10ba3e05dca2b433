import { InvalidArgument } from '../../src/errors.ts';

/** What an output address means (containerd's runtime v2 documentation, "logging"). */
export type OutputAddress =
  | { readonly kind: 'none' }
  /** A FIFO, or a plain file that is appended to. */
  | { readonly kind: 'path'; readonly path: string }
  /** A log file, made with its folders where missing; takes both streams. */
  | { readonly kind: 'file'; readonly path: string }
  /** A program that reads both streams; each key of the query and its first value become two arguments. */
  | { readonly kind: 'program'; readonly path: string; readonly args: readonly string[] };

/** @throws InvalidArgument for a scheme that nobody defined, or a path that is not absolute */
export function parseOutputAddress(address: string): OutputAddress {
  if (address === '') return { kind: 'none' };
  if (address.startsWith('/')) return { kind: 'path', path: address };
  const url = URL.canParse(address) ? new URL(address) : undefined;
  const path = url === undefined ? '' : decoded(url.pathname);
  if (url === undefined || !path.startsWith('/')) {
    throw new InvalidArgument(`stdio address ${JSON.stringify(address)} is not an absolute path or URI`, {
      subject: address,
    });
  }
  switch (url.protocol) {
    case 'fifo:':
      return { kind: 'path', path };
    case 'file:':
      return { kind: 'file', path };
    case 'binary:': {
      const keys = new Set(url.searchParams.keys());
      const args = [...keys].flatMap((key) => [key, url.searchParams.get(key) ?? '']);
      return { kind: 'program', path, args };
    }
    default:
      throw new InvalidArgument(`unknown STDIO scheme ${url.protocol.slice(0, -1)}`, { subject: address });
  }
}

/** Empty for what is not encoded as URIs are. */
function decoded(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return '';
  }
}
