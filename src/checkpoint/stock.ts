import { InvalidArgument } from '../errors.ts';
import { cgroupsModes, type CgroupsMode, type CriuOptions } from '../oci/types.ts';
import type { CheckpointOptions } from '../proto/gen/containerd/runc_options.ts';
import type { DiskPlan, InstantPlan } from './instant-plan.ts';

/** The file that names the disk half in the folder of memory that a stock client, or containerd, keeps. */
export const STOCK_FILE = 'stasis.json';

/** Kinds of namespaces that CRIU can leave empty. */
const emptyNamespaces = ['network'];

/**
 * What CRIU is told for every container: external Unix sockets and file locks are kept, as both are common and a dump
 * would fail without; open TCP connections are kept too, since a checkpoint leaves the container running with them. A
 * restore must be told the same. Terminals need nothing: both runtimes name theirs to CRIU themselves.
 */
export const defaultCriuOptions: CriuOptions = { extUnixSk: true, fileLocks: true, tcpEstablished: true };

/**
 * CRIU's options from what a stock client sends with Task.Checkpoint.
 * @throws InvalidArgument for a mode or namespace that does not exist
 */
export function criuOptionsOf(options: CheckpointOptions): CriuOptions {
  const unknown = options.emptyNamespaces.find((kind) => !emptyNamespaces.includes(kind));
  if (unknown !== undefined) {
    throw new InvalidArgument(`CRIU cannot leave a namespace of kind "${unknown}" empty`, {
      subject: unknown,
    });
  }
  const mode = options.cgroupsMode;
  if (mode !== '' && !isCgroupsMode(mode)) {
    throw new InvalidArgument(`"${mode}" is no cgroups mode; known: ${cgroupsModes.join(', ')}`, {
      subject: mode,
    });
  }
  return {
    tcpEstablished: options.openTcp,
    extUnixSk: options.externalUnixSockets,
    shellJob: options.terminal,
    fileLocks: options.fileLocks,
    emptyNs: options.emptyNamespaces,
    ...(mode === '' ? {} : { manageCgroupsMode: mode }),
  };
}

function isCgroupsMode(mode: string): mode is CgroupsMode {
  return (cgroupsModes as readonly string[]).includes(mode);
}

/**
 * The instant that a stock client's Task.Checkpoint asks for: memory as plain CRIU files in the folder it names, required;
 * the disk with it where the container is on our snapshotter. The folder need not exist.
 * @param path the request's `path`, used where the options name none
 * @param workDir where CRIU's log goes when the options name no folder; must exist
 */
export function stockPlan(
  path: string,
  options: CheckpointOptions,
  { workDir, disk, timeoutMs }: { workDir: string; disk?: DiskPlan; timeoutMs: number },
): InstantPlan {
  const imageDir = options.imagePath === '' ? path : options.imagePath;
  if (!imageDir.startsWith('/')) {
    throw new InvalidArgument(`the image path must be absolute: "${imageDir}"`, { subject: imageDir });
  }
  return {
    memory: {
      imageDir,
      workDir: options.workPath === '' ? workDir : options.workPath,
      criu: criuOptionsOf(options),
      required: true,
      ...(options.parentPath === '' ? {} : { parentPath: options.parentPath }),
    },
    exit: options.exit,
    timeoutMs,
    ...(disk === undefined ? {} : { disk }),
  };
}
