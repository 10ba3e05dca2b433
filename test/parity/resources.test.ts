// Memory and other limits, checkpoints.
import { scenarios } from './parity.ts';
import { IDLE, TICK } from './stage.ts';

const EAT = `perl -e 'my @x; push @x, "x" x 1048576 while 1'`;

/** crun forgets a container that a checkpoint ended; theirs then cannot delete the task. */
const CRUN_FORGETS = 'deletes a task that a checkpoint has ended';

scenarios(
  'resources and checkpoints',
  {
    'out of memory': {
      unordered: true,
      play: async (stage) => {
        const name = await stage.detached(`exec ${EAT}`, ['--null-io', '--memory-limit', '16777216']);
        await stage.wait(name);
        await stage.ctr('tasks', 'rm', name);
      },
    },
    'out of memory in an exec': {
      // The kernel tells of both at once: which is heard first is chance.
      unordered: true,
      play: async (stage) => {
        const name = await stage.detached(IDLE, ['--null-io', '--memory-limit', '16777216']);
        await stage.exec(name, 'e', `exec ${EAT}`);
        await stage.state(name);
        await stage.end(name);
      },
    },
    'new limits': async (stage) => {
      const name = await stage.detached(IDLE);
      await stage.update(name, { memory: { limit: 67_108_864 }, pids: { limit: 20 }, cpu: { shares: 512 } });
      await stage.metricsOf(name, ['memory.usage.limit', 'pids.limit']);
      await stage.update(name, { memory: { limit: 1 } });
      await stage.updateRaw(
        name,
        'types.containerd.io/opencontainers/runtime-spec/1/LinuxResources',
        '{"memory": 3',
      );
      await stage.updateRaw(name, 'types.containerd.io/no/such', '{}');
      await stage.update(name, {});
      await stage.end(name);
      await stage.update(name, { pids: { limit: 20 } });
    },
    'a checkpoint that leaves it running': async (stage) => {
      const name = await stage.detached(TICK);
      await stage.checkpoint(name, false);
      await stage.state(name);
      await stage.exec(name, 'e', 'exit 4');
      await stage.end(name);
    },
    'a checkpoint that ends it': {
      runcAlone: CRUN_FORGETS,
      play: async (stage) => {
        const name = await stage.detached(TICK);
        const ended = stage.wait(name);
        await stage.checkpoint(name, true);
        await ended;
        await stage.state(name);
        await stage.ctr('tasks', 'rm', name);
      },
    },
    'a checkpoint while paused': async (stage) => {
      const name = await stage.detached(TICK);
      await stage.ctr('tasks', 'pause', name);
      await stage.checkpoint(name, false);
      await stage.state(name);
      await stage.ctr('tasks', 'resume', name);
      await stage.end(name);
    },
    'checkpoints of what does not run': async (stage) => {
      const name = await stage.created(TICK);
      await stage.checkpoint(name, false);
      await stage.task(name);
      await stage.checkpoint(name, false);
      await stage.start(name);
      await stage.end(name);
      await stage.checkpoint(name, false);
    },
    'a restore': {
      runcAlone: CRUN_FORGETS,
      play: (stage) =>
        stage.keeping(async () => {
          // In one process: a dump that meets a shell in vfork fails under containerd's own shim.
          const name = await stage.detached(
            'echo 1 >/count; touch /ready; exec perl -e \'while (1) { $n++; open(F, ">/new"); print F $n; close F; ' +
              'rename "/new", "/count"; select(undef, undef, undef, 0.05) }\'',
          );
          await stage.ready(name);
          const checkpoint = await stage.checkpoint(name, true);
          await stage.wait(name);
          await stage.ctr('tasks', 'rm', name);
          await stage.task(name, {}, checkpoint);
          await stage.state(name);
          await stage.start(name);
          await stage.state(name);
          await stage.exec(name, 'e', '[ "$(cat /count)" -gt 0 ] && echo counts');
          await stage.shape(name);
          await stage.end(name);
          await stage.ctr('tasks', 'rm', name);
        }),
    },
    'a restore that is never started': {
      runcAlone: CRUN_FORGETS,
      play: (stage) =>
        stage.keeping(async () => {
          const name = await stage.detached(TICK);
          const checkpoint = await stage.checkpoint(name, true);
          await stage.wait(name);
          await stage.ctr('tasks', 'rm', name);
          await stage.task(name, {}, checkpoint);
          await stage.delete(name);
        }),
    },
    'metrics and processes by name': async (stage) => {
      const name = await stage.detached(IDLE, ['--null-io', '--memory-limit', '67108864']);
      await stage.metrics(name);
      await stage.metricsOf(name, ['memory.usage.limit']);
      await stage.shape(name);
      await stage.end(name);
      await stage.metrics(name);
    },
  },
  2,
);
