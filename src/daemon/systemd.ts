import { fstatSync } from 'node:fs';
import { messageOf } from '../errors.ts';
import type { Level } from '../log.ts';
import { sendDatagram } from '../sys/datagram.ts';

/**
 * systemd's notification protocol, sd_notify(3): a few words to a datagram socket. Written here, since the packages that
 * do it bring native code of their own or start a process for each message, and one is sent every few seconds.
 */
export class Systemd {
  readonly #socket: string | undefined;
  readonly #watchdogMs: number | undefined;
  readonly #complain: (why: string) => void;
  #timer: NodeJS.Timeout | undefined;
  #complained = false;

  /** @param complain is told, once, when systemd cannot be reached */
  constructor(env: NodeJS.ProcessEnv, complain: (why: string) => void) {
    this.#socket = env['NOTIFY_SOCKET'] || undefined;
    this.#watchdogMs = watchdogInterval(env);
    this.#complain = complain;
    // Programs that stasisd starts have no business with systemd.
    for (const name of ['NOTIFY_SOCKET', 'WATCHDOG_USEC', 'WATCHDOG_PID']) delete env[name];
  }

  /** Service is given from now on; `status` is what `systemctl status` shows. The watchdog's pings begin. */
  ready(status: string): void {
    this.#send(['READY=1', `STATUS=${oneLine(status)}`]);
    if (this.#watchdogMs === undefined || this.#socket === undefined || this.#timer !== undefined) return;
    // A ping says that the event loop turns, which is what every call needs; it says nothing of the pool, whose
    // troubles a restart does not mend.
    this.#timer = setInterval(() => this.#send(['WATCHDOG=1']), this.#watchdogMs / 3);
    this.#timer.unref();
  }

  /** The configuration is being read again, until `ready`. */
  reloading(): void {
    const monotonic = process.hrtime.bigint() / 1000n;
    this.#send(['RELOADING=1', `MONOTONIC_USEC=${monotonic}`]);
  }

  stopping(): void {
    this.#send(['STOPPING=1']);
    clearInterval(this.#timer);
  }

  #send(lines: readonly string[]): void {
    if (this.#socket === undefined) return;
    try {
      sendDatagram(this.#socket, lines.join('\n'));
    } catch (error) {
      if (!this.#complained) this.#complain(messageOf(error));
      this.#complained = true;
    }
  }
}

/** WATCHDOG_USEC in milliseconds, if it is meant for this process; sd_watchdog_enabled(3). */
function watchdogInterval(env: NodeJS.ProcessEnv): number | undefined {
  const pid = env['WATCHDOG_PID'];
  const milliseconds = Number(env['WATCHDOG_USEC'] ?? NaN) / 1000;
  return milliseconds > 0 && (pid === undefined || pid === String(process.pid)) ? milliseconds : undefined;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ');
}

/** syslog(3)'s numbers; a line that begins with `<N>` gets that priority in the journal, sd-daemon(3). */
const priorities: Readonly<Record<Level, number>> = { error: 3, warn: 4, info: 6, debug: 7, trace: 7 };

/** Whether this process's standard error is the journal: JOURNAL_STREAM names its device and inode, systemd.exec(5). */
export function logsToJournal(env: NodeJS.ProcessEnv, stat: typeof fstatSync = fstatSync): boolean {
  const [device, inode] = (env['JOURNAL_STREAM'] ?? '').split(':');
  if (inode === undefined) return false;
  try {
    const { dev, ino } = stat(2);
    return String(dev) === device && String(ino) === inode;
  } catch {
    return false; // there is no standard error
  }
}

/** A log line as the journal wants it: its priority in front, and no time, which the journal keeps itself. */
export function journalLine(line: string, level: Level): string {
  return `<${priorities[level]}>${line.replace(/^time=\S+ level=\S+ /, '')}`;
}
