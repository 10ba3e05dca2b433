import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { AlreadyExists, FailedPrecondition, hasErrno, messageOf } from '../../errors.ts';
import { makeFolder } from '../../sys/make-folder.ts';
import { defaultSpec } from '../default-spec.ts';
import type { Host } from '../host.ts';

interface Options {
  bundle: string;
  json?: boolean;
  quiet?: boolean;
}

/** `stasis spec --bundle DIR [-- COMMAND…]`: works alone, without stasisd. Never overwrites. */
export async function spec(host: Host, command: readonly string[], options: Options): Promise<void> {
  const bundle = resolve(host.cwd(), options.bundle);
  const file = join(bundle, 'config.json');
  const text = `${JSON.stringify(defaultSpec(command), null, 2)}\n`;
  try {
    await makeFolder(bundle);
    await writeFile(file, text, { flag: 'wx' });
  } catch (error) {
    if (hasErrno(error, 'EEXIST')) {
      throw new AlreadyExists(`${file} exists already`, {
        subject: file,
        remedy: 'remove it first, or name another folder with --bundle',
      });
    }
    throw new FailedPrecondition(`cannot write ${file}`, {
      subject: file,
      cause: new Error(messageOf(error)),
      remedy: 'name a folder that can be written with --bundle',
    });
  }
  if (options.json === true) host.stdout.write(`${JSON.stringify({ file }, null, 2)}\n`);
  else if (options.quiet === true) host.stdout.write(`${file}\n`);
  else host.stdout.write(`wrote ${file}; its root file system belongs in ${join(bundle, 'rootfs')}\n`);
}
