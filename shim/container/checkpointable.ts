import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgument } from '../../src/errors.ts';

/** With the value `true` it asks for what keeps a container dumpable; a client sets it at create. */
export const checkpointableAnnotation = 'stasis.io/checkpointable';

/** Calls that make what CRIU cannot dump, while programs know how to do without. */
const refused = ['io_uring_setup', 'io_uring_enter', 'io_uring_register'];
const ENOSYS = 38;

interface SyscallRule {
  names: string[];
  action: string;
  errnoRet?: number;
  args?: unknown[];
}

interface Seccomp {
  defaultAction: string;
  syscalls?: SyscallRule[];
  [key: string]: unknown;
}

interface Config {
  linux?: { seccomp?: Seccomp; [key: string]: unknown };
  [key: string]: unknown;
}

/**
 * Whether the annotation asks for it.
 * @throws InvalidArgument for another value than `true` and `false`
 */
export function wantsCheckpointable(annotations: Readonly<Record<string, string>>): boolean {
  const value = annotations[checkpointableAnnotation] ?? 'false';
  if (value === 'true' || value === 'false') return value === 'true';
  throw new InvalidArgument(
    `the annotation ${checkpointableAnnotation} is ${JSON.stringify(value)}: it must be "true" or "false"`,
    { subject: checkpointableAnnotation },
  );
}

/** Writes the rules into the bundle's config.json, before the OCI runtime reads it. */
export async function makeCheckpointable(bundle: string): Promise<void> {
  const path = join(bundle, 'config.json');
  const config = JSON.parse(await readFile(path, 'utf8')) as Config;
  const part = `${path}.part`;
  await writeFile(part, JSON.stringify(withoutIoUring(config)), { mode: 0o600 });
  await rename(part, path);
}

/**
 * The config with a seccomp rule that answers ENOSYS to io_uring, as a kernel without it does: libuv, for one, then uses
 * epoll. A profile of the client's stays as it is otherwise; without one everything else is allowed.
 */
export function withoutIoUring(config: Config): Config {
  const profile = config.linux?.seccomp ?? { defaultAction: 'SCMP_ACT_ALLOW' };
  const others = (profile.syscalls ?? [])
    .map((rule) => ({ ...rule, names: rule.names.filter((name) => !refused.includes(name)) }))
    .filter(({ names }) => names.length > 0);
  const rule: SyscallRule = { names: refused, action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS };
  // A rule that does what the profile does anyway is an error for libseccomp; such a profile refuses them already.
  const same = profile.defaultAction === rule.action && profile['defaultErrnoRet'] === ENOSYS;
  return {
    ...config,
    linux: {
      ...config.linux,
      seccomp: { ...profile, syscalls: same ? others : [...others, rule] },
    },
  };
}
