import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../../src/config/config.ts';
import type { ShimArguments } from '../arguments.ts';

/** Annotations that put containers into one shim, in containerd's order. */
const GROUP_ANNOTATIONS = ['io.containerd.runc.v2.group', 'io.kubernetes.cri.sandbox-id'];

/**
 * Which of a namespace's shims is meant: empty for the shared one, else the pod's or container's id.
 * @param env with SCHED_CORE containerd asks that containers never share a core; a shim's processes do
 */
export async function groupOf(config: Config, args: ShimArguments, env: NodeJS.ProcessEnv): Promise<string> {
  const { sharing } = config.shim;
  switch (isSet(env['SCHED_CORE']) && sharing === 'namespace' ? 'pod' : sharing) {
    case 'namespace':
      return '';
    case 'container':
      return args.id;
    case 'pod':
      return (await annotatedGroup(args.bundle === '' ? '.' : args.bundle)) ?? args.id;
  }
}

async function annotatedGroup(bundle: string): Promise<string | undefined> {
  const text = await readFile(join(bundle, 'config.json'), 'utf8').catch(() => '{}');
  const { annotations = {} } = JSON.parse(text) as { annotations?: Record<string, string> };
  return GROUP_ANNOTATIONS.map((name) => annotations[name]).find(
    (group) => group !== undefined && group !== '',
  );
}

export function isSet(value: string | undefined): boolean {
  return value !== undefined && value !== '';
}
