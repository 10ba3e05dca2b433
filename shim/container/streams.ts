import type { Options } from '../../src/proto/gen/containerd/runc_options.ts';
import {
  abandonKeptIo,
  dropKeptIo,
  takeKeptIo,
  type IoContext,
  type ProcessIo,
  type StdioAddresses,
} from '../stdio/index.ts';
import type { ShimContext } from './context.ts';

/** How long the client's streams of an exec are kept that an earlier worker could not start: requests come again at once. */
const AGAIN_MS = 30_000;

/** Where the streams of a container's processes are kept, and what becomes of those that an earlier worker has left. */
export class Streams {
  readonly #context: Pick<ShimContext, 'kept'>;
  readonly #io: IoContext;

  constructor(
    context: Pick<ShimContext, 'kept' | 'namespace'>,
    containerId: string,
    { ioUid: uid, ioGid: gid }: Pick<Options, 'ioUid' | 'ioGid'>,
  ) {
    this.#context = context;
    this.#io = { containerId, namespace: context.namespace, owner: { uid, gid } };
  }

  /** Whether what is written down and kept is for a worker that follows. */
  get areKept(): boolean {
    return this.#context.kept !== undefined;
  }

  /** Where a process's streams are kept: the first one's have no exec id. */
  of(execId: string): IoContext {
    const { kept } = this.#context;
    return kept === undefined
      ? this.#io
      : { ...this.#io, kept: { ...kept, prefix: `io/${this.#io.containerId}/${execId}/` } };
  }

  /** Those that the worker before has left with the guard; undefined where there is none. */
  take({ stdio }: { stdio: StdioAddresses }, execId: string, takesInput: boolean): ProcessIo | undefined {
    const io = this.of(execId);
    return io.kept === undefined ? undefined : takeKeptIo(stdio, io, io.kept, takesInput);
  }

  /**
   * Of an exec that did not come to be; whoever has asked for its start may ask again.
   * @param isUsed whether they belong to such a start by the time when they would go
   */
  abandon(execId: string, isUsed: () => boolean): void {
    const { kept } = this.of(execId);
    if (kept === undefined) return;
    abandonKeptIo(kept);
    setTimeout(() => {
      if (!isUsed()) dropKeptIo(kept);
    }, AGAIN_MS).unref();
  }
}
