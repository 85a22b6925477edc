/** Databases for tests: each a fresh copy of a template, on the one server of the run, dropped by `close()`. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { inject } from 'vitest';
import { openPool } from '../../src/db/pool.ts';
import { templateDatabase } from './global-setup.ts';

export interface TestDatabase {
  readonly name: string;
  /** URLs with passwords, for the three roles. */
  readonly ownerUrl: string;
  readonly appUrl: string;
  readonly superUrl: string;
  readonly owner: pg.Pool;
  readonly app: pg.Pool;
  readonly superuser: pg.Pool;
  close(): Promise<void>;
}

/** The address of a database on the run's server, for a role. */
export function urlOf(database: string, user: string, password: string): string {
  return `postgres://${encodeURIComponent(user)}:${encodeURIComponent(password)}@127.0.0.1:${inject('server').port}/${encodeURIComponent(database)}`;
}

/** The superuser's address of a database on the run's server. */
export const superUrlOf = (database: string): string => urlOf(database, 'postgres', inject('server').superuserPassword);

/** Runs statements one by one as the superuser, on a connection of its own. */
export async function asSuperuser(database: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: superUrlOf(database), connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

export const newSuffix = (): string => randomBytes(5).toString('hex');

/** A database with Halligan's own tables, empty. `{ empty: true }`: without them, for tests of the migrations. */
export async function testDatabase(options: { empty?: boolean } = {}): Promise<TestDatabase> {
  const server = inject('server');
  const name = `halligan_${newSuffix()}`;
  await asSuperuser('postgres', `CREATE DATABASE ${name} OWNER halligan_owner TEMPLATE ${options.empty ? 'template0' : templateDatabase}`);
  const urls = {
    ownerUrl: urlOf(name, 'halligan_owner', server.ownerPassword),
    appUrl: urlOf(name, 'halligan_app', server.appPassword),
    superUrl: superUrlOf(name),
  };
  const pools = {
    owner: openPool({ connectionString: urls.ownerUrl, max: 5 }),
    app: openPool({ connectionString: urls.appUrl, max: 10 }),
    superuser: openPool({ connectionString: urls.superUrl, max: 3 }),
  };
  return {
    name,
    ...urls,
    ...pools,
    async close() {
      await Promise.all(Object.values(pools).map((pool) => pool.end()));
      await asSuperuser('postgres', `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

export interface TestTarget {
  /** The `targets.<name>` block for the provider, without `kind`. */
  readonly config: { host: string; port: number; database: string; user: string; passwordFile: string; tls: 'disable'; leftoversRole: string };
  /** The `grant` block of an entitlement: the group role that may read. */
  readonly grant: { role: string };
  readonly database: string;
  /** Halligan's own, unprivileged role at the target. */
  readonly adminRole: string;
  readonly leftoversRole: string;
  readonly groupRole: string;
  readonly superuser: pg.Pool;
  /** Ends with everything that the test or Halligan made for this target: its database, its roles. */
  close(): Promise<void>;
}

/**
 * An `orders` database as its owner would prepare it for Halligan, with the least rights (docs/providers.md has the same
 * statements). Roles belong to the whole server, so each target has names of its own.
 */
export async function testTarget(): Promise<TestTarget> {
  const suffix = newSuffix();
  const database = `orders_${suffix}`;
  const [groupRole, adminRole, leftoversRole] = [`orders_ro_${suffix}`, `halligan_target_${suffix}`, `halligan_leftovers_${suffix}`];
  const password = randomBytes(18).toString('base64url');
  const folder = await mkdtemp(join(inject('server').folder, 'target-'));
  const passwordFile = join(folder, 'password');
  await writeFile(passwordFile, `${password}\n`, { mode: 0o600 });
  await asSuperuser('postgres', `CREATE DATABASE ${database}`, `REVOKE CONNECT, TEMPORARY ON DATABASE ${database} FROM PUBLIC`);
  await asSuperuser(
    database,
    ...ordersTables,
    ...targetSetup({ database, groupRole, adminRole, password }),
    `ALTER DATABASE ${database} SET log_statement = 'all'`,
  );
  const superuser = openPool({ connectionString: superUrlOf(database), max: 3 });
  return {
    config: { host: '127.0.0.1', port: inject('server').port, database, user: adminRole, passwordFile, tls: 'disable', leftoversRole },
    grant: { role: groupRole },
    database,
    adminRole,
    leftoversRole,
    groupRole,
    superuser,
    async close() {
      // What the server still holds of this target's leases is a leak, and the run's end would blame nobody in particular.
      const { rows } = await superuser.query<{ rolname: string }>(
        `SELECT DISTINCT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles a ON a.oid = m.member
          WHERE (a.rolname = $1 OR starts_with(a.rolname, $1 || '_maker_')) AND r.rolname LIKE 'hg\\_%'`,
        [adminRole],
      );
      const { rows: makers } = await superuser.query<{ rolname: string }>(`SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1 || '_maker_')`, [
        adminRole,
      ]);
      await superuser.end();
      await asSuperuser('postgres', `DROP DATABASE ${database} WITH (FORCE)`);
      for (const role of [...[...rows, ...makers].map((row) => row.rolname), leftoversRole, groupRole, adminRole])
        await asSuperuser('postgres', `DROP ROLE IF EXISTS "${role}"`);
      await rm(folder, { recursive: true, force: true });
      if (rows.length > 0) throw new Error(`roles were left at the target: ${rows.map((row) => row.rolname).join(', ')}`);
    },
  };
}

/** The least rights: make login roles, give membership of one group, enter one database. Nothing on the data. */
const targetSetup = (names: { database: string; groupRole: string; adminRole: string; password: string }): string[] => [
  `CREATE ROLE ${names.groupRole} NOLOGIN`,
  `GRANT CONNECT ON DATABASE ${names.database} TO ${names.groupRole}`,
  `GRANT USAGE ON SCHEMA public TO ${names.groupRole}`,
  `GRANT SELECT ON ALL TABLES IN SCHEMA public TO ${names.groupRole}`,
  `CREATE ROLE ${names.adminRole} LOGIN CREATEROLE PASSWORD '${names.password}'`,
  `GRANT CONNECT ON DATABASE ${names.database} TO ${names.adminRole}`,
  `GRANT ${names.groupRole} TO ${names.adminRole} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`,
];

const ordersTables = [
  'CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, country text NOT NULL)',
  'CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, placed_at timestamptz NOT NULL, total_cents int NOT NULL)',
  'CREATE TABLE order_items (order_id int REFERENCES orders, line int, product text NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, line))',
  "INSERT INTO customers SELECT n, 'Customer ' || n, (ARRAY['DE', 'FR', 'KE'])[1 + n % 3] FROM generate_series(1, 12) n",
  "INSERT INTO orders SELECT n, 1 + n % 12, timestamptz '2026-01-01 00:00Z' + n * interval '1 hour', 100 * n FROM generate_series(1, 40) n",
  "INSERT INTO order_items SELECT o, l, 'Product ' || (o + l) % 7, 1 + l FROM generate_series(1, 40) o, generate_series(1, 2) l",
];
