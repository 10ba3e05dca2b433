import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { assertSpecFitsHost, decodeSpec, encodeSpec, specForId } from '../../../src/checkpoint/spec.ts';
import { FailedPrecondition, InvalidArgument } from '../../../src/errors.ts';

suite('an OCI spec', () => {
  test('of a clone has a cgroup of its own, in each form that clients write', () => {
    const path = (cgroupsPath: string): string | undefined =>
      specForId({ linux: { cgroupsPath } }, 'web', 'web-1').linux?.cgroupsPath;
    assert.equal(path('/default/web'), '/default/web-1');
    assert.equal(path('system.slice:nerdctl:web'), 'system.slice:nerdctl:web-1');
    assert.equal(path('/pods/one'), '/pods/one-web-1');
  });

  test('keeps what Stasis knows nothing of', () => {
    const spec = { ociVersion: '1.2.0', hooks: { poststop: [{ path: '/x' }] }, linux: { seccomp: { a: 1 } } };
    assert.deepEqual(decodeSpec(encodeSpec(spec), 'web'), spec);
  });

  test('that is no JSON object is refused with the container named', () => {
    for (const text of ['', '[]', 'null', '{']) {
      assert.throws(
        () => decodeSpec({ typeUrl: '', value: Buffer.from(text) }, 'web'),
        (error) => error instanceof InvalidArgument && /web/.test(error.message),
      );
    }
  });

  test('that needs a namespace or a folder which is gone is refused before anything changes', () => {
    const none = (): boolean => false;
    const network = {
      linux: { namespaces: [{ type: 'network', path: '/run/netns/gone' }, { type: 'pid' }] },
    };
    assert.throws(() => assertSpecFitsHost(network, 'web', none), FailedPrecondition);
    const mount = {
      mounts: [
        { type: 'proc', source: 'proc' },
        { type: 'bind', source: '/srv/gone', destination: '/d' },
      ],
    };
    assert.throws(() => assertSpecFitsHost(mount, 'web', none), /\/srv\/gone/);
    assertSpecFitsHost(mount, 'web', () => true);
  });
});
