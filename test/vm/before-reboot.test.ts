// The first half of after-reboot.test.ts.
import { before, test } from 'node:test';
import { count, startWriter } from '../system/support/container.ts';
import { datasets, importImage, stasis } from '../system/support/stack.ts';
import { bootId, note, web } from './reboot.ts';

before(importImage);

test('a container is checkpointed, and runs when the machine goes down', async () => {
  await startWriter(web);
  const least = await count(web);
  await stasis('checkpoint', web, '--name', 'kept', '--require-memory');
  note({ bootId: bootId(), datasets: datasets(), count: least });
});
