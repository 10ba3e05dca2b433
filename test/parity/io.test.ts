// The ways of a container's input and output.
import { writeFileSync } from 'node:fs';
import { scenarios } from './parity.ts';
import { IDLE } from './stage.ts';

const COUNT =
  'i=0; while [ $i -lt 5000 ]; do echo "$i 0123456789012345678901234567890123456789"; i=$((i+1)); done';

scenarios('input and output', {
  'big output': (stage) => stage.run(COUNT),
  'big output of both kinds': (stage) => stage.run(`(${COUNT}) & other=$!; (${COUNT}) >&2; wait $other`),
  input: (stage) => stage.run('cat; echo end', [], { input: 'line\nno end' }),
  'big input': (stage) => stage.run('md5sum', [], { input: '0123456789\n'.repeat(50_000) }),
  'input that nobody reads': (stage) => stage.run('exec <&-; echo done', [], { input: 'x'.repeat(300_000) }),
  'input of an exec': async (stage) => {
    const name = await stage.detached(IDLE);
    const args = ['tasks', 'exec', '--exec-id', 'e', name, 'cat'];
    await stage.program('ctr', args, { input: 'line\n' });
  },
  'output after the reader left': async (stage) => {
    const name = stage.name();
    const flags = stage.flags(name, ['--rm', '--fifo-dir', stage.fifos]);
    const script = `while true; do echo line || exit 9; sleep 0.02; done`;
    await stage.leave(name, 'ctr', ['run', ...flags, stage.image, name, '/bin/sh', '-c', script]);
    await stage.exec(name, 'e', 'sleep 0.3; echo still here');
    await stage.state(name);
    await stage.end(name);
  },
  'attach after the reader left': async (stage) => {
    const name = stage.name();
    const flags = stage.flags(name, ['--rm', '--fifo-dir', stage.fifos]);
    const script = 'trap "echo late; exit 4" TERM; touch /ready; while true; do sleep 0.02; done';
    await stage.leave(name, 'ctr', ['run', ...flags, stage.image, name, '/bin/sh', '-c', script]);
    await stage.ready(name);
    const attached = stage.ctr('tasks', 'attach', name);
    await stage.pause(300);
    await stage.kill(name, 15);
    await attached;
  },
  'output to a file': async (stage) => {
    const name = await stage.detached('echo out; sleep 0.1; echo err >&2', [
      '--log-uri',
      `file://${stage.folder}/deep/log`,
    ]);
    await stage.wait(name);
    await stage.ctr('tasks', 'rm', name);
    await stage.file('deep/log', (text) => text.length === 8);
  },
  'output to a file that is there': async (stage) => {
    writeFileSync(`${stage.folder}/log`, 'before\n');
    const name = await stage.detached('echo out', ['--log-uri', `file://${stage.folder}/log`]);
    await stage.wait(name);
    await stage.ctr('tasks', 'rm', name);
    await stage.file('log', (text) => text.length > 7);
  },
  'output to a file that cannot be': (stage) =>
    stage.detached('echo out', ['--log-uri', 'file:///proc/no/such']),
  'output to a program': async (stage) => {
    const program = `${stage.folder}/logger`;
    const script = [
      '#!/bin/sh',
      `env | grep -E '^(CONTAINER|NAMESPACE)' | sort >${stage.folder}/env; echo "$@" >>${stage.folder}/env`,
      'exec 5>&-',
      `cat <&3 >${stage.folder}/out &`,
      `cat <&4 >${stage.folder}/err &`,
      'wait',
    ];
    writeFileSync(program, `${script.join('\n')}\n`, { mode: 0o755 });
    const name = await stage.detached('echo out; echo err >&2', [
      '--log-uri',
      `binary://${program}?key=value`,
    ]);
    await stage.wait(name);
    await stage.ctr('tasks', 'rm', name);
    for (const file of ['out', 'err', 'env']) await stage.file(file);
  },
  'output to a program that is missing': (stage) =>
    stage.detached('echo out', ['--log-uri', 'binary:///no/such/logger']),
  'output to a program that fails': async (stage) => {
    const name = await stage.detached('echo out; sleep 0.2', ['--log-uri', 'binary:///bin/false']);
    await stage.wait(name);
    await stage.ctr('tasks', 'rm', name);
  },
  'output to a kind of place that is unknown': (stage) =>
    stage.detached('echo out', ['--log-uri', 'gopher:///no/such']),
  'a terminal that is resized': async (stage) => {
    const name = await stage.detached(IDLE);
    const out = stage.pipes();
    await stage.addExec(
      name,
      'e',
      ['/bin/sh', '-c', 'read x; stty size'],
      {},
      { ...out.stdio, stderr: '', terminal: true },
    );
    await stage.start(name, 'e');
    await stage.resize(name, 'e', 77, 33);
    out.write('\n');
    await stage.wait(name, 'e');
    await stage.deleteExec(name, 'e');
    stage.note('output', await out.text());
    await stage.end(name);
  },
  'a resize without terminal': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.resize(name, '', 80, 25);
    await stage.resize(name, 'unknown', 80, 25);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.resize(name, 'e', 80, 25);
    await stage.start(name, 'e');
    await stage.resize(name, 'e', 80, 25);
    await stage.end(name);
    await stage.resize(name, '', 80, 25);
  },
  'input that is closed': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.closeIO(name);
    await stage.closeIO(name, 'unknown');
    const out = stage.pipes();
    await stage.addExec(name, 'e', ['/bin/sh', '-c', 'cat; echo end'], {}, out.stdio);
    await stage.start(name, 'e');
    out.write('line\n');
    out.end();
    await stage.closeIO(name, 'e');
    await stage.wait(name, 'e');
    await stage.closeIO(name, 'e');
    await stage.deleteExec(name, 'e');
    stage.note('output', await out.text());
    await stage.end(name);
    await stage.closeIO(name);
  },
});
