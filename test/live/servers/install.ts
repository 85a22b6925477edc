/** What the live servers share: the cache that they are installed into, once, and the running of installers and servers as children of the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, rename, rm, stat } from 'node:fs/promises';
import { createServer } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where servers are installed: `$HALLIGAN_LIVE_CACHE`, or `halligan-live` in the user's cache folder. */
export const cacheFolder = (): string => process.env['HALLIGAN_LIVE_CACHE'] ?? join(homedir(), '.cache', 'halligan-live');

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * The folder `name` of the cache, made by `build` when it is not there yet: in a folder beside it that gets its name only
 * when all is done, so that a broken install is never taken for a whole one, and two runs at once do not meet.
 */
export async function installed(name: string, build: (folder: string) => Promise<void>): Promise<string> {
  const folder = join(cacheFolder(), name);
  if (await exists(folder)) return folder;
  const making = `${folder}.making-${process.pid}`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { recursive: true });
  const began = Date.now();
  console.log(`live: installing ${name} …`);
  try {
    await build(making);
    await rename(making, folder).catch(async (error: unknown) => {
      if (!(await exists(folder))) throw error;
    });
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  console.log(`live: ${name} is installed, after ${Math.round((Date.now() - began) / 1_000)} s`);
  return folder;
}

/** Runs an installer to its end. Rejects with the last lines that it printed. */
export function runTool(
  command: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv; input?: string; uid?: number; gid?: number } = {},
): Promise<string> {
  return new Promise((done, failed) => {
    const { input, ...rest } = options;
    const child = spawn(command, args, { env: process.env, ...rest, stdio: ['pipe', 'pipe', 'pipe'] });
    let out = '';
    let all = '';
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk;
      all = `${all}${chunk}`.slice(-4_000);
    });
    child.stderr.on('data', (chunk: Buffer) => {
      all = `${all}${chunk}`.slice(-4_000);
    });
    child.on('error', (error) => failed(new Error(`${command} could not be started: ${error.message}`)));
    child.on('close', (code) => (code === 0 ? done(out) : failed(new Error(`${command} ${args.join(' ')} ended with ${code}:\n${all}`))));
    child.stdin.on('error', () => undefined);
    child.stdin.end(input ?? '');
  });
}

/** A port of loopback that nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  await new Promise((closed) => server.close(closed));
  return typeof address === 'object' && address ? address.port : 0;
}

export interface Child {
  readonly process: ChildProcess;
  readonly pid: number;
  /** What it printed, the last 20,000 characters. */
  output(): string;
  /** SIGTERM, and after five seconds SIGKILL. Safe to call twice. */
  stop(): Promise<void>;
}

/** Starts a server as our own child. It is ended with this process, whatever happens to the test. */
export function startChild(command: string, args: readonly string[], env: NodeJS.ProcessEnv, as: { uid?: number; gid?: number; cwd?: string } = {}): Child {
  const child = spawn(command, args, { ...as, env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = `${output}${chunk}`.slice(-20_000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const gone = new Promise<void>((resolve) => {
    child.once('close', () => resolve());
    child.once('error', (error) => {
      output += `\n${error.message}`;
      resolve();
    });
  });
  const last = (): void => void child.kill('SIGKILL');
  process.once('exit', last);
  return {
    process: child,
    pid: child.pid ?? 0,
    output: () => output,
    async stop() {
      child.kill('SIGCONT');
      child.kill('SIGTERM');
      const killer = setTimeout(() => child.kill('SIGKILL'), 5_000);
      await gone;
      clearTimeout(killer);
      process.removeListener('exit', last);
    },
  };
}

/** Waits until `ready` says so, or the child has ended, or time is up; then throws with what the child printed. */
export async function awaitReady(child: Child, what: string, seconds: number, ready: () => Promise<boolean>): Promise<void> {
  for (const deadline = Date.now() + seconds * 1_000; Date.now() < deadline && child.process.exitCode === null && child.pid > 0; ) {
    if (await ready().catch(() => false)) return;
    await sleep(50);
  }
  await child.stop();
  throw new Error(`${what} did not come up:\n${child.output().slice(-3_000)}`);
}
