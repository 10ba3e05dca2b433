import { messageOf } from './errors.ts';
import type { Logger } from './log.ts';

/** Has an error that nobody caught be told, and the process go on: it holds more than what the mistake was made over. */
export function surviveMistakes(log: Logger): void {
  surviveLostErrors(log);
  process.on('uncaughtException', (error) => tell(log, error));
}

/** The same of an error of a promise that nobody waits for, which leaves nothing half done but what the promise was of. */
export function surviveLostErrors(log: Logger): void {
  process.on('unhandledRejection', (error) => tell(log, error));
}

function tell(log: Logger, error: unknown): void {
  log.error('unexpected error', {
    error: messageOf(error),
    stack: error instanceof Error ? error.stack : undefined,
  });
}
