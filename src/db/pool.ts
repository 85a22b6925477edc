/** The connection to Halligan's own database. Reads go through `db`; only `commands/commit.ts` and the audit sequencer open transactions that write. */
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { parseIntoClientConfig } from 'pg-connection-string';
import type { Schema } from './schema.ts';

export type Db = Kysely<Schema>;

export interface PoolOptions {
  readonly connectionString: string;
  /** Read at each new connection, so that a rotated password file is picked up. */
  readonly password?: (() => Promise<string>) | undefined;
  /** Most connections at once. */
  readonly max?: number;
  readonly applicationName?: string;
  /** Told of errors on idle connections (the server went away); the pool mends itself. */
  readonly onError?: (error: Error) => void;
}

// int8 as a number: positions and sizes stay far below 2^53.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

const mark = /^\/\* prepared (\w+) \*\//;

/** A text that begins with this is parsed and planned once on each connection, under this name; each name belongs to one text. */
export const prepared = (name: string): string => `/* prepared ${name} */`;

/** The driver's client, which also takes `prepared` from those who can only give it a text. */
class Client extends pg.Client {
  // biome-ignore lint/suspicious/noExplicitAny: the driver's own nine signatures, passed through.
  override query(...args: any[]): any {
    const name = typeof args[0] === 'string' ? mark.exec(args[0])?.[1] : undefined;
    if (name) args[0] = { name, text: args[0], values: args[1] };
    return (super.query as (...all: unknown[]) => unknown)(...(name ? [args[0]] : args));
  }
}

/** What the driver connects with. A password beside the address wins over the one that the driver would read from it. */
export const connectionOf = (connectionString: string, password?: () => Promise<string>): pg.ClientConfig => ({
  ...parseIntoClientConfig(connectionString),
  ...(password ? { password } : {}),
});

/** A pool of connections. Every statement is ended by the server after 15 s, every connection attempt after 5 s. */
export function openPool(options: PoolOptions): pg.Pool {
  const settings: pg.PoolConfig & { Client: typeof pg.Client } = {
    Client,
    ...connectionOf(options.connectionString, options.password),
    max: options.max ?? 10,
    application_name: options.applicationName ?? 'halligan',
    connectionTimeoutMillis: 5_000,
    statement_timeout: 15_000,
    query_timeout: 20_000,
    idle_in_transaction_session_timeout: 30_000,
    keepAlive: true,
  };
  const pool = new pg.Pool(settings);
  pool.on('error', (error) => options.onError?.(error));
  // A connection that breaks while it is in use fails its query; without a listener of its own it would end the process.
  pool.on('connect', (client) => client.on('error', (error) => options.onError?.(error)));
  return pool;
}

export const openDb = (pool: pg.Pool): Db => new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });
