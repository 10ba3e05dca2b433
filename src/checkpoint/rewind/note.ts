// What is noted of a rewind while it is under way.
import { randomUUID } from 'node:crypto';
import type { Host } from '../host.ts';
import { isRunning, newNote } from './notes.ts';
import { removeStage, type Stage } from '../staging.ts';
import type { Rewinding } from './rewinding.ts';

/** What is noted of a rewind for those who come after it. */
export interface Note extends Disposable {
  /** Which container it is of. */
  readonly id: string;
  /** Whether what ran comes back with its memory. */
  readonly hasMemory: boolean;
  /** Whether a task was ended of which there is no image. */
  readonly hasLostMemory: boolean;
  /** Where the image of the task is being made. */
  readonly stage: string;
  staged(stage: Stage): void;
  /** From here on the task has ended by this rewind. @param memory with its image */
  ended(memory: boolean): void;
  /** Nothing of it needs to be done any more. */
  done(): Promise<void>;
  /** All is as it was found: what an earlier rewind has left is left again. */
  asItWas(): Promise<void>;
}

/** Begins the note of a rewind; with what an earlier one has left, where nothing has run since. @throws ENOSPC */
export function openNote(host: Host, { namespace, record, task, place }: Rewinding): Note {
  const before = host.rewinds.of({ namespace, container: record.id });
  const runs = isRunning(task);
  const disk = host.store.findContainer(namespace, record.snapshotKey);
  // Where nothing runs, what an earlier rewind stopped and could not bring back is still what there was.
  const from =
    before !== undefined && !runs
      ? before
      : newNote({ namespace, record, task }, place?.group ?? randomUUID(), disk);
  const open = host.rewinds.open(from);
  if (from !== before && before !== undefined)
    host.later('remove the image of a stopped task', removeStage(before.stage));
  let memory = from.stage !== '';
  let lost = false;
  const done = async (): Promise<void> => {
    open.done();
    await removeStage(open.note.stage);
  };
  return {
    id: record.id,
    get hasMemory() {
      return memory;
    },
    get hasLostMemory() {
      return lost;
    },
    get stage() {
      return open.note.stage;
    },
    staged: (stage) => open.change({ stage: stage.folder }),
    ended: (withMemory) => {
      memory = withMemory;
      lost = !withMemory;
      open.change({ ended: true });
    },
    done,
    asItWas: async () => {
      if (from !== before) await done();
    },
    [Symbol.dispose]: () => open[Symbol.dispose](),
  };
}
