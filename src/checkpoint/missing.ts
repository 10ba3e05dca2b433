import { NotFound } from '../errors.ts';
import type { Host } from './host.ts';

type Knowing = Pick<Host, 'catalog' | 'containerd'>;

/** The namespaces that containerd knows, and those of which the pool has checkpoints. */
export async function allNamespaces({ containerd, catalog }: Knowing): Promise<string[]> {
  const names = new Set(await containerd.namespaces());
  for (const entry of catalog.all()) names.add(entry.namespace);
  return [...names].sort();
}

/**
 * The error for a namespace of which nothing is known; undefined for any other. containerd makes `default`, which is
 * everybody's unless they say another, at its first use.
 */
export async function missingNamespace(host: Knowing, namespace: string): Promise<NotFound | undefined> {
  if (namespace === 'default' || (await allNamespaces(host)).includes(namespace)) return undefined;
  return new NotFound(`there is no namespace ${namespace}`, {
    subject: namespace,
    reason: 'namespace-not-found',
    remedy: 'see which there are: ctr namespaces ls',
  });
}

/** The error for a container that containerd does not know: where it does not know the namespace either, that is it. */
export async function missingContainer(host: Knowing, namespace: string, id: string): Promise<NotFound> {
  return (
    (await missingNamespace(host, namespace)) ??
    new NotFound(`no container ${id} in namespace ${namespace}`, {
      subject: id,
      reason: 'container-not-found',
      remedy: `list them with: ctr --namespace ${namespace} containers ls`,
    })
  );
}
