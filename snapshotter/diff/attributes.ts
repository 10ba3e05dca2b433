import type { ByteString } from '../../src/sys/bytes.ts';

/**
 * Whether an extended attribute belongs to a file's content, so that a layer carries it. Left out is what a host says of
 * its files: labels of security modules and measurements, and what only its administrator may see.
 */
export function isCarried(name: ByteString): boolean {
  if (name.includes('=')) return false; // a PAX record ends its key there
  return (
    name.startsWith('user.') ||
    name === 'security.capability' ||
    name === 'system.posix_acl_access' ||
    name === 'system.posix_acl_default'
  );
}
