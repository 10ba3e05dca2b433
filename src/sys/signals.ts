/**
 * What ends a process that does not ask for it, signal(7), but for what tells of a mistake of its own (SIGSEGV, …), what Node ignores
 * (SIGPIPE), and SIGTERM. SIGXFSZ ends nothing in Node, which ignores it too; SIGUSR1: `refuseDebugger`.
 */
export const ENDING: readonly NodeJS.Signals[] = [
  'SIGHUP',
  'SIGINT',
  'SIGQUIT',
  'SIGUSR2',
  'SIGALRM',
  'SIGVTALRM',
  'SIGPROF',
  'SIGSTKFLT',
  'SIGXCPU',
  'SIGIO',
  'SIGPWR',
];

/**
 * Has such signals do nothing: for a process whose end costs others more than whoever sends one can mean. What it starts has them as
 * usual, since a handler is not inherited, as SIG_IGN would be.
 */
export function outlastSignals(): void {
  for (const signal of ENDING) process.on(signal, () => undefined);
}
