import { commit, version as own } from '../../version.ts';
import type { Host } from '../host.ts';
import type { Session } from '../session.ts';
import { printable } from '../text.ts';

/** `stasis version` on a line of its own; known without loading anything else. */
export function versionText(): string {
  return `stasis ${own} (commit ${commit}, node ${process.versions.node})\n`;
}

/** `stasis version --json`, without asking anybody. */
export function versionView() {
  return { client: { version: own, commit, node: process.versions.node } };
}

/** `stasis version`; with a session also stasisd's. */
export async function version(host: Host, options: { json: boolean; quiet: boolean }, session?: Session) {
  const daemon = session === undefined ? undefined : await session.stasis.version({}, session.options);
  if (options.json) {
    host.stdout.write(`${JSON.stringify({ ...versionView(), ...(daemon && { daemon }) }, null, 2)}\n`);
  } else if (options.quiet) {
    host.stdout.write(`${own}\n`);
  } else {
    host.stdout.write(versionText());
    if (daemon === undefined) return;
    const { version: theirs, commit: built, node } = daemon;
    host.stdout.write(`${printable(`stasisd ${theirs} (commit ${built}, node ${node})`)}\n`);
  }
}
