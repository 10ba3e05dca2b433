// A connection that is just being made, and that nobody has accepted yet: no image can hold it, and a moment later it is accepted.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, suite, test } from 'node:test';
import { checkpointsOf, inside, removeAll, uniqueName } from '../support/container.ts';
import { importPython, startPython } from '../support/debian.ts';
import { readIfThere, refused, stack, stasis, until } from '../support/stack.ts';

const kinds = {
  'over TCP': `
server = socket.socket(); server.bind(('127.0.0.1', 4000)); server.listen()
client = socket.create_connection(('127.0.0.1', 4000))`,
  'of a Unix socket, with a byte in it': `
server = socket.socket(socket.AF_UNIX); server.bind('/socket'); server.listen()
client = socket.socket(socket.AF_UNIX); client.connect('/socket'); client.sendall(b'1')`,
};

/** The server accepts as soon as somebody makes /accept. */
const accept = `
accepted = []
def server_thread():
    while not os.path.exists('/accept'): time.sleep(0.001)
    accepted.append(server.accept()[0])
threading.Thread(target=server_thread, daemon=True).start()`;

const use = `
client.sendall(b'2')
while not accepted: time.sleep(0.001)
got = b''
while not got.endswith(b'2'): got += accepted[0].recv(9)`;

suite('a connection that nobody has accepted yet', () => {
  const started: string[] = [];
  before(importPython);
  after(() => removeAll(...started));

  async function start(make: string): Promise<{ name: string; root: string }> {
    const name = uniqueName('meets');
    started.push(`${name}-1`, name);
    await startPython(name, make + accept, [], use);
    return { name, root: await inside(name, '/') };
  }

  for (const [what, make] of Object.entries(kinds)) {
    test(`${what}: the checkpoint is taken again until it is accepted`, async () => {
      const { name, root } = await start(make);
      const taken = stasis('checkpoint', name, '--name', 'c', '--require-memory');
      await until('the first to be in vain', () => triesOf(name) > 0 || undefined);
      writeFileSync(`${root}accept`, '');
      await taken;
      await stasis('clone', name, '--from', 'c');
      for (const each of [name, `${name}-1`]) {
        const at = await inside(each, '/');
        writeFileSync(`${at}check`, '');
        const said = await until('what is checked', () => readIfThere(`${at}checked`) || undefined);
        assert.equal(said, 'good');
      }
    });
  }

  test('one that is never accepted is the reason, and the container runs on', async () => {
    const { name, root } = await start(kinds['over TCP']);
    const said = await refused(5, 'checkpoint', name, '--require-memory');
    assert.match(said, /a connection is just being made and was not accepted yet/);
    assert.equal(said.split('cannot be dumped').length, 2, said);
    assert.deepEqual(await checkpointsOf(name), []);
    assert.equal(triesOf(name), 5, 'and a last one, whose failure is told');
    for (const file of ['accept', 'check']) writeFileSync(`${root}${file}`, '');
    const checked = await until('what is checked', () => readIfThere(`${root}checked`) || undefined);
    assert.equal(checked, 'good');
  });
});

/** How often the shim has said in containerd's log that a checkpoint of a container is taken once more. */
function triesOf(name: string): number {
  const lines = (readIfThere(join(stack.state, 'log/containerd.log')) ?? '').split('\n');
  return lines.filter((line) => line.includes('taken again a moment later') && line.includes(name)).length;
}
