import type { GrpcHandlers } from '../api/grpc-server.ts';
import { FailedPrecondition } from '../errors.ts';
import type { ServiceDefinition } from '../../ttrpc/service.ts';

/** Handlers that refuse every call: for a containerd that is not the one whose snapshots are here. */
export function refusing<D extends ServiceDefinition>(definition: D, address: string): GrpcHandlers<D> {
  const refusal = (): FailedPrecondition =>
    new FailedPrecondition(`this stasisd serves the containerd at ${address}, and that is not who calls`, {
      subject: address,
      reason: 'other-containerd',
      remedy: 'give each containerd a stasisd of its own, or correct containerd.address in the configuration',
    });
  const unary = (): Promise<never> => Promise.reject(refusal());
  const streamed = (): AsyncIterable<never> => ({ [Symbol.asyncIterator]: () => ({ next: unary }) });
  const handlers: Record<string, unknown> = {};
  for (const [key, method] of Object.entries(definition.methods)) {
    handlers[key] = method.responseStream ? streamed : unary;
  }
  return handlers as GrpcHandlers<D>;
}
