/** For the tests of the `postgres` provider: a target, connected, and the holder of what it issues. */
import pg from 'pg';
import { readSecret } from '../../../src/config/secrets.ts';
import type { Issued, Target } from '../../../src/domain/provider.ts';
import { postgres } from '../../../src/providers/postgres.ts';
import { urlOf } from '../../support/postgres.ts';

/** The provider at this target, as the config's block would connect it. */
export const connectTo = (config: object): Target => postgres.connect('orders-db', postgres.targetSchema.parse(config), { readSecret });

/** Logs in as the holder would. Errors on the idle session are what being cut looks like. */
export async function open(issued: Issued, database = issued.connection.database ?? ''): Promise<pg.Client> {
  const client = unopened(issued, database);
  await client.connect();
  return client;
}

/** The same, not connected yet. */
export function unopened(issued: Issued, database = issued.connection.database ?? ''): pg.Client {
  const client = new pg.Client({ connectionString: urlOf(database, issued.handle, issued.secret.password ?? ''), connectionTimeoutMillis: 20_000 });
  client.on('error', () => undefined);
  return client;
}

/** The SQLSTATE that this call ends in, or `none`. */
export const sqlStateOf = (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'none',
    (error: { code?: string }) => error.code ?? String(error),
  );
