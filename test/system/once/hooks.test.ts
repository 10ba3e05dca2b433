// The hooks of a specification, and a start without the OCI runtime's program, by runc and by crun.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { defaultSpec } from '../../../src/cli/default-spec.ts';
import { Containerd, type NamespaceClient } from '../../../src/containerd/client.ts';
import { removeContainer, statusOf, uniqueName } from '../support/container.ts';
import { attempt, ctr, image, importImage, runtime, stack, until } from '../support/stack.ts';

let folder: string;
let rootfs: string;
let containerd: Containerd;
let api: NamespaceClient;

before(async () => {
  await importImage();
  folder = mkdtempSync(join(stack.state, 'data/tmp/hooks-'));
  rootfs = join(folder, 'rootfs');
  mkdirSync(rootfs);
  await ctr('images', 'mount', '--rw', '--snapshotter', 'stasis', image, rootfs);
  containerd = new Containerd(stack.address);
  api = containerd.namespace('default');
});
after(async () => {
  containerd.close();
  await ctr('images', 'unmount', '--rm', '--snapshotter', 'stasis', rootfs);
  rmSync(folder, { recursive: true });
});

interface Hook {
  readonly path: string;
  readonly args: readonly string[];
}

/** A container that ctr makes of a specification, with a copy of the OCI runtime's program. */
async function container(
  t: TestContext,
  oci: string,
  args: string[],
  hooks: Record<string, readonly Hook[]>,
): Promise<{ name: string; program: string }> {
  const name = uniqueName('hooks');
  const program = join(folder, `${name}-oci`);
  copyFileSync(oci, program);
  const [spec, options] = [join(folder, `${name}.json`), join(folder, `${name}.toml`)];
  const base = defaultSpec(args);
  writeFileSync(
    spec,
    JSON.stringify({
      ...{ ...base, root: { path: rootfs }, hooks },
      linux: { ...base.linux, cgroupsPath: `/default/${name}` },
    }),
  );
  writeFileSync(options, `BinaryName = "${program}"\n`);
  t.after(() => removeContainer(name));
  const flags = ['--runtime', runtime, '--runtime-config-path', options, '--config', spec];
  await ctr('containers', 'create', ...flags, name);
  return { name, program };
}

/** Adds its kind to a file; the path leads to the same in and outside of the container where both have it. */
const note = (kind: string, file: string): Hook => ({
  path: '/bin/sh',
  args: ['sh', '-c', `cat >/dev/null; echo ${kind} >>${file}`],
});

const runtimes = { runc: process.env['STASIS_RUNC'] ?? '', crun: process.env['STASIS_CRUN'] ?? '' };

for (const [kind, oci] of Object.entries(runtimes)) {
  describe(kind, () => {
    test('hooks of each kind run once, in the order of the specification', async (t) => {
      const noted = join(folder, `noted-by-${kind}`);
      const host = (...kinds: string[]) =>
        Object.fromEntries(kinds.map((one) => [one, [note(one, noted)]] as const));
      const inside = `/noted-by-${kind}`;
      const { name } = await container(t, oci, ['/bin/sh', '-c', `exec sleep 600`], {
        ...host('prestart', 'createRuntime', 'createContainer', 'poststart', 'poststop'),
        startContainer: [note('startContainer', inside)],
      });
      await ctr('tasks', 'start', '-d', name);
      const before = ['prestart', 'createRuntime', 'createContainer', 'poststart'];
      assert.deepEqual(linesOf(noted), before, 'all have run when the start is answered');
      await until('the hook inside', () => linesOf(join(rootfs, inside)).length > 0 || undefined);
      assert.deepEqual(linesOf(join(rootfs, inside)), ['startContainer']);
      await ctr('tasks', 'rm', '-f', name);
      assert.deepEqual(linesOf(noted), [...before, 'poststop']);
    });

    test('a usual container starts without the runtime’s program, one with poststart hooks by it', async (t) => {
      const noted = join(folder, `late-by-${kind}`);
      const usual = await container(t, oci, ['/bin/sleep', '600'], {});
      const hooked = await container(t, oci, ['/bin/sleep', '600'], {
        createRuntime: [note('createRuntime', noted)],
        poststart: [note('poststart', noted)],
      });
      for (const { name, program } of [usual, hooked]) {
        await api.tasks.create({
          ...{ containerId: name, rootfs: [], stdin: '', stdout: '', stderr: '', terminal: false },
          ...{ checkpoint: undefined, options: undefined, runtimePath: '' },
        });
        renameSync(program, `${program}.away`);
      }
      await api.tasks.start({ containerId: usual.name, execId: '' });
      assert.equal(await statusOf(usual.name), 'RUNNING');
      assert.equal(
        (await attempt('ctr', ['tasks', 'exec', '--exec-id', 'e', usual.name, 'true'])).exitCode,
        1,
      );
      await assert.rejects(api.tasks.start({ containerId: hooked.name, execId: '' }), {
        message: new RegExp(`${hooked.program}`),
      });
      assert.equal(await statusOf(hooked.name), 'CREATED');
      // runc runs them in its `create`, crun in its `start`.
      assert.equal(linesOf(noted).includes('poststart'), kind === 'runc');
      for (const { program } of [usual, hooked]) renameSync(`${program}.away`, program);
      await api.tasks.start({ containerId: hooked.name, execId: '' });
      assert.equal(await statusOf(hooked.name), 'RUNNING');
      assert.deepEqual(linesOf(noted), ['createRuntime', 'poststart']);
    });

    test('a hook that fails fails the create or the start that it belongs to', async (t) => {
      const fails: Hook = { path: '/bin/sh', args: ['sh', '-c', 'cat >/dev/null; echo why >&2; exit 3'] };
      for (const when of ['createRuntime', 'createContainer']) {
        const { name } = await container(t, oci, ['/bin/sleep', '600'], { [when]: [fails] });
        const started = await attempt('ctr', ['tasks', 'start', '-d', name]);
        assert.notEqual(started.exitCode, 0, when);
        assert.match(started.stderr, /hook|exit/i);
        assert.equal(await statusOf(name), undefined, `nothing is left after ${when}`);
      }
      // One inside ends the process that waits to become the program: no start can be answered by it.
      const { name } = await container(t, oci, ['/bin/sleep', '600'], { startContainer: [fails] });
      await attempt('ctr', ['tasks', 'start', '-d', name]);
      await until('its end', async () => ((await statusOf(name)) === 'RUNNING' ? undefined : true));
    });
  });
}

function linesOf(path: string): string[] {
  try {
    return readFileSync(path, 'utf8').split('\n').filter(Boolean);
  } catch {
    return [];
  }
}
