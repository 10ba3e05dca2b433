import { type Noted, Notes } from './notes.ts';

/** A container that an operation is making, and that must not stay if the operation dies. */
export interface PendingContainer extends Noted {
  /** Its snapshot, which is removed with it. */
  readonly snapshotter: string;
  readonly snapshotKey: string;
}

/** Operations under way that make containers: each is noted before the first change, until it is whole, or undone. */
export class Pending extends Notes<PendingContainer> {
  constructor(runDir: string) {
    super(`${runDir}/pending`);
  }
}
