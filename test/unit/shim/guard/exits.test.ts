import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';

const exits = new URL('../../../../shim/guard/exits.ts', import.meta.url).href;

/**
 * A process with one child, whose end falls into a moment in which no signal can be kept any more: 16 bytes of each go into libuv's pipe,
 * which holds 64 KiB.
 */
const program = `
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Exits } from ${JSON.stringify(exits)};
let told = 0;
process.on('SIGURG', () => { told++; });
const child = spawn('sleep', ['0.3'], { stdio: 'ignore' });
new Exits(() => ({ add() {}, forget() {}, remove() {} }), (pid) => pid === child.pid, () => end('not a worker'));
child.once('exit', (status) => end('exit code ' + status));
child.once('spawn', () => {
  for (let sent = 0; sent < 10_000; sent++) process.kill(process.pid, 'SIGURG');
  while (!/\\) Z/.test(readFileSync('/proc/' + child.pid + '/stat', 'latin1')));
});
setTimeout(() => end('nothing'), 10_000);
function end(what) {
  console.log(what, told > 0 && told < 10_000 ? 'of some signals' : 'of ' + told + ' signals');
  process.exit();
}
`;

test('the end of a worker is seen though its signal was lost', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program]);
  assert.equal(stdout, 'exit code 0 of some signals\n');
});
