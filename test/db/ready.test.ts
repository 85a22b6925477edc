/** A database that Halligan cannot work on is named in one sentence at the start. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openPool } from '../../src/db/pool.ts';
import { awaitDatabase, DatabaseNotReady, faultOf } from '../../src/db/ready.ts';
import { asSuperuser, type TestDatabase, testDatabase } from '../support/postgres.ts';

let database: TestDatabase;
beforeAll(async () => {
  database = await testDatabase();
});
afterAll(() => database.close());

test.each([
  [{ version: 130_021, standby: false, readOnly: false }, 'is version 13, which is too old: Halligan needs 14 or newer.', false],
  [{ version: 180_001, standby: true, readOnly: true }, 'is a standby, which cannot be written to: database.url must lead to the primary.', true],
  [{ version: 140_000, standby: false, readOnly: true }, 'is read-only for this role (default_transaction_read_only), and Halligan writes.', true],
])('%o', (facts, words, passing) => {
  expect(faultOf(facts)).toEqual({ words, passing });
});

test('14 and newer, on a primary that can be written to, is good', () => {
  expect(faultOf({ version: 140_000, standby: false, readOnly: false })).toBeUndefined();
});

test('one that is read-only is waited for, and said', async () => {
  await asSuperuser('postgres', `ALTER DATABASE ${database.name} SET default_transaction_read_only = on`);
  const warned: string[] = [];
  const pool = openPool({ connectionString: database.appUrl });
  const wait = (patienceMs: number) =>
    awaitDatabase(pool, { url: database.appUrl, migrationsDirectory: 'migrations', patienceMs, log: { warn: (_, message) => void warned.push(message) } });
  try {
    const refused: unknown = await wait(1_200).catch((error: unknown) => error);
    expect(refused).toBeInstanceOf(DatabaseNotReady);
    expect((refused as Error).message).toMatch(
      /^PostgreSQL at 127\.0\.0\.1:\d+\/\w+ as halligan_app is read-only for this role \(default_transaction_read_only\), and Halligan writes\.$/,
    );
    expect(warned.length).toBeGreaterThan(0);
    const patient = wait(20_000);
    await asSuperuser(
      'postgres',
      `ALTER DATABASE ${database.name} RESET default_transaction_read_only`,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${database.name}' AND usename = 'halligan_app'`,
    );
    await patient;
  } finally {
    await pool.end();
  }
});
