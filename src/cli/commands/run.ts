import { join, resolve } from 'node:path';
import type { GrpcCallOptions } from '../../api/grpc-client.ts';
import { hasErrno, InvalidArgument, NotFound, PermissionDenied } from '../../errors.ts';
import type { RestoreResult } from '../../proto/gen/stasis/stasis.ts';
import { containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { restoreView } from '../view.ts';
import { duration } from '../../units.ts';

/** `stasis run --bundle DIR ID` */
export async function run(session: Session, id: string, options: { bundle: string }): Promise<void> {
  const bundle = resolve(session.host.cwd(), options.bundle);
  const request = { namespace: session.globals.namespace, id: containerName(id), bundle };
  await checkBundle(bundle);
  let started: RestoreResult | undefined;
  const call = (options: GrpcCallOptions) => session.stasis.run(request, options);
  await session.follow(`run ${id}`, id, call, ({ value }) => (started = value));
  const result = session.answer(started);
  session.print(
    () => ({ started: restoreView(result), warnings: session.warnings }),
    () => `${result.container}: started in ${duration(result.totalNs)}, pid ${result.pid}\n`,
    () => [result.container],
  );
}

/** Says at once what stasisd would say after a connection: the folder is the user's most likely slip. */
async function checkBundle(bundle: string): Promise<void> {
  const file = join(bundle, 'config.json');
  const { stat } = await import('node:fs/promises');
  const remedy = `write one with \`stasis spec --bundle ${bundle}\``;
  try {
    if (!(await stat(file)).isFile())
      throw new InvalidArgument(`${file} is not a file`, { subject: file, remedy });
  } catch (error) {
    if (hasErrno(error, 'ENOENT') || hasErrno(error, 'ENOTDIR')) {
      throw new NotFound(`${bundle} is no OCI bundle: it has no config.json`, { subject: bundle, remedy });
    }
    if (hasErrno(error, 'EACCES')) {
      throw new PermissionDenied(`may not read ${file}`, { subject: file, remedy: 'run stasis as root' });
    }
    throw error;
  }
}
