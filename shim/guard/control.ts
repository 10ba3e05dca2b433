import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { Ask, Answer } from '../../src/shims/control.ts';
import { listenPrivately } from '../../src/sys/listen.ts';

const MAX_LINE = 1000;

/**
 * Listens for those who ask about the guard itself: a line of JSON, answered by a line. Requests of containerd's go elsewhere.
 * @param answer must not throw
 */
export async function listenForQuestions(
  path: string,
  answer: (ask: Ask) => Promise<Answer>,
): Promise<Server> {
  rmSync(path, { force: true });
  const listener = createServer((client) => hear(client, answer));
  await listenPrivately(listener, path);
  return listener;
}

function hear(client: Socket, answer: (ask: Ask) => Promise<Answer>): void {
  let text = '';
  client.setEncoding('utf8');
  client.on('error', () => undefined);
  client.on('data', (chunk: string) => {
    text += chunk;
    if (!text.includes('\n') && text.length <= MAX_LINE) return;
    client.removeAllListeners('data');
    void askOf(text.split('\n')[0] ?? '', answer).then((reply) => client.end(`${JSON.stringify(reply)}\n`));
  });
}

async function askOf(line: string, answer: (ask: Ask) => Promise<Answer>): Promise<Answer> {
  try {
    const { ask } = JSON.parse(line) as { ask?: unknown };
    if (ask === 'status' || ask === 'upgrade') return await answer(ask);
    return { error: `it is not known here how to ${String(ask)}` };
  } catch {
    return { error: 'that is no question' };
  }
}
