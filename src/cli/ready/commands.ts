/**
 * Commands that a ready command line runs, where they come first on the command line: those that do nothing but ask stasisd, and
 * end when it has answered. The others do work of their own, write files, or wait for long, and have a process to themselves.
 * The build writes them into the script `stasis` (scripts/build.ts).
 */
export const readyCommands = ['checkpoint', 'restore', 'clone', 'ls', 'inspect', 'rm', 'info', 'df'] as const;
