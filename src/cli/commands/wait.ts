import { checkpointName, containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { checkpointView } from '../view.ts';
import { checkpointText } from './checkpoint.ts';

/** `stasis wait CONTAINER [N]` */
export async function wait(session: Session, container: string, name: string | undefined): Promise<void> {
  const request = {
    namespace: session.globals.namespace,
    container: containerName(container),
    checkpoint: name === undefined ? '' : checkpointName(name),
  };
  const answer = await session.stasis.wait(request, session.options);
  const checkpoint = session.answer(answer.checkpoint);
  session.print(
    () => ({ checkpoint: checkpointView(checkpoint) }),
    () => `${checkpointText(checkpoint)}\n`,
    () => [checkpoint.name],
  );
}
