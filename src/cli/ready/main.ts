// The ready command line: a process that stasisd keeps, with all loaded that a command needs, so that `stasis` need not wait for
// Node to start. It runs one command at a time, in its caller's place; whoever comes meanwhile starts a process, as without it.
//
//   node ready.cjs FOLDER      FOLDER is the place for slots; ends when its standard input does
import { closeSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Socket } from 'node:net';
import { isatty, WriteStream } from 'node:tty';
import { messageOf } from '../../errors.ts';
import { isAlive, leaveSession, refuseDebugger, startTimeOf } from '../../sys/process.ts';
import { CommandRun, type Descriptor } from '../command-run.ts';
import { run } from '../run.ts';
import { type Caller, readCaller } from './caller.ts';
import { Slot } from './slot.ts';

/** Tells the programs of this build from others: set by the build, which writes it into the script, too. */
declare const STASIS_BUILD: string | undefined;

/** Milliseconds after which the death of a caller is noticed that could not tell of it. */
const LOOK_INTERVAL = 100;
/** A process that has grown larger makes place for a new one. It has some 60 MB when it starts. */
const MAX_RESIDENT_BYTES = 160 << 20;

const folder = process.argv[2] ?? '';
const build = typeof STASIS_BUILD === 'string' ? STASIS_BUILD : 'source';
const name = `${build}.${process.pid}.${startTimeOf(process.pid)}`;
let slots = 0;
/** The slot that nobody has called at yet. */
let idle: Slot | undefined;
/** No more commands: this process ends after the one that runs. */
let leaving = false;

refuseDebugger();
// A terminal's Ctrl-C for stasisd is not for the command that runs here: stasisd says when it stops.
leaveSession();
expendable();
void warmUp().then(() => {
  const parent = new Socket({ fd: 0, readable: true, writable: false });
  parent.on('close', leave).on('error', () => undefined);
  parent.resume();
  publish();
});

/** stasisd may be spared when memory is short; we need not be. */
function expendable(): void {
  const own = Number(readFileSync('/proc/self/oom_score_adj', 'utf8'));
  if (own < 0) writeFileSync('/proc/self/oom_score_adj', '0');
}

/** Goes the way of a command once, to an address where nobody is, so that all is loaded. */
async function warmUp(): Promise<void> {
  const nobody = { write: () => undefined };
  const signal = new AbortController().signal;
  const host = { env: {}, cwd: () => '/', stdout: nobody, stderr: nobody, signal, now: Date.now };
  await import('../../config/config.ts');
  await run(['ls', '--json', '--socket', join(folder, 'nobody')], host);
}

/** From now on a caller finds us. */
function publish(): void {
  const slot = new Slot(join(folder, `${name}.${slots++}`), {
    called: (pid, count) => {
      idle = undefined;
      void serve(slot, pid, count);
    },
    signalled: () => running?.interrupt(),
    spoilt: () => {
      replace(slot);
      slot.close();
      if (leaving) process.exit();
    },
  });
  idle = slot;
}

function replace(slot: Slot): void {
  idle = undefined;
  slot.remove();
  leaving ||= process.memoryUsage.rss() > MAX_RESIDENT_BYTES;
  if (leaving) return;
  try {
    publish();
  } catch (error) {
    // The command that has just ended is answered all the same.
    process.stderr.write(`stasis: no command line is ready: ${messageOf(error)}\n`);
    process.exitCode = 1;
    leaving = true;
  }
}

let running: CommandRun | undefined;

async function serve(slot: Slot, pid: number, count: number): Promise<void> {
  const caller = readCaller(pid, count, slot.answer);
  const said = caller === undefined || !enter(caller) ? 'no' : `exit ${await execute(slot, caller)}`;
  // What the caller does next may be another command.
  replace(slot);
  slot.say(said);
  slot.close();
  if (leaving) process.exit();
}

/** Relative paths are its own. */
function enter({ pid, stdout, stderr }: Caller): boolean {
  try {
    process.chdir(`/proc/${pid}/cwd`);
    return true;
  } catch {
    for (const fd of [stdout, stderr]) closeSync(fd);
    return false;
  }
}

async function execute(slot: Slot, caller: Caller): Promise<number> {
  const { pid, startTime, argv, env } = caller;
  slot.say('begun');
  const command = new CommandRun(argv, {
    env,
    cwd: () => process.cwd(),
    stdout: descriptor(caller.stdout),
    stderr: descriptor(caller.stderr),
    exit: (code) => {
      slot.remove();
      slot.say(`exit ${code}`);
      process.exit();
    },
  });
  running = command;
  // As the command would have ended with it: its connection to stasisd is closed.
  const look = setInterval(() => {
    if (!isAlive(pid, startTime)) process.exit();
  }, LOOK_INTERVAL);
  try {
    return await command.run();
  } finally {
    clearInterval(look);
    running = undefined;
    command.close();
    process.chdir('/');
  }
}

function descriptor(fd: number): Descriptor {
  return {
    fd,
    open: () => (isatty(fd) ? new WriteStream(fd) : new Socket({ fd, readable: false, writable: true })),
  };
}

/** stasisd stops, or is gone. */
function leave(): void {
  leaving = true;
  if (idle === undefined) return;
  idle.remove();
  process.exit();
}
