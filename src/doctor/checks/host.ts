import type { Host } from '../../checkpoint/host.ts';
import { isAtLeast, type CriuFeature } from '../../criu/find.ts';
import { messageOf } from '../../errors.ts';
import { hostInfo } from '../../inventory/info.ts';
import type { Obstacle } from '../obstacle.ts';

/** Kernel features that CRIU looks for, and what is missing without them. */
const features: readonly (readonly [CriuFeature, string, string, string])[] = [
  [
    'uffd-noncoop',
    'userfaultfd',
    'the kernel has no userfaultfd for this, so memory cannot be brought in while a restored container runs',
    'use a kernel with CONFIG_USERFAULTFD',
  ],
];

/** What is missing on this host: what `stasis info` finds, and the features of CRIU that it does not need but could use. */
export async function hostObstacles(host: Host): Promise<Obstacle[]> {
  const [info, criu] = await Promise.all([hostInfo(host), criuObstacles(host)]);
  const missing = info.findings
    .filter(({ ok, name }) => !ok && name !== 'criu')
    .map(({ name, value, remedy }): Obstacle => ({
      name,
      severity: ['staging', 'pool', 'xattr'].includes(name) ? 'warning' : 'error',
      subject: `host, ${name}`,
      message: value,
      remedy,
    }));
  return [...criu, ...missing].sort(
    (a, b) => Number(b.severity === 'error') - Number(a.severity === 'error'),
  );
}

async function criuObstacles({ criu }: Host): Promise<Obstacle[]> {
  const subject = 'host, CRIU';
  try {
    const { version, works, complaint, safeForClones } = await criu.get();
    if (!works) {
      const remedy = 'install CRIU 4.2 or newer, and a kernel with CONFIG_CHECKPOINT_RESTORE';
      return [{ name: 'criu', severity: 'error', subject, message: `${version}: ${complaint}`, remedy }];
    }
    const found: Obstacle[] = [];
    if (!safeForClones) {
      found.push({
        name: 'criu-random',
        severity: 'warning',
        subject,
        message: `${version} copies the state of the kernel's random numbers, so that clones would repeat them: clones are refused`,
        remedy: 'install CRIU 4.2 or newer',
      });
    }
    const has = await Promise.all(features.map(([feature]) => criu.has(feature)));
    features.forEach(([feature, name, message, remedy], index) => {
      if (has[index] !== true) {
        found.push({
          name,
          severity: 'warning',
          subject: `host, ${feature}`,
          message,
          remedy,
        });
      }
    });
    return found;
  } catch (error) {
    const remedy = 'install CRIU 4.2 or newer; without it checkpoints keep the disk alone';
    return [{ name: 'criu', severity: 'error', subject, message: messageOf(error), remedy }];
  }
}

/** Whether the OCI runtime of a container can dump at all. runc 1.1 is the oldest that Stasis is tested with. */
export async function runtimeObstacles({ runtimes, config }: Host, binary: string): Promise<Obstacle[]> {
  if (binary === config.runtime.oci) {
    // `hostInfo` has looked at it; its version remains.
    const found = await runtimes.get(binary).catch(() => undefined);
    return found === undefined || found.name !== 'runc' || isAtLeast(found.version, 1, 1)
      ? []
      : [tooOld(found.path, found.version)];
  }
  try {
    const found = await runtimes.get(binary);
    if (!found.criu) {
      return [
        {
          name: 'oci-runtime',
          severity: 'error',
          subject: `OCI runtime ${found.path}`,
          message: `${found.name} ${found.version} was built without CRIU`,
          remedy: 'use runc, or a crun with CRIU',
        },
      ];
    }
    return found.name !== 'runc' || isAtLeast(found.version, 1, 1) ? [] : [tooOld(found.path, found.version)];
  } catch (error) {
    const remedy = "install it, or correct the runtime's options";
    return [
      {
        name: 'oci-runtime',
        severity: 'error',
        subject: `OCI runtime ${binary}`,
        message: messageOf(error),
        remedy,
      },
    ];
  }
}

function tooOld(path: string, version: string): Obstacle {
  return {
    name: 'oci-runtime',
    severity: 'warning',
    subject: `OCI runtime ${path}`,
    message: `runc ${version} is older than those that Stasis is tested with`,
    remedy: 'install runc 1.1 or newer',
  };
}
