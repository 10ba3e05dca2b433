// What must be known to bring back what a rewind has stopped, where that rewind itself cannot.
import { Container } from '../../proto/gen/containerd/containers.ts';
import { Process, Status } from '../../proto/gen/containerd/task_types.ts';
import { startTimeOf } from '../../sys/process.ts';
import type { FormerTask } from './bring-back.ts';
import { type Noted, Notes } from '../notes.ts';

/** A rewind under way. */
export interface RewindNote extends Noted {
  /** Those that are rewound as one have the same. */
  readonly group: string;
  /** The container's record and its task as they were; protobuf in base64. */
  readonly record: string;
  /** Empty where nothing ran: then there is no task to bring back. */
  readonly task: string;
  /** Of the task's process, field 22 of /proc/PID/stat. */
  readonly startTime: string;
  /** Name and dataset of its disk before; empty where that is not in our pool. */
  readonly disk: { readonly name: string; readonly dataset: string };
  /** Folder of the stage that has the image of the task; empty before there is one. */
  readonly stage: string;
  /** The task has come to its end by the rewind, or is about to; before that it can only have ended by itself. */
  readonly ended: boolean;
}

/** Rewinds under way: each is noted before its task is touched, until what it restored runs, or what ran before does again. */
export class RewindNotes extends Notes<RewindNote> {
  constructor(runDir: string) {
    super(`${runDir}/rewinds`);
  }
}

/** A note of a rewind that begins. */
export function newNote(
  { namespace, record, task }: FormerTask,
  group: string,
  disk: { name: string; dataset: string } | undefined,
): RewindNote {
  return {
    namespace,
    container: record.id,
    group,
    record: Buffer.from(Container.encode(record).finish()).toString('base64'),
    task: task === undefined ? '' : Buffer.from(Process.encode(task).finish()).toString('base64'),
    startTime: isRunning(task) ? startTimeOf(task.pid) : '',
    disk: { name: disk?.name ?? '', dataset: disk?.dataset ?? '' },
    stage: '',
    ended: !isRunning(task),
  };
}

/** Whether there is something to stop. */
export function isRunning(task: Process | undefined): task is Process {
  return task !== undefined && task.status !== Status.STOPPED;
}

/** What a note says of the container and its task. */
export function formerOf({ namespace, record, task }: RewindNote): FormerTask {
  return {
    namespace,
    record: Container.decode(Buffer.from(record, 'base64')),
    task: task === '' ? undefined : Process.decode(Buffer.from(task, 'base64')),
  };
}
