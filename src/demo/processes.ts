/** What the machine says of a process, so that a pid out of a file is never believed: pids are used again. */
import { execFile } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const ps = async (pid: number, column: string): Promise<string> =>
  (await run('ps', ['-ww', '-o', `${column}=`, '-p', String(pid)], { timeout: 5_000 }).catch(() => ({ stdout: '' }))).stdout.trim();

/** Whether a process with this id exists, whoever owns it. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** When the process started, in the system's own words; with the pid it names one process for good. `null` when there is none. */
export async function startOf(pid: number): Promise<string | null> {
  if (process.platform !== 'linux') return (await ps(pid, 'lstart')) || null;
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  // The second field is the program's name in brackets and may hold anything: count from its end. Field 22 is the start time.
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[19] ?? null;
}

/** The command line of a living process; empty for one that has ended and only waits to be collected. */
async function commandOf(pid: number): Promise<string[]> {
  if (process.platform !== 'linux') return (await ps(pid, 'command')).split(' ');
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
}

/** The process id of the PostgreSQL server that runs on this data directory, or null. Its command line must say so. */
export async function serverOf(dataDirectory: string, pid?: number): Promise<number | null> {
  const found = pid ?? Number((await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')[0]);
  if (!Number.isInteger(found) || found <= 1) return null;
  const command = await commandOf(found);
  return basename(command[0] ?? '') === 'postgres' && command.includes(dataDirectory) ? found : null;
}
