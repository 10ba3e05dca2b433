import { InvalidArgument } from '../../src/errors.ts';
import type { BundleConfig, SyscallRule } from './config-file.ts';

/** With the value `true` it asks for what keeps a container dumpable; a client sets it at create. */
export const checkpointableAnnotation = 'stasis.io/checkpointable';

/** Calls that make what CRIU cannot dump, while programs know how to do without. */
const refused = ['io_uring_setup', 'io_uring_enter', 'io_uring_register'];
const ENOSYS = 38;

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

/**
 * The config with a seccomp rule that answers ENOSYS to io_uring, as a kernel without it does: libuv, for one, then uses
 * epoll. A profile of the client's stays as it is otherwise; without one everything else is allowed.
 */
export function withoutIoUring(config: BundleConfig): BundleConfig {
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
