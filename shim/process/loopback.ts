import type { BundleConfig, Hook } from '../container/config-file.ts';

/** Finds the pid in the state that a hook reads from its standard input; runc writes it as one line. */
const script =
  'read -r state; pid=${state#*\\"pid\\":}; exec nsenter --net=/proc/"${pid%%[,\\}]*}"/ns/net -- ip link set lo up';

const hook: Hook = {
  path: '/bin/sh',
  args: ['sh', '-c', script],
  env: ['PATH=/usr/sbin:/usr/bin:/sbin:/bin'],
  timeout: 30,
};

/**
 * The config with a hook that brings the loopback interface up. runc has CRIU leave network namespaces empty, and brings
 * the interface up in create, but not in restore; without it no connection of the container to itself can be restored, nor
 * made afterwards. The hook runs when the namespace is there and no socket in it yet. A namespace given by path is not ours.
 */
export function withLoopback(config: BundleConfig): BundleConfig {
  const network = config.linux?.namespaces?.find(({ type }) => type === 'network');
  if (network === undefined || (network.path ?? '') !== '') return config;
  const { hooks } = config;
  return { ...config, hooks: { ...hooks, createRuntime: [hook, ...(hooks?.createRuntime ?? [])] } };
}
