import { spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type EmbeddedPostgres, startPostgres, stopLeftOver } from '../../src/demo/embedded-postgres.ts';
import { isAlive, serverOf } from '../../src/demo/processes.ts';

let folder: string;
let running: EmbeddedPostgres[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'halligan-embedded-'));
  await chmod(folder, 0o755);
  running = [];
});
afterEach(async () => {
  for (const server of running) await server.stop();
  await rm(folder, { recursive: true, force: true });
});

async function start(options: { password?: string; port?: number; dataDirectory?: string; log?: string[] } = {}): Promise<EmbeddedPostgres> {
  const server = await startPostgres({
    dataDirectory: options.dataDirectory ?? join(folder, 'data'),
    superuserPassword: options.password ?? 'first-password',
    fast: true,
    ...(options.port === undefined ? {} : { port: options.port }),
    log: (line) => options.log?.push(line),
  });
  running.push(server);
  return server;
}

async function ask<T extends pg.QueryResultRow>(url: string, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 });
  await client.connect();
  try {
    return (await client.query<T>(sql)).rows;
  } finally {
    await client.end();
  }
}

test('starts, lets in only by password, listens on the loopback only, keeps its data, and stops', async () => {
  const first = await start();
  expect(
    await ask(
      first.superuserUrl,
      "SELECT current_setting('listen_addresses') AS a, current_setting('server_encoding') AS e, current_setting('unix_socket_directories') AS u, version() ~ '^PostgreSQL 18' AS v",
    ),
  ).toEqual([{ a: '127.0.0.1', e: 'UTF8', u: '', v: true }]);
  await expect(ask(first.superuserUrl.replace('first-password', 'wrong'), 'SELECT 1')).rejects.toMatchObject({ code: '28P01' });
  await ask(first.superuserUrl, 'CREATE TABLE kept AS SELECT 42 AS answer');
  expect((await stat(first.dataDirectory)).mode & 0o777).toBe(0o700);
  await first.stop();
  await first.stop();
  expect(await serverOf(first.dataDirectory)).toBeNull();
  const second = await start({ password: "another 'password'" });
  expect(await ask(second.superuserUrl, 'SELECT answer FROM kept')).toEqual([{ answer: 42 }]);
});

test('stop cuts open sessions instead of waiting for them', async () => {
  const server = await start();
  const client = new pg.Client(server.superuserUrl);
  client.on('error', () => undefined);
  await client.connect();
  const began = performance.now();
  await server.stop();
  expect(performance.now() - began).toBeLessThan(5_000);
  await expect(client.query('SELECT 1')).rejects.toThrow();
});

test('a server whose parent was killed is found by its data and stopped; the data is whole', async () => {
  const dataDirectory = join(folder, 'data');
  const script = `import { startPostgres } from ${JSON.stringify(join(process.cwd(), 'src/demo/embedded-postgres.ts'))};
    const server = await startPostgres({ dataDirectory: ${JSON.stringify(dataDirectory)}, superuserPassword: 'first-password', fast: true });
    console.log(server.pid); setInterval(() => {}, 1000);`;
  const parent = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  const orphan = await new Promise<number>((done) => parent.stdout.once('data', (text) => done(Number(text))));
  // While its owner lives the data is not ours to take.
  await expect(start({ dataDirectory })).rejects.toThrow(/in use by process \d+/);
  expect(isAlive(orphan)).toBe(true);
  const dead = new Promise((done) => parent.once('exit', done));
  parent.kill('SIGKILL');
  await dead;
  expect(await serverOf(dataDirectory)).toBe(orphan);
  const log: string[] = [];
  const server = await start({ dataDirectory, log });
  expect(log.join('\n')).toContain(`process ${orphan}) was left on this data`);
  expect(server.pid).not.toBe(orphan);
  expect(await ask(server.superuserUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});

test('a pid file that names a foreign process stops nobody', async () => {
  const dataDirectory = join(folder, 'data');
  await (await start({ dataDirectory })).stop();
  const bystander = spawn('sleep', ['60'], { stdio: 'ignore' });
  try {
    await writeFile(join(dataDirectory, 'postmaster.pid'), `${bystander.pid}\n${dataDirectory}\n`);
    expect(await stopLeftOver(dataDirectory)).toBe(false);
    expect(isAlive(bystander.pid ?? 0)).toBe(true);
  } finally {
    bystander.kill('SIGKILL');
  }
});

test('a port that is in use is said in words', async () => {
  const first = await start();
  await expect(start({ dataDirectory: join(folder, 'other'), port: first.port })).rejects.toThrow(`Port ${first.port} is in use`);
});

test('a folder with somebody else’s files is not touched', async () => {
  const dataDirectory = join(folder, 'data');
  await mkdir(dataDirectory);
  await writeFile(join(dataDirectory, 'thesis.txt'), 'years of work');
  await expect(start({ dataDirectory })).rejects.toThrow(/did not put there/);
  expect(await readFile(join(dataDirectory, 'thesis.txt'), 'utf8')).toBe('years of work');
});

test('a start that was killed while it made the data is made again from the beginning', async () => {
  await mkdir(join(folder, 'data.new'));
  await writeFile(join(folder, 'data.new', 'PG_VERSION'), '18\n');
  const server = await start();
  expect(await ask(server.superuserUrl, 'SELECT 1 AS one')).toEqual([{ one: 1 }]);
});
