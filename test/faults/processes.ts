/** Halligan's processes in a case: started, armed, killed, stopped and woken, each known by its own id. None is left behind. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Failpoint } from '../../src/domain/failpoint.ts';

export const modes = ['kill', 'pause', 'throw', 'hang'] as const;
export type Mode = (typeof modes)[number];

/** What happens at the `nth` time that a process comes to this step, counted from when it was armed. */
export interface Arm {
  readonly name: Failpoint;
  readonly mode: Mode;
  readonly nth?: number;
}

export type Role = 'web' | 'worker';

export interface Member {
  readonly role: Role;
  readonly pid: number;
  /** Resolves when it runs; rejects with what it said when it ends before. */
  readonly ready: Promise<void>;
  readonly isAlive: () => boolean;
  /** Resolves with its exit code, or null when a signal ended it. */
  readonly gone: Promise<number | null>;
  output(): string;
  arm(arm: Arm): Promise<void>;
  /** Resolves when it has said that it came to this step. */
  hit(name: Failpoint): Promise<void>;
  /** SIGCONT. */
  wake(): void;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code, or `late` when it took more than 27 s and was killed. */
  stop(): Promise<number | null | 'late'>;
}

const script = fileURLToPath(new URL('child.ts', import.meta.url));
const alive = new Set<ChildProcess>();

/** Ends every process that is left, at once. Only those that this program started are known here. */
export function killAll(): void {
  for (const child of alive) child.kill('SIGKILL');
}
process.once('exit', killAll);

/** Starts one. `arms`: in force before it does anything. */
export function startMember(configFile: string, role: Role, arms: readonly Arm[] = []): Member {
  const child = spawn(process.execPath, [script, configFile, role, JSON.stringify(arms)], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  alive.add(child);
  let said = '';
  const listeners = new Set<() => void>();
  const keep = (chunk: unknown): void => {
    said += String(chunk);
    for (const tell of listeners) tell();
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  const gone = new Promise<number | null>((resolve) =>
    child.once('close', (code) => {
      alive.delete(child);
      resolve(code);
    }),
  );
  const line = (wanted: string): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (!`\n${said}`.includes(`\n${wanted}\n`)) return;
        listeners.delete(look);
        resolve();
      };
      listeners.add(look);
      look();
    });
  const ended = gone.then((code) => {
    throw new Error(`a ${role} ended with ${code} before it was ready: ${said.slice(-2_000)}`);
  });
  const ready = Promise.race([line('ready'), ended]);
  // One that dies at its failpoint before it is ready is awaited by nobody.
  ready.catch(() => undefined);
  return {
    role,
    pid: child.pid ?? 0,
    ready,
    isAlive: () => alive.has(child),
    gone,
    output: () => said,
    async arm(arm) {
      const answered = new Promise<void>((resolve) => child.once('message', () => resolve()));
      child.send(arm);
      await Promise.race([answered, gone]);
    },
    hit: (name) => line(`hit ${name}`),
    wake: () => void child.kill('SIGCONT'),
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
    async stop() {
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      let timer: NodeJS.Timeout | undefined;
      const late = new Promise<'late'>((resolve) => {
        timer = setTimeout(() => resolve('late'), 27_000);
      });
      const code = await Promise.race([gone, late]).finally(() => clearTimeout(timer));
      if (code === 'late') {
        child.kill('SIGKILL');
        await gone;
      }
      return code;
    },
  };
}
