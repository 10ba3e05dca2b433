import { FailedPrecondition } from '../../errors.ts';
import { type Obstacle, Severity } from '../../proto/gen/stasis/stasis.ts';
import { containerName } from '../names.ts';
import type { Session } from '../session.ts';
import { printable } from '../text.ts';

/** `stasis doctor [CONTAINER]`: fails where the memory could not be dumped, so that a script can ask first. */
export async function doctor(session: Session, container: string | undefined): Promise<void> {
  const { namespace, json } = session.globals;
  const request = { namespace, container: container === undefined ? '' : containerName(container) };
  const { obstacles } = await session.stasis.doctor(request, session.options);
  const errors = obstacles.filter(({ severity }) => severity === Severity.SEVERITY_ERROR);
  const view = () => ({
    container: container ?? null,
    checkpointable: errors.length === 0,
    obstacles: obstacles.map(({ name, severity, subject, message, remedy }) => ({
      name,
      severity: severity === Severity.SEVERITY_ERROR ? 'error' : 'warning',
      subject,
      message,
      remedy,
    })),
    warnings: session.warnings,
  });
  const subject = container ?? 'this host';
  if (errors.length === 0 || !json) {
    session.print(
      view,
      () => `${obstacles.map(obstacleText).join('')}${verdict(subject, obstacles.length, errors.length)}`,
      () => obstacles.map(({ name }) => name),
    );
  }
  if (errors.length === 0) return;
  session.partial = view();
  throw new FailedPrecondition(
    container === undefined
      ? `memory cannot be dumped on this host: ${count(errors.length)}`
      : `the memory of container ${container} cannot be dumped: ${count(errors.length)}`,
    {
      subject,
      reason: 'not-checkpointable',
      remedy: errors[0]?.remedy,
    },
  );
}

function obstacleText({ name, severity, subject, message, remedy }: Obstacle): string {
  const kind = severity === Severity.SEVERITY_ERROR ? 'error' : 'warning';
  return `${kind}: ${printable(`${subject}: ${message}`)} [${printable(name)}]\n  way out: ${printable(remedy)}\n`;
}

function verdict(subject: string, all: number, errors: number): string {
  if (errors > 0) return '';
  const but = all === 0 ? '' : `, with ${all === 1 ? 'one warning' : `${all} warnings`}`;
  return `${subject}: can be checkpointed and restored${but}\n`;
}

function count(errors: number): string {
  return errors === 1 ? 'one obstacle' : `${errors} obstacles`;
}
