import type { ContainerView } from './container-view.ts';

/** Something in the way of a checkpoint, or of what comes back from it. */
export interface Obstacle {
  /** Stable name, such as `io-uring`; docs/doctor.md lists them. */
  readonly name: string;
  /** `error`: the memory cannot be dumped, or not restored. `warning`: it can, and something will not be in it. */
  readonly severity: 'error' | 'warning';
  /** The process, descriptor, mount or feature: `process 4242 (node), descriptor 17`. */
  readonly subject: string;
  /** What is wrong with it. */
  readonly message: string;
  /** The way out, one sentence. */
  readonly remedy: string;
}

/** One kind of obstacle in a container, found by reading alone: nothing is stopped, opened or changed. */
export type Check = (view: ContainerView) => Obstacle[] | Promise<Obstacle[]>;

/** An obstacle as one sentence. */
export function describeObstacle({ subject, message }: Obstacle): string {
  return `${subject}: ${message}`;
}
