import type { Timestamp } from './proto/gen/google/protobuf/timestamp.ts';

const sizes = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

/** Bytes with an IEC unit: `0 B`, `1.5 KiB`, `120 MiB`. */
export function size(bytes: bigint | number): string {
  let value = Number(bytes);
  let unit = 0;
  // 1023.95 is where one decimal would show 1024.0.
  while (Math.abs(value) >= (unit === 0 ? 1024 : 1023.95) && unit < sizes.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || Math.abs(value) >= 99.95 ? value.toFixed(0) : value.toFixed(1)} ${sizes[unit]}`;
}

/** Nanoseconds: `0.42 ms`, `23.4 ms`, `1.24 s`, `2 min 3 s`. */
export function duration(nanoseconds: bigint | number): string {
  const ms = Number(nanoseconds) / 1e6;
  if (ms === 0) return '0 ms';
  if (ms < 9.995) return `${ms.toFixed(2)} ms`;
  if (ms < 99.95) return `${ms.toFixed(1)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_995) return `${(ms / 1000).toFixed(2)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** How long ago, in the largest unit that fits: `12 s ago`. Clocks that differ make it `now`. */
export function age(time: Timestamp | undefined, now: number): string {
  if (time === undefined) return '-';
  const seconds = Math.floor((now - milliseconds(time)) / 1000);
  if (seconds < 1) return 'now';
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} d ago`;
}

/** RFC 3339 in UTC with all nine digits, so that nothing that the daemon said is lost. */
export function rfc3339(time: Timestamp | undefined): string | null {
  if (time === undefined) return null;
  const date = new Date(Number(time.seconds) * 1000);
  if (Number.isNaN(date.getTime())) return null;
  return date.toISOString().replace(/\.\d+Z$/, `.${String(time.nanos).padStart(9, '0')}Z`);
}

/** Since 1970. */
export function milliseconds(time: Timestamp): number {
  return Number(time.seconds) * 1000 + time.nanos / 1e6;
}

/** `1 container`, `2 containers`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`;
}
