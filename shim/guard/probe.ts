import { connect } from 'node:net';
import { FrameDecoder } from '../../ttrpc/frame.ts';
import { requestFrame } from './frames.ts';

const TIMEOUT_MS = 5000;

/** Asks a worker at its socket what containerd asks first of all, of no task. @throws an Error where there is no answer, whatever it is */
export async function probe(path: string): Promise<void> {
  const socket = connect(path);
  try {
    await new Promise<void>((resolve, reject) => {
      const decoder = new FrameDecoder();
      socket.setTimeout(TIMEOUT_MS, () => reject(new Error('it does not answer a question')));
      socket.once('error', reject);
      socket.once('close', () => reject(new Error('it does not answer a question')));
      socket.on('data', (chunk) => {
        for (const _ of decoder.push(chunk)) resolve();
      });
      socket.write(requestFrame(1, 'containerd.task.v2.Task', 'Connect'));
    });
  } finally {
    socket.destroy();
  }
}
