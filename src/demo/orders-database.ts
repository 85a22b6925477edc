/** The demo's target: an orders database as its owner would prepare it for Halligan, with the least rights (docs/providers.md has the same statements). */
import pg from 'pg';

const statements = [
  'REVOKE CONNECT, TEMPORARY ON DATABASE orders FROM PUBLIC',
  'CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, country text NOT NULL)',
  'CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, placed_at timestamptz NOT NULL, total_cents int NOT NULL)',
  'CREATE TABLE order_items (order_id int REFERENCES orders, line int, product text NOT NULL, quantity int NOT NULL, PRIMARY KEY (order_id, line))',
  "INSERT INTO customers SELECT n, 'Customer ' || n, (ARRAY['DE', 'FR', 'KE'])[1 + n % 3] FROM generate_series(1, 40) n",
  "INSERT INTO orders SELECT n, 1 + n % 40, timestamptz '2026-01-01 00:00Z' + n * interval '1 hour', 100 * n FROM generate_series(1, 400) n",
  "INSERT INTO order_items SELECT o, l, 'Product ' || (o + l) % 7, 1 + l FROM generate_series(1, 400) o, generate_series(1, 2) l",
  'CREATE ROLE orders_ro NOLOGIN',
  'CREATE ROLE orders_rw NOLOGIN',
  'GRANT CONNECT ON DATABASE orders TO orders_ro, orders_rw, halligan_target',
  'GRANT USAGE ON SCHEMA public TO orders_ro, orders_rw',
  'GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_ro',
  'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO orders_rw',
  'GRANT orders_ro, orders_rw TO halligan_target WITH ADMIN TRUE, INHERIT FALSE, SET FALSE',
];

/** Fills the database at this address, as its superuser, unless that was done before. All or nothing. */
export async function ordersDatabase(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    const { rows } = await client.query<{ there: boolean }>("SELECT to_regclass('public.orders') IS NOT NULL AS there");
    if (rows[0]?.there) return;
    await client.query('BEGIN');
    for (const statement of statements) await client.query(statement);
    await client.query('COMMIT');
  } finally {
    await client.end();
  }
}
