import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { criuFolder, findProgram } from '../../src/criu/find.ts';
import { openRuntime } from '../../src/oci/runtime.ts';
import type { OciRuntime } from '../../src/oci/types.ts';
import type { Options } from '../../src/proto/gen/containerd/runc_options.ts';
import type { ShimContext } from './context.ts';
import type { TaskRecord } from './record.ts';
import { isSystemdPath, type ContainerSpec } from './spec.ts';
import { clearStale } from './stale.ts';

/** A container's door to its OCI runtime, and what another process needs to open it again. */
export interface ContainerRuntime {
  readonly door: OciRuntime;
  readonly record: TaskRecord['runtime'];
}

/**
 * Opens the OCI runtime that the client's options name, or else the configured one, for a container that is to be made.
 * @param isNew false for one that lives
 * @throws OciError of kind `missing-runtime`
 */
export async function openContainerRuntime(
  context: ShimContext,
  { id, bundle }: { readonly id: string; readonly bundle: string },
  options: Options,
  spec: ContainerSpec,
  { isNew = true } = {},
): Promise<ContainerRuntime> {
  const { config, namespace, paths, exec } = context;
  const [binary, criuDir] = await Promise.all([
    context.binaries.get(options.binaryName || config.runtime.oci),
    criuFolderOf(context),
  ]);
  const record = {
    path: binary.path,
    root: options.root === '' ? paths.ociRoot(namespace) : join(options.root, namespace),
    systemdCgroup: options.systemdCgroup || isSystemdPath(spec.cgroupsPath),
  };
  const configured = config.runtime.criu;
  const criu = {
    ...(criuDir === undefined ? {} : { criuDir }),
    ...(configured === 'criu' ? {} : { requireCriu: () => findProgram(configured) }),
  };
  const files = spec.limitsFiles || context.openFiles === undefined ? {} : { openFiles: context.openFiles };
  environment ??= { ...process.env };
  const isRootSlow = options.root !== '' && !/^(\/var)?\/run\//.test(options.root);
  const common = { exec, binary, bundle, env: environment, isRootSlow };
  const door = openRuntime({ ...common, ...record, ...criu, ...files });
  const runtime = { door, record };
  if (isNew && (isRootSlow || existsSync(join(record.root, id)))) await clearStale(id, runtime);
  return runtime;
}

/** Ours, which does not change once there are containers: process.env asks the C library for each variable, every time. */
let environment: NodeJS.ProcessEnv | undefined;

let folder: Promise<string | undefined> | undefined;

/** A `criu` of another name or place than PATH has; undefined where PATH serves, or there is none (yet). */
function criuFolderOf({ config, paths }: ShimContext): Promise<string | undefined> {
  if (config.runtime.criu === 'criu') return Promise.resolve(undefined);
  folder ??= findProgram(config.runtime.criu)
    .then((path) => criuFolder(path, `${paths.runDir}/criu`))
    .catch(() => {
      folder = undefined;
      return undefined;
    });
  return folder;
}
