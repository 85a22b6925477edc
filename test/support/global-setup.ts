/**
 * One embedded PostgreSQL for the whole test run, with the roles and the migrated template that `postgres.ts` copies
 * databases from. At the end it looks for what tests left behind, and fails the run when it finds something.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { migrate } from '../../src/db/migrate.ts';
import { type EmbeddedPostgres, startPostgres, stopLeftOver } from '../../src/demo/embedded-postgres.ts';
import { isAlive } from '../../src/demo/processes.ts';

/** What the workers are told of the server. */
export interface TestServer {
  readonly port: number;
  readonly superuserPassword: string;
  readonly ownerPassword: string;
  readonly appPassword: string;
  readonly logFile: string;
  /** A folder for files of this run; it goes when the run ends, however it ends. */
  readonly folder: string;
}
declare module 'vitest' {
  interface ProvidedContext {
    server: TestServer;
  }
}

export const templateDatabase = 'halligan_template';
const prefix = 'halligan-test-';

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await clearEarlierRuns();
  const folder = join(tmpdir(), `${prefix}${process.pid}-${randomBytes(4).toString('hex')}`);
  await mkdir(folder, { mode: 0o755 });
  await writeFile(join(folder, 'pid'), String(process.pid));
  const password = () => randomBytes(18).toString('base64url');
  const secrets = { superuserPassword: password(), ownerPassword: password(), appPassword: password() };
  const server = await startPostgres({
    dataDirectory: join(folder, 'data'),
    superuserPassword: secrets.superuserPassword,
    fast: true,
    settings: { max_prepared_transactions: '10', max_connections: '300', log_lock_waits: 'on' },
  });
  try {
    await makeTemplate(server, secrets);
  } catch (error) {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
    throw error;
  }
  project.provide('server', { port: server.port, logFile: server.logFile, folder, ...secrets });
  return async () => {
    const leaks = await findLeaks(server).finally(() => server.stop());
    await rm(folder, { recursive: true, force: true });
    if (leaks.length > 0) throw new Error(`tests left behind ${leaks.length}: ${leaks.slice(0, 12).join(', ')}`);
  };
}

async function makeTemplate(server: EmbeddedPostgres, secrets: { ownerPassword: string; appPassword: string }): Promise<void> {
  const client = new pg.Client(server.superuserUrl);
  await client.connect();
  try {
    await client.query(`CREATE ROLE halligan_owner LOGIN PASSWORD '${secrets.ownerPassword}'`);
    await client.query(`CREATE ROLE halligan_app LOGIN PASSWORD '${secrets.appPassword}'`);
    await client.query(`CREATE DATABASE ${templateDatabase} OWNER halligan_owner`);
    const url = `postgres://halligan_owner:${secrets.ownerPassword}@127.0.0.1:${server.port}/${templateDatabase}`;
    await migrate({ url, directory: 'migrations' });
    await client.query(`ALTER DATABASE ${templateDatabase} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false`);
  } finally {
    await client.end();
  }
}

async function findLeaks(server: EmbeddedPostgres): Promise<string[]> {
  const client = new pg.Client(server.superuserUrl);
  await client.connect();
  try {
    const { rows } = await client.query<{ leak: string }>(
      `SELECT 'database ' || datname AS leak FROM pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1', $1)
       UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname !~ '^pg_' AND rolname NOT IN ('postgres', 'halligan_owner', 'halligan_app')
       UNION ALL SELECT 'session of ' || coalesce(usename, '?') || ' in ' || coalesce(datname, '?') FROM pg_stat_activity
         WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
       UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts`,
      [templateDatabase],
    );
    return rows.map((row) => row.leak);
  } finally {
    await client.end();
  }
}

/** A run that was killed leaves its server and its folder: the next one clears both. */
async function clearEarlierRuns(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    if (!name.startsWith(prefix)) continue;
    const folder = join(tmpdir(), name);
    const pid = Number(await readFile(join(folder, 'pid'), 'utf8').catch(() => 'none'));
    if (!Number.isInteger(pid) || isAlive(pid)) continue;
    await stopLeftOver(join(folder, 'data'));
    await rm(folder, { recursive: true, force: true });
  }
}
