/**
 * Brings Halligan's own database to the version this code expects. It needs the owner's role: the role that Halligan
 * runs under cannot change tables. Files are plain SQL, `-- Up Migration` and `-- Down Migration`, applied in the order
 * of their names, all or none.
 */
import { readdir } from 'node:fs/promises';
import pg from 'pg';
import { connectionOf } from './pool.ts';

export interface MigrateOptions {
  /** A postgres:// URL of the owner's role. */
  readonly url: string;
  /** The password, when it is not in the URL. */
  readonly password?: string | (() => Promise<string>) | undefined;
  /** The folder that holds the files. */
  readonly directory: string;
  readonly log?: ((line: string) => void) | undefined;
}

const table = 'migration';

/** Applies what is pending and returns the names of what was applied. Of several at once one does the work and the others wait for it, at most a minute. */
export const migrate = (options: MigrateOptions): Promise<string[]> => run(options, 'up');

/** Takes back the last `count` migrations and what they hold; returns their names, last first. */
export const migrateDown = (options: MigrateOptions, count = 1): Promise<string[]> => run(options, 'down', count);

/** The names of the files that the database has not seen. Halligan's running role may ask; it changes nothing. */
export async function migrationsPending(db: pg.Pool | pg.ClientBase, directory: string): Promise<string[]> {
  const names = (await readdir(directory)).filter((file) => file.endsWith('.sql')).map((file) => file.slice(0, -'.sql'.length));
  const {
    rows: [found],
  } = await db.query<{ is: boolean }>('SELECT to_regclass($1) IS NOT NULL AS is', [`public.${table}`]);
  const applied = found?.is ? (await db.query<{ name: string }>(`SELECT name FROM public.${table}`)).rows.map((row) => row.name) : [];
  return names.filter((name) => !applied.includes(name)).sort();
}

async function run(options: MigrateOptions, direction: 'up' | 'down', count?: number): Promise<string[]> {
  const log = options.log ?? (() => undefined);
  // Large, and only needed here: a server that finds nothing to do never loads it.
  const { runner } = await import('node-pg-migrate');
  const { url, password } = options;
  const client = new pg.Client({
    ...connectionOf(url, typeof password === 'string' ? async () => password : password),
    application_name: 'halligan migrate',
    connectionTimeoutMillis: 5_000,
    keepAlive: true,
  });
  client.on('error', (error) => log(`the connection was lost: ${error.message}`));
  try {
    await client.connect();
    // The wait for another run, and for locks on the tables, has an end; the work itself may take its time.
    await client.query("SET lock_timeout = '60s'");
    const silent = () => undefined;
    const applied = await runner({
      dbClient: client,
      dir: options.directory,
      migrationsTable: table,
      migrationsSchema: 'public',
      direction,
      ...(count === undefined ? {} : { count }),
      singleTransaction: true,
      checkOrder: true,
      advisoryLockMode: 'wait',
      logger: { debug: silent, info: silent, warn: silent, error: silent },
    });
    if (direction === 'up') await letTheAppRead(client);
    for (const { name } of applied) log(`${direction === 'up' ? 'applied' : 'took back'} ${name}`);
    return applied.map(({ name }) => name);
  } catch (error) {
    throw inWords(error);
  } finally {
    await client.end().catch(() => undefined);
  }
}

async function letTheAppRead(client: pg.Client): Promise<void> {
  const {
    rows: [need],
  } = await client.query<{ grant: boolean }>(
    `SELECT NOT has_table_privilege(oid, 'public.${table}', 'SELECT') AS grant FROM pg_roles WHERE rolname = 'halligan_app'`,
  );
  if (need?.grant) await client.query(`GRANT SELECT ON public.${table} TO halligan_app`);
}

/** The database's words with what to do about them; the original stays reachable as `cause`. */
function inWords(error: unknown): Error {
  const { code, message } = error as { code?: string; message: string };
  const because =
    code === '42501' || message.includes('permission denied')
      ? 'the role lacks the rights: use the role that owns the database (halligan_owner)'
      : code === '28P01' || code === '28000'
        ? 'the login was refused: check the role and its password'
        : code === '55P03'
          ? 'another migration, or a long transaction, was in the way for a minute: try again'
          : 'nothing was changed';
  return new Error(`The migration failed: ${message.split('\n')[0]}; ${because}.`, { cause: error });
}
