import { messageOf } from './errors.ts';
import type { Logger } from './log.ts';

/** Has an error that nobody caught be told, and the process go on: it holds more than what the mistake was made over. */
export function surviveMistakes(log: Logger): void {
  const report = (error: unknown): void => {
    log.error('unexpected error', {
      error: messageOf(error),
      stack: error instanceof Error ? error.stack : undefined,
    });
  };
  process.on('uncaughtException', report);
  process.on('unhandledRejection', report);
}
