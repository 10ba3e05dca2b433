import { check, native } from './libc.ts';

// clock_gettime(2)
const clockGettime = native<[number, Buffer]>('int clock_gettime(int clock, void *time)');

const CLOCK_REALTIME = 0;
const timespec = Buffer.alloc(16);

/** A point in time as protobuf's Timestamp has it. */
export interface WallTime {
  /** Seconds since 1970, UTC. */
  readonly seconds: bigint;
  readonly nanos: number;
}

/** Now, in nanoseconds: JavaScript's own clock stops at the millisecond, clock_gettime(2). */
export function wallTime(): WallTime {
  check('clock_gettime', clockGettime(CLOCK_REALTIME, timespec));
  return { seconds: timespec.readBigInt64LE(0), nanos: Number(timespec.readBigInt64LE(8)) };
}
