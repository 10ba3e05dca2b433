import { AlreadyExists, Cancelled, NotFound } from '../errors.ts';
import type { GrpcContext } from './grpc-server.ts';
import { operationMetadata } from './metadata.ts';

/** The calls under way that their clients have named. */
export class Operations {
  readonly #running = new Map<string, AbortController>();

  /**
   * What a call's operation is to heed: aborted when its client breaks it off, or asks for its end by `cancel`. Disposed of
   * when the operation has ended. @throws AlreadyExists where a call of that name is under way
   */
  begin({ signal, metadata }: GrpcContext): { signal: AbortSignal } & Disposable {
    const name = metadata.get(operationMetadata);
    if (name === undefined) return { signal, [Symbol.dispose]: () => undefined };
    if (this.#running.has(name)) {
      throw new AlreadyExists(`a call named ${name} is under way`, {
        subject: name,
        reason: 'operation-exists',
      });
    }
    const controller = new AbortController();
    this.#running.set(name, controller);
    return {
      signal: AbortSignal.any([signal, controller.signal]),
      [Symbol.dispose]: () => void this.#running.delete(name),
    };
  }

  /** @throws NotFound where no call of that name is under way: it has ended, or is another client's of an older version */
  cancel(name: string): void {
    const controller = this.#running.get(name);
    if (controller === undefined) {
      throw new NotFound(`no call named ${name} is under way`, {
        subject: name,
        reason: 'operation-not-found',
        remedy: 'it has ended: see its own answer',
      });
    }
    controller.abort(new Cancelled('the client cancelled the call'));
  }
}
