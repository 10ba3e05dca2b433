import { createServer, type Server, type Socket } from 'node:net';
import type { Ask, Answer } from '../../src/shims/control.ts';

const MAX_LINE = 1000;

/** Answers a question; must not throw. */
type Answering = (ask: Ask, asker: Socket) => Promise<Answer>;

/** For those who ask about the guard itself: a line of JSON, answered by a line. Requests of containerd's go elsewhere. */
export function createQuestions(answer: Answering): Server {
  return createServer((client) => {
    let text = '';
    client.setEncoding('utf8');
    client.on('error', () => undefined);
    client.on('data', (chunk: string) => {
      text += chunk;
      if (!text.includes('\n') && text.length <= MAX_LINE) return;
      client.removeAllListeners('data');
      void askOf(text.split('\n')[0] ?? '', client, answer).then((reply) =>
        client.end(`${JSON.stringify(reply)}\n`),
      );
    });
  });
}

async function askOf(line: string, client: Socket, answer: Answering): Promise<Answer> {
  try {
    const { ask } = JSON.parse(line) as { ask?: unknown };
    if (ask === 'status' || ask === 'upgrade') return await answer(ask, client);
    return { error: `it is not known here how to ${String(ask)}` };
  } catch {
    return { error: 'that is no question' };
  }
}
