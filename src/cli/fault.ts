import { codeOf, detailsOf, messageOf } from '../errors.ts';
import { outcomeOf } from './exit.ts';
import { oneLine } from './text.ts';

/** An error as `--json` prints it. */
export interface FaultView {
  code: string;
  exitCode: number;
  message: string;
  reason?: string;
  subject?: string;
  cause?: string;
  remedy?: string;
}

/** An error of a command that has data for `--json` all the same, beside the error. */
export interface WithData extends Error {
  readonly data: Readonly<Record<string, unknown>>;
}

export function dataOf(error: unknown): WithData['data'] {
  return error instanceof Error && 'data' in error ? (error as WithData).data : {};
}

/** `stasis: <what> (cause)`, and the next step in a line of its own. */
export function faultText(error: unknown): string {
  const { message, cause, remedy } = faultView(error);
  const reason = cause === undefined || message.includes(cause) ? '' : ` (${cause})`;
  return `stasis: ${message}${reason}\n${remedy === undefined ? '' : `  next: ${remedy}\n`}`;
}

/** What is known of an error, each part in one line. */
export function faultView(error: unknown): FaultView {
  const code = codeOf(error);
  const outcome = outcomeOf(code);
  const view: FaultView = {
    code: outcome.name,
    exitCode: outcome.exit,
    message: oneLine(messageOf(error)) || 'failed',
  };
  const details = detailsOf(error);
  const cause = oneLine(details?.cause === undefined ? '' : messageOf(details.cause));
  const remedy = oneLine(details?.remedy ?? '') || outcome.remedy;
  if (details?.reason) view.reason = details.reason;
  if (details?.subject) view.subject = details.subject;
  if (cause !== '') view.cause = cause;
  if (remedy !== '') view.remedy = remedy;
  return view;
}
