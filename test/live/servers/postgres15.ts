/** The machine's own PostgreSQL 15, as a target of another major version than the embedded one: a server of our own, on data of its own, on a free port of loopback. */
import { randomBytes } from 'node:crypto';
import { chown, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { as, serverAccount, serverEnv } from '../../../src/demo/postgres-files.ts';
import { awaitReady, freePort, runTool, startChild } from './install.ts';

const bin = '/usr/lib/postgresql/15/bin';

export interface Postgres15 {
  readonly port: number;
  /** Runs statements one by one as the superuser. */
  asSuperuser(database: string, ...statements: string[]): Promise<void>;
  /** A folder for files of this run, which goes with the server. */
  readonly folder: string;
  stop(): Promise<void>;
}

/** Starts a server of our own. Its superuser's password is random, so whoever accepts it is our child. */
export async function startPostgres15(): Promise<Postgres15> {
  const account = await serverAccount();
  const folder = await mkdtemp(join(tmpdir(), 'halligan-postgres15-'));
  const [data, passwordFile] = [join(folder, 'data'), join(folder, 'superuser')];
  const password = randomBytes(15).toString('base64url');
  await mkdir(data, { mode: 0o700 });
  await writeFile(passwordFile, password, { mode: 0o600 });
  if (account) for (const path of [folder, data, passwordFile]) await chown(path, account.uid, account.gid);
  const run = { ...as(account), cwd: '/', env: serverEnv };
  await runTool(
    join(bin, 'initdb'),
    [`--pgdata=${data}`, '--username=postgres', '--auth=scram-sha-256', '--encoding=UTF8', '--locale=C', `--pwfile=${passwordFile}`, '--no-sync'],
    run,
  );
  const port = await freePort();
  const settings = { listen_addresses: '127.0.0.1', port: String(port), unix_socket_directories: '', fsync: 'off', max_prepared_transactions: '10' };
  const child = startChild(
    join(bin, 'postgres'),
    ['-D', data, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    run.env,
    run,
  );
  const asSuperuser = async (database: string, ...statements: string[]): Promise<void> => {
    const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', password, database, connectionTimeoutMillis: 10_000 });
    client.on('error', () => undefined);
    await client.connect();
    try {
      for (const statement of statements) await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await awaitReady(child, 'PostgreSQL 15', 30, async () => {
    await asSuperuser('postgres', 'SELECT 1');
    return true;
  });
  return {
    port,
    asSuperuser,
    folder,
    async stop() {
      // SIGINT is PostgreSQL's fast shutdown: open sessions are cut.
      child.process.kill('SIGINT');
      await child.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
