// What there is to be known of a rewind: what it is asked, and what it answers.
import type { Container } from '../../proto/gen/containerd/containers.ts';
import type { Process } from '../../proto/gen/containerd/task_types.ts';
import type { CheckpointEntry } from '../entry.ts';
import type { OpenMemory } from '../memory-store.ts';
import type { RewindPlace } from '../pod.ts';
import type { StartedTask } from '../start.ts';

/** One container that is to go back to a checkpoint, in its own place. */
export interface Rewinding {
  readonly namespace: string;
  readonly record: Container;
  readonly task: Process | undefined;
  readonly entry: CheckpointEntry;
  readonly memory: OpenMemory;
  /** Bring the memory in while it runs. */
  readonly lazy: boolean;
  readonly signal: AbortSignal;
  /** Its part in bringing several back as one. */
  readonly place?: RewindPlace;
}

/** What a rewind answers of the new task, and how long its parts took. */
export type RewindTimes = StartedTask & { readonly stopNs: number; readonly diskNs: number };
