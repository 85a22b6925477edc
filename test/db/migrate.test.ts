import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { migrate, migrateDown, migrationsPending } from '../../src/db/migrate.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';

let database: TestDatabase;
beforeEach(async () => {
  database = await testDatabase({ empty: true });
});
afterEach(() => database.close());

const tables = async (): Promise<string[]> =>
  (
    await database.superuser.query<{ name: string }>(
      "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1",
    )
  ).rows.map((row) => row.name);

test('an empty database is brought to date once; a second run finds nothing to do', async () => {
  const said: string[] = [];
  const pending = await migrationsPending(database.owner, 'migrations');
  expect(pending).toContain('0001_house');
  expect(await migrate({ url: database.ownerUrl, directory: 'migrations', log: (line) => said.push(line) })).toEqual(pending);
  expect(said).toContain('applied 0001_house');
  expect(await tables()).toContain('audit_event');
  expect(await migrate({ url: database.ownerUrl, directory: 'migrations' })).toEqual([]);
  expect(await migrationsPending(database.app, 'migrations')).toEqual([]);
});

test('of four runs at once one does the work and none fails', async () => {
  const runs = await Promise.all([1, 2, 3, 4].map(() => migrate({ url: database.ownerUrl, directory: 'migrations' })));
  expect(runs.filter((names) => names.length > 0)).toHaveLength(1);
  expect(runs.flat()).toContain('0001_house');
});

test('down takes everything back, and up makes it again', async () => {
  const names = await migrate({ url: database.ownerUrl, directory: 'migrations' });
  const before = await tables();
  expect(await migrateDown({ url: database.ownerUrl, directory: 'migrations' }, names.length)).toEqual([...names].reverse());
  expect(await tables()).toEqual(['migration']);
  const { rows } = await database.superuser.query("SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace");
  expect(rows).toEqual([]);
  expect(await migrate({ url: database.ownerUrl, directory: 'migrations' })).toEqual(names);
  expect(await tables()).toEqual(before);
});

test('a role without rights is told which role to use, and nothing is made', async () => {
  await expect(migrate({ url: database.appUrl, directory: 'migrations' })).rejects.toThrow(
    /permission denied.*use the role that owns the database \(halligan_owner\)/,
  );
  expect(await tables()).toEqual([]);
});

test('a password beside the address is the one that is used', async () => {
  const url = new URL(database.ownerUrl);
  const password = decodeURIComponent(url.password);
  url.password = '';
  expect(await migrate({ url: url.href, directory: 'migrations', password: async () => password })).toContain('0001_house');
  expect(await migrate({ url: url.href, directory: 'migrations', password })).toEqual([]);
});

test('a wrong password is told as such, and is not repeated', async () => {
  const url = new URL(database.ownerUrl);
  url.password = 'certainly-wrong';
  const error = await migrate({ url: url.href, directory: 'migrations' }).catch((thrown: unknown) => thrown);
  expect(String(error)).toMatch(/the login was refused/);
  expect(String(error)).not.toContain('certainly-wrong');
});

test('a file that fails half-way changes nothing, nor do the files before it', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'halligan-migrations-'));
  try {
    await writeFile(join(directory, '0001_one.sql'), '-- Up Migration\nCREATE TABLE one (id int);\n-- Down Migration\nDROP TABLE one;\n');
    await writeFile(join(directory, '0002_two.sql'), '-- Up Migration\nCREATE TABLE two (id int);\nSELECT 1/0;\n-- Down Migration\nDROP TABLE two;\n');
    await expect(migrate({ url: database.ownerUrl, directory })).rejects.toThrow(/division by zero; nothing was changed/);
    expect(await tables()).not.toContain('one');
    expect(await migrationsPending(database.owner, directory)).toEqual(['0001_one', '0002_two']);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
