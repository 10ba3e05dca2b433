// Watches a container's file and answers for how long, at most, its content stood still. Runs as a worker thread.
import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { parentPort, workerData } from 'node:worker_threads';

const { path } = workerData as { path: string };
const pause = new Int32Array(new SharedArrayBuffer(4));
let last = '';
let since = process.hrtime.bigint();
let longest = 0n;
let stopped = false;
let ended = false;
parentPort?.on('message', () => (stopped = true));
parentPort?.postMessage('ready');

function look(): void {
  for (let n = 0; n < 20; n++) {
    const now = process.hrtime.bigint();
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch {
      // The process is gone, and with it the way to its file: its standstill ends here.
      text = existsSync(dirname(dirname(path))) ? last : `ended ${last}`;
      if (text !== last) ended = true;
    }
    if (ended && last.startsWith('ended')) break;
    if (text !== '' && text !== last) {
      if (last !== '' && now - since > longest) longest = now - since;
      last = text;
      since = now;
    }
    Atomics.wait(pause, 0, 0, 1);
  }
  if (stopped) {
    parentPort?.postMessage(Number(longest) / 1e6);
    parentPort?.close();
  } else setImmediate(look);
}
look();
