// Running a container: what the client sees, what is published and what stays behind.
import { scenarios } from './parity.ts';
import { IDLE, LOOP } from './stage.ts';

scenarios('run', {
  'run to the end': (stage) => stage.run('echo out; echo err >&2; exit 3'),
  'exit codes': async (stage) => {
    for (const code of [0, 126, 255]) await stage.run(`exit ${code}`);
  },
  'an exit by a signal': async (stage) => {
    // Not as process 1, which its own signals do not reach.
    for (const signal of ['TERM', 'KILL', 'SEGV']) await stage.run(`sh -c 'kill -${signal} $$'; echo $?`);
  },
  'run on the snapshotter of stasis': {
    snapshotter: 'stasis',
    play: (stage) => stage.run('echo out; exit 3'),
  },
  'run detached': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.shape(name);
    await stage.end(name);
    await stage.shape(name);
    await stage.ctr('tasks', 'rm', name);
    await stage.shape(name);
  },
  'run with a terminal': (stage) => stage.terminal('tty; echo out; exit 3'),
  'a missing program': (stage) => stage.runProgram(['/no/such']),
  'a missing program in PATH': (stage) => stage.runProgram(['no-such']),
  'a program without the right to be run': (stage) => stage.runProgram(['/writer.pl']),
  'a folder as program': (stage) => stage.runProgram(['/bin']),
  'a working folder that is a file': (stage) => stage.run('pwd', ['--cwd', '/writer.pl']),
  'a working folder that is missing': (stage) => stage.run('pwd', ['--cwd', '/new/folder']),
  'a read-only root': (stage) => stage.run('echo x >/file || echo refused', ['--read-only']),
  'environment, working folder and host name': (stage) =>
    stage.run('pwd; env | sort; hostname', ['--cwd', '/bin', '--env', 'A=b c', '--env', 'EMPTY=']),
  'the network of the host': (stage) => stage.run('readlink /proc/self/ns/net', ['--net-host']),
  'a mount that cannot be made': (stage) =>
    stage.run('true', ['--mount', 'type=bind,src=/no/such,dst=/mnt,options=rbind:ro']),
  'a pid file': async (stage) => {
    const name = await stage.detached(IDLE, ['--null-io', '--pid-file', `${stage.folder}/pid`]);
    await stage.file('pid', (text) => text !== '');
    await stage.end(name);
  },
  'a process that forks and exits': (stage) => stage.run('(sleep 600 &) ; exit 5'),
  'a child that keeps the output': (stage) => stage.run('sleep 600 & echo out; exit 6'),
  'zombies in the container': async (stage) => {
    // Nobody reaps the child: what becomes of process 1 does not know of it.
    const name = await stage.detached('sleep 0.01 & exec sleep 600');
    await stage.pause(300);
    await stage.shape(name);
    await stage.end(name);
  },
  'orphans of the container': async (stage) => {
    const name = await stage.detached(`(sh -c 'sleep 0.3' &) ; ${LOOP}`);
    await stage.exec(name, 'e', '(sleep 0.2 &) ; exit 4');
    await stage.end(name);
  },
  'the pid namespace of another container': async (stage) => {
    const first = await stage.detached(IDLE);
    const second = await stage.detached(IDLE, [
      '--null-io',
      '--with-ns',
      `pid:/proc/${stage.pids[0]}/ns/pid`,
    ]);
    await stage.exec(second, 'e', 'kill -0 1; echo $?');
    await stage.end(first);
    await stage.wait(second);
  },
  'the pid namespace of the host': async (stage) => {
    // No namespace ends its processes with it: the shim has to.
    const name = await stage.detached(`sleep 600 & sleep 600 & sleep 0.3; exit 7`, [
      '--null-io',
      '--with-ns',
      'pid:/proc/1/ns/pid',
    ]);
    await stage.wait(name);
    await stage.ctr('tasks', 'rm', name);
  },
  'a user namespace': async (stage) => {
    // The streams are root's on the host: what runs as somebody else there must be able to open them anew.
    const name = await stage.detached(`cat /proc/self/uid_map; id; echo again >/dev/stderr; ${IDLE}`, [
      '--null-io',
      '--uidmap',
      '0:100000:65536',
      '--gidmap',
      '0:200000:65536',
    ]);
    await stage.exec(name, 'e', 'cat /proc/self/gid_map; id; stat -c %u:%g /bin/sh; exit 4');
    await stage.shape(name);
    await stage.end(name);
    await stage.ctr('tasks', 'rm', name);
    await stage.run('id; echo err >/dev/stderr; exit 5', [
      '--uidmap',
      '0:100000:65536',
      '--gidmap',
      '0:200000:65536',
    ]);
  },
  'a container that exists': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.ctr('run', '-d', '--null-io', ...stage.flags(name), stage.image, name, 'true');
    await stage.task(name);
    await stage.end(name);
    await stage.task(name);
    await stage.delete(name);
  },
});
