// What processes cost, from proc(5).
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/**
 * Memory in KiB: PSS, but the pages of the process's own program count in full where no other of the given processes
 * runs it. Else whatever else runs the same Node on this machine, this benchmark first of all, would pay for ours.
 */
export function memoryOf(pids: readonly number[]): number {
  const programs = pids.map((pid) => readlinkSync(`/proc/${pid}/exe`));
  return pids
    .map((pid, at) => {
      const program = programs[at] ?? '';
      const alone = programs.filter((other) => other === program).length === 1;
      return pssOf(pid, alone ? program : undefined);
    })
    .reduce((sum, one) => sum + one, 0);
}

function pssOf(pid: number, ownProgram: string | undefined): number {
  let sum = 0;
  let field = 'Pss:';
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line))
      field = ownProgram !== undefined && line.endsWith(` ${ownProgram}`) ? 'Rss:' : 'Pss:';
    else if (line.startsWith(field)) sum += Number(line.slice(field.length).trim().split(' ')[0]);
  }
  return sum;
}

/** CPU time that processes have used so far, in milliseconds: the first field of each thread's schedstat. */
export function cpuOf(pids: readonly number[]): number {
  let nanoseconds = 0;
  for (const pid of pids)
    for (const thread of readdirSync(`/proc/${pid}/task`))
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'utf8').split(' ')[0]);
  return nanoseconds / 1e6;
}

/** The most memory that a process ever had at once, in KiB. */
export function peakOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+) kB/m.exec(status)?.[1] ?? 0);
}
