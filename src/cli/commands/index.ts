// All commands that talk to stasisd, in one module: they are small, and each module more to load costs a
// millisecond. What is large (the wire types, the client) they all need.
export { Session } from '../session.ts';
export { adopt } from './adopt.ts';
export { checkpoint } from './checkpoint.ts';
export { clone } from './clone.ts';
export { df } from './df.ts';
export { doctor } from './doctor.ts';
export { info } from './info.ts';
export { inspect } from './inspect.ts';
export { ls } from './ls.ts';
export { restore } from './restore.ts';
export { rm } from './rm.ts';
export { run } from './run.ts';
export { wait } from './wait.ts';
export { checkpointSet, restoreSet } from './sets.ts';
