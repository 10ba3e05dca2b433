// Further processes in a container.
import { scenarios } from './parity.ts';
import { IDLE } from './stage.ts';

scenarios('exec', {
  'output and exit codes': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.exec(name, 'a', 'echo out; echo err >&2; exit 5');
    await stage.exec(name, 'b', 'kill -9 $$');
    await stage.shape(name);
  },
  detached: async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.exec(name, 'e', 'sleep 0.2; exit 5', ['-d']);
    await stage.wait(name, 'e');
    await stage.deleteExec(name, 'e');
  },
  'with a terminal': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.terminalExec(name, 'sleep 0.3; tty; exit 6');
  },
  'environment, working folder and user': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.exec(name, 'e', 'pwd; id -u; env | sort', ['--cwd', '/bin', '--user', '7:8']);
  },
  'a missing program': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.ctr('tasks', 'exec', '--exec-id', 'e', name, '/no/such');
    await stage.addExec(name, 'f', ['no-such']);
    await stage.start(name, 'f');
    await stage.state(name, 'f');
    await stage.wait(name, 'f');
    await stage.deleteExec(name, 'f');
    await stage.deleteExec(name, 'f');
  },
  'a program without the right to be run': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.ctr('tasks', 'exec', '--exec-id', 'e', name, '/writer.pl');
  },
  'a bad working folder': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.exec(name, 'a', 'pwd', ['--cwd', '/no/such']);
    await stage.exec(name, 'b', 'pwd', ['--cwd', 'relative']);
  },
  'a bad user': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.exec(name, 'a', 'id', ['--user', 'nobody-knows']);
    await stage.addExec(name, 'b', ['id'], { user: { uid: 4_294_967_295, gid: 0 } });
    await stage.start(name, 'b');
  },
  'a bad specification': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.rawExec(name, 'a', 'types.containerd.io/opencontainers/runtime-spec/1/Process', '{"args": [');
    await stage.rawExec(
      name,
      'b',
      'types.containerd.io/opencontainers/runtime-spec/1/Process',
      '{"args": 3}',
    );
    await stage.rawExec(name, 'c', 'types.containerd.io/no/such', '{}');
    await stage.addExec(name, 'd', []);
    await stage.start(name, 'd');
    await stage.addExec(name, 'e', ['true'], { cwd: '' });
    await stage.start(name, 'e');
  },
  'bad names': async (stage) => {
    const name = await stage.detached(IDLE);
    for (const execId of ['', '../up', 'with space', 'x'.repeat(80), '-flag', 'ünï']) {
      await stage.addExec(name, execId, ['true']);
    }
  },
  'after the end of the container': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.end(name);
    await stage.exec(name, 'e', 'true');
    await stage.addExec(name, 'f', ['true']);
    await stage.start(name, 'f');
  },
  'before the start of the container': async (stage) => {
    const name = await stage.created(IDLE);
    await stage.task(name);
    await stage.addExec(name, 'e', ['true']);
    await stage.start(name, 'e');
    await stage.wait(name, 'e');
    await stage.start(name);
    await stage.end(name);
  },
  'while paused': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'early', ['true']);
    await stage.ctr('tasks', 'pause', name);
    await stage.exec(name, 'e', 'true');
    await stage.addExec(name, 'f', ['true']);
    await stage.start(name, 'early');
    await stage.ctr('tasks', 'resume', name);
    await stage.exec(name, 'e', 'true');
  },
  'the same name in turn': async (stage) => {
    const name = await stage.detached(IDLE);
    for (let i = 0; i < 20; i++) {
      stage.note('exit code', await stage.quietExec(name, 'same', ['/bin/sh', '-c', `exit ${i}`]));
    }
  },
  'the same name twice': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.start(name, 'e');
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.end(name);
  },
  'a hundred at once': {
    unordered: true,
    play: async (stage) => {
      const name = await stage.detached(IDLE);
      const codes = await Promise.all(
        Array.from({ length: 100 }, (_, i) => stage.quietExec(name, `e${i}`, ['/bin/sh', '-c', `exit ${i}`])),
      );
      stage.note('exit codes', codes);
      await stage.end(name);
    },
  },
  'one that never started': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['true']);
    await stage.state(name, 'e');
    await stage.kill(name, 9, { execId: 'e' });
    await stage.kill(name, 0, { execId: 'e' });
    await stage.deleteExec(name, 'e');
    await stage.state(name, 'e');
    await stage.addExec(name, 'left', ['true']);
    await stage.end(name);
    await stage.delete(name);
  },
  'one that is unknown': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.state(name, 'unknown');
    await stage.start(name, 'unknown');
    await stage.wait(name, 'unknown');
    await stage.kill(name, 9, { execId: 'unknown' });
    await stage.deleteExec(name, 'unknown');
    await stage.deleteExec(name, '');
  },
  'one that is started twice': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.start(name, 'e');
    await stage.start(name, 'e');
    await stage.kill(name, 9, { execId: 'e' });
    await stage.wait(name, 'e');
    await stage.start(name, 'e');
    await stage.state(name, 'e');
    await stage.deleteExec(name, 'e');
  },
  'one that is deleted while it runs': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.start(name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.state(name, 'e');
    await stage.kill(name, 15, { execId: 'e' });
    await stage.wait(name, 'e');
    await stage.kill(name, 15, { execId: 'e' });
    await stage.state(name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.kill(name, 15, { execId: 'e' });
  },
  'waiting before the start and after the end': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['/bin/sh', '-c', 'exit 9']);
    const early = stage.wait(name, 'e');
    await stage.pause(100);
    await stage.start(name, 'e');
    await early;
    await stage.wait(name, 'e');
    await stage.deleteExec(name, 'e');
    await stage.wait(name, 'e');
  },
  'the container ends while one runs': async (stage) => {
    const name = await stage.detached('until [ -e /end ]; do sleep 0.05; done; exit 6');
    await stage.exec(name, 'long', 'touch /end; sleep 600');
    await stage.ctr('tasks', 'rm', name);
  },
  'the task is deleted by force while one runs': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.exec(name, 'long', 'sleep 600', ['-d']);
    await stage.ctr('tasks', 'rm', '-f', name);
  },
  'processes with their names': async (stage) => {
    const name = await stage.detached(IDLE);
    await stage.addExec(name, 'e', ['sleep', '600']);
    await stage.start(name, 'e');
    await stage.processes(name);
    await stage.end(name);
  },
});
