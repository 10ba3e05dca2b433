// Stat calls by many callers at once, on one connection to stasisd's socket, as containerd's proxy plugin has it.
import type { StreamHandler } from '../../../src/http2/client-connection.ts';
import type { Field } from '../../../src/http2/hpack.ts';
import { SnapshotsDefinition } from '../../../src/proto/gen/containerd/snapshots.ts';
import type { ListedDaemon } from './listed-daemon.ts';

const { methods, fullName } = SnapshotsDefinition;
const fields: Field[] = [
  [':method', 'POST'],
  [':scheme', 'http'],
  [':path', `/${fullName}/${methods.stat.name}`],
  [':authority', 'localhost'],
  ['content-type', 'application/grpc'],
  ['te', 'trailers'],
  ['containerd-namespace', 'default'],
];

export interface StatResult {
  /** The slowest hundredth, in milliseconds. */
  readonly p99: number;
  /** Calls a second. */
  readonly rate: number;
  readonly failed: number;
}

/** @param load `callers` at once, each of which makes `calls` calls for the names in turn */
export async function statCalls(
  daemon: ListedDaemon,
  load: { readonly names: readonly string[]; readonly callers: number; readonly calls: number },
): Promise<StatResult> {
  const connection = daemon.connect();
  const bodies = load.names.map(body);
  const times: number[] = [];
  let [serial, failed] = [0, 0];
  const one = (): Promise<void> =>
    new Promise((resolve) => {
      const begin = process.hrtime.bigint();
      const end = (ok: boolean): void => {
        times.push(Number(process.hrtime.bigint() - begin) / 1e6);
        if (!ok) failed++;
        resolve();
      };
      const handler: StreamHandler = {
        fields: (trailers, last) => {
          if (last) end(trailers.some(([name, value]) => name === 'grpc-status' && value === '0'));
        },
        data: () => undefined,
        end: () => end(false),
        failed: () => end(false),
      };
      connection.request(fields, bodies[serial++ % bodies.length] ?? Buffer.alloc(0), handler);
    });
  const begin = process.hrtime.bigint();
  await Promise.all(
    Array.from({ length: load.callers }, async () => {
      for (let at = 0; at < load.calls; at++) await one();
    }),
  );
  const rate = times.length / (Number(process.hrtime.bigint() - begin) / 1e9);
  connection.close();
  times.sort((a, b) => a - b);
  return { p99: times[Math.floor(times.length * 0.99)] ?? 0, rate, failed };
}

function body(key: string): Buffer {
  const message = methods.stat.requestType.encode({ snapshotter: 'stasis', key }).finish();
  const bytes = Buffer.alloc(5 + message.length);
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, 5);
  return bytes;
}
