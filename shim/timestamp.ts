import type { Timestamp } from '../src/proto/gen/google/protobuf/timestamp.ts';
import type { Exit } from './reaper/reaper.ts';

/** Go's zero time, which containerd's clients expect of what has not happened: 1 January of the year 1. */
const NEVER: Timestamp = { seconds: -62135596800n, nanos: 0 };

/** When a process ended, as clients expect it. */
export function timestamp(exit: Exit | undefined): Timestamp {
  return exit === undefined ? NEVER : { seconds: exit.at.seconds, nanos: exit.at.nanos };
}
