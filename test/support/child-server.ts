/** Starts the server of a test house as a child process, and kills it. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { House } from './house.ts';

export interface ChildServer {
  readonly pid: number;
  /** Milliseconds from the spawn to `ready`. */
  readonly startedInMs: number;
  /** Everything it wrote to stdout and stderr so far. */
  output(): string;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** `imports` are loaded before anything else (`node --import`). Rejects with what it said when it ends before it is ready. */
export async function startChild(house: House, imports: readonly string[] = []): Promise<ChildServer> {
  const script = fileURLToPath(new URL('serve-child.ts', import.meta.url));
  const began = performance.now();
  const child = spawn(process.execPath, [...imports.flatMap((file) => ['--import', file]), script, house.configFile], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  const ready = new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (chunk) => {
      said += String(chunk);
      if (said.includes('ready\n')) resolve();
    });
    child.stderr.on('data', (chunk) => {
      said += String(chunk);
    });
    void exited.then((code) => reject(new Error(`the server ended with ${code} before it was ready: ${said.slice(-2_000)}`)));
  });
  const patience = Promise.withResolvers<never>();
  const timer = setTimeout(() => {
    child.kill('SIGKILL');
    patience.reject(new Error(`the server was not ready within 20 s: ${said.slice(-2_000)}`));
  }, 20_000);
  // Not cleared, it would kill a healthy server 20 s after its start.
  await Promise.race([ready, patience.promise]).finally(() => clearTimeout(timer));
  return {
    pid: child.pid ?? 0,
    startedInMs: performance.now() - began,
    output: () => said,
    async kill() {
      child.kill('SIGKILL');
      await exited;
    },
    async stop() {
      child.kill('SIGTERM');
      return exited;
    },
  };
}
