import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, realpathSync } from 'node:fs';
import { dirname, join } from 'node:path';

/**
 * Fills a folder with what the test containers need beside busybox: perl-base, which every Debian has, and the
 * writer. perl, because it can call mmap(2) without a compiler.
 */
export function fillRootfs(rootfs: string): void {
  mkdirSync(rootfs, { recursive: true });
  const copy = (from: string, to: string): void => {
    mkdirSync(dirname(join(rootfs, to)), { recursive: true });
    cpSync(realpathSync(from), join(rootfs, to));
  };
  copy('/usr/bin/perl', '/bin/perl');
  const libraries = execFileSync('ldd', ['/usr/bin/perl'], { encoding: 'utf8' }).match(/\/\S+(?= \()/g) ?? [];
  for (const library of libraries) copy(library, library);
  const paths = execFileSync('perl', ['-e', 'print join "\n", grep { m{/perl-base$} } @INC'], {
    encoding: 'utf8',
  });
  for (const path of paths.split('\n').filter(Boolean)) {
    mkdirSync(dirname(join(rootfs, path)), { recursive: true });
    cpSync(path, join(rootfs, path), { recursive: true });
  }
  copy(join(import.meta.dirname, '../once/engine/writer.pl'), '/writer.pl');
}
