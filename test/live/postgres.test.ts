/** The postgres provider's contract against PostgreSQL 15, where membership has no options of its own and CREATEROLE means more than it does today. */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { readSecret } from '../../src/config/secrets.ts';
import type { Issued } from '../../src/domain/provider.ts';
import { postgres } from '../../src/providers/postgres.ts';
import { describeProviderContract } from '../support/provider-contract.ts';
import { startPostgres15 } from './servers/postgres15.ts';

async function open(issued: Issued): Promise<pg.Client> {
  const { host, port, database } = issued.connection;
  const client = new pg.Client({
    host,
    port: Number(port),
    database,
    user: issued.handle,
    password: issued.secret['password'],
    connectionTimeoutMillis: 5_000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
  return client;
}

describeProviderContract('postgres 15', async () => {
  const server = await startPostgres15();
  const password = randomBytes(15).toString('base64url');
  const passwordFile = join(server.folder, 'orders');
  await writeFile(passwordFile, password, { mode: 0o600 });
  await server.asSuperuser('postgres', 'CREATE DATABASE orders', 'REVOKE CONNECT, TEMPORARY ON DATABASE orders FROM PUBLIC');
  // docs/providers.md, with what it says of 14 and 15.
  await server.asSuperuser(
    'orders',
    'CREATE TABLE orders (id int PRIMARY KEY)',
    'CREATE ROLE orders_ro NOLOGIN',
    'GRANT CONNECT ON DATABASE orders TO orders_ro',
    'GRANT USAGE ON SCHEMA public TO orders_ro',
    'GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_ro',
    `CREATE ROLE halligan LOGIN CREATEROLE PASSWORD '${password}'`,
    'GRANT CONNECT ON DATABASE orders TO halligan',
    'GRANT orders_ro TO halligan WITH ADMIN OPTION',
  );
  const config = postgres.targetSchema.parse({ host: '127.0.0.1', port: server.port, database: 'orders', user: 'halligan', passwordFile, tls: 'disable' });
  return {
    connect: () => postgres.connect('orders-db', config, { readSecret }),
    grant: { role: 'orders_ro' },
    missingGrant: { role: 'orders_gone' },
    async login(issued) {
      const client = await open(issued);
      return {
        works: () =>
          client.query('SELECT count(*) FROM orders').then(
            () => true,
            () => false,
          ),
        close: () => client.end().catch(() => undefined),
      };
    },
    isRefusal: (error) => (error as { code?: string }).code === '28P01',
    close: () => server.stop(),
  };
});
