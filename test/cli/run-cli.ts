/** Runs the real command line as child processes, each person with a login folder of their own. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { inject } from 'vitest';

export interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface RunningCommand {
  readonly child: ChildProcess;
  readonly done: Promise<Ran>;
  /** The match in what stderr said so far or says within 10 s. */
  said(words: RegExp): Promise<RegExpExecArray>;
}

export interface Seat {
  /** The folder of the login file. */
  readonly home: string;
  run(...args: string[]): Promise<Ran>;
  start(args: readonly string[], more?: { env?: NodeJS.ProcessEnv; command?: readonly string[] }): RunningCommand;
  /** Ends what still runs and removes the folder. */
  close(): Promise<void>;
}

const main = resolve('src/main.ts');
export const cliCommand: readonly string[] = [process.execPath, main];

/** A terminal of somebody: nothing of the tester's own environment but PATH comes along. */
export async function newSeat(env: NodeJS.ProcessEnv = {}): Promise<Seat> {
  const home = await mkdtemp(join(inject('server').folder, 'seat-'));
  const children = new Set<RunningCommand>();
  const seat: Seat = {
    home,
    run: (...args) => seat.start(args).done,
    start(args, more = {}) {
      const [program = '', ...before] = more.command ?? cliCommand;
      const child = spawn(program, [...before, ...args], {
        cwd: inject('server').folder,
        env: { PATH: process.env['PATH'], HOME: home, HALLIGAN_HOME: join(home, 'halligan'), ...env, ...more.env },
        stdio: ['ignore', 'pipe', 'pipe'],
        // A group of its own, so that nothing it starts can stay behind.
        detached: true,
      });
      let out = '';
      let err = '';
      const listeners = new Set<() => void>();
      child.stdout?.setEncoding('utf8').on('data', (text: string) => {
        out += text;
      });
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        err += text;
        for (const tell of listeners) tell();
      });
      const done = new Promise<Ran>((settle, reject) => {
        child.once('error', reject);
        child.once('close', (code) => {
          children.delete(command);
          settle({ code, out, err });
        });
      });
      const said = (words: RegExp): Promise<RegExpExecArray> =>
        new Promise((found, reject) => {
          const timer = setTimeout(() => reject(new Error(`stderr did not say ${words} but: ${err}`)), 10_000);
          const look = (): void => {
            const match = words.exec(err);
            if (!match) return;
            clearTimeout(timer);
            listeners.delete(look);
            found(match);
          };
          listeners.add(look);
          look();
        });
      const command: RunningCommand = { child, done, said };
      children.add(command);
      return command;
    },
    async close() {
      for (const { child, done } of children) {
        try {
          if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
        } catch {
          // It ended by itself in this moment.
        }
        await done;
      }
      await rm(home, { recursive: true, force: true });
    },
  };
  return seat;
}
