import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Issued, LeaseSpec, Target } from '../../../src/domain/provider.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { newLease, within } from '../../support/provider-contract.ts';
import { connectTo, open, sqlStateOf } from './holder.ts';
import { makeHostileObjects } from './hostile.ts';

let orders: TestTarget;
let target: Target;
let lease: LeaseSpec;
let issued: Issued;

beforeEach(async () => {
  orders = await testTarget();
  target = connectTo(orders.config);
  lease = newLease(orders.grant, 60);
});
afterEach(async () => {
  await target.revoke(lease, within(20));
  await target.close();
  await orders.close();
});

const ownerOf = async (catalog: string, column: string, name: string): Promise<string | undefined> =>
  (await orders.superuser.query<{ owner: string }>(`SELECT pg_get_userbyid(${column}owner) AS owner FROM ${catalog} WHERE ${column}name = $1`, [name])).rows[0]
    ?.owner;

/** Lets holders make things in `public`; `code` also lets their functions be kept. */
async function mayCreate(options: { code: boolean }): Promise<void> {
  await asSuperuser(orders.database, `GRANT CREATE ON SCHEMA public TO ${orders.groupRole}`);
  if (options.code) {
    await asSuperuser(
      orders.database,
      `CREATE ROLE ${orders.leftoversRole} NOLOGIN`,
      `GRANT ${orders.leftoversRole} TO ${orders.adminRole}`,
      `GRANT CREATE ON SCHEMA public TO ${orders.leftoversRole}`,
    );
  }
  issued = await target.issue(lease, within(10));
}

test('tables and functions are kept, owned by a role without powers, and a function no longer runs with its owner’s rights', async () => {
  await mayCreate({ code: true });
  const client = await open(issued);
  await client.query('CREATE TABLE findings AS SELECT 42 AS answer');
  await client.query("CREATE FUNCTION peek() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM public.orders'");
  const { notes, sessionsCut } = await target.revoke(lease, within(20));
  expect(sessionsCut).toBe(1);
  expect(notes).toEqual(['1 SECURITY DEFINER routine set to SECURITY INVOKER', `2 objects given to ${orders.leftoversRole}`]);
  expect(await ownerOf('pg_class', 'rel', 'findings')).toBe(orders.leftoversRole);
  expect(await ownerOf('pg_proc', 'pro', 'peek')).toBe(orders.leftoversRole);
  const { rows } = await orders.superuser.query('SELECT prosecdef FROM pg_proc WHERE proname = $1', ['peek']);
  expect(rows).toEqual([{ prosecdef: false }]);
});

test('where functions cannot be kept they are dropped and named, and the tables are still kept', async () => {
  await mayCreate({ code: false });
  const client = await open(issued);
  await client.query('CREATE TABLE findings (answer int)');
  await client.query("CREATE FUNCTION peek() RETURNS int LANGUAGE sql AS 'SELECT 1'");
  await client.query('CREATE VIEW peeked AS SELECT peek()');
  const { notes } = await target.revoke(lease, within(20));
  expect(notes[0]).toMatch(/^dropped because they could not be kept \(permission denied for schema public\): function public\.peek\(\)$/);
  expect(notes.join('\n')).toContain('dropped with it: view public.peeked');
  expect(await ownerOf('pg_class', 'rel', 'findings')).toBe(orders.leftoversRole);
  expect(await ownerOf('pg_proc', 'pro', 'peek')).toBeUndefined();
});

test('where a schema cannot be kept, because the role may no longer make any, everything of the holder in that database is dropped, and said so', async () => {
  await asSuperuser(orders.database, `GRANT CREATE ON DATABASE ${orders.database} TO ${orders.groupRole}`);
  issued = await target.issue(lease, within(10));
  const client = await open(issued);
  await client.query('CREATE SCHEMA "my ""own"" schema"');
  await client.query('CREATE TABLE "my ""own"" schema".t (id int)');
  await asSuperuser(orders.database, `REVOKE CREATE ON DATABASE ${orders.database} FROM ${orders.groupRole}`);
  const { notes } = await target.revoke(lease, within(20));
  expect(notes[0]).toMatch(/^2 objects dropped because they could not be kept \(permission denied for database/);
  expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
});

test('hostile names where nothing may be kept are survived as well', async () => {
  await asSuperuser(orders.database, `GRANT CREATE, TEMPORARY ON DATABASE ${orders.database} TO ${orders.groupRole}`);
  await mayCreate({ code: false });
  const client = await open(issued);
  await asSuperuser(orders.database, `GRANT TRIGGER ON orders TO ${orders.groupRole}`);
  await makeHostileObjects(client, orders);
  const { notes } = await target.revoke(lease, within(20));
  expect(notes.join('\n')).toContain('1 prepared transaction rolled back');
  for (const note of notes) expect(note).not.toMatch(/\p{Cc}/u);
  expect((await orders.superuser.query('SELECT count(*)::int AS n FROM orders')).rows).toEqual([{ n: 40 }]);
  expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
});

test('one thing that cannot be kept does not take the others with it', async () => {
  await asSuperuser(orders.database, `GRANT CREATE ON DATABASE ${orders.database} TO ${orders.groupRole}`);
  await mayCreate({ code: true });
  const client = await open(issued);
  await client.query("CREATE FUNCTION peek() RETURNS int LANGUAGE sql AS 'SELECT 1'");
  await client.query('CREATE PUBLICATION "told; everything"');
  const { notes } = await target.revoke(lease, within(20));
  expect(notes).toEqual([
    `dropped because they could not be kept (permission denied for database ${orders.database}): publication "told; everything"`,
    `1 object given to ${orders.leftoversRole}`,
  ]);
  expect(await ownerOf('pg_proc', 'pro', 'peek')).toBe(orders.leftoversRole);
});

test('a trigger of the holder on somebody else’s table is named', async () => {
  await asSuperuser(orders.database, `GRANT TRIGGER ON orders TO ${orders.groupRole}`);
  await mayCreate({ code: true });
  const client = await open(issued);
  await client.query('CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN RETURN NEW; END $f$');
  await client.query('CREATE TRIGGER later BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION later()');
  const { notes } = await target.revoke(lease, within(20));
  expect(notes).toContain("a trigger on somebody else's table runs code of this login: later on public.orders");
});

test('a leftovers role that has powers is refused, and access is cut all the same', async () => {
  await asSuperuser('postgres', `CREATE ROLE ${orders.leftoversRole} LOGIN`);
  await mayCreate({ code: false });
  const session = await open(issued);
  await session.query('CREATE TABLE left_behind ()');
  await expect(target.revoke(lease, within(20))).rejects.toMatchObject({ code: 'target_forbids', cut: { sessionsCut: 1 } });
  expect(await sqlStateOf(session.query('SELECT 1'))).not.toBe('none');
  await asSuperuser('postgres', `ALTER ROLE ${orders.leftoversRole} NOLOGIN`);
  await expect(target.revoke(lease, within(20))).rejects.toMatchObject({
    code: 'target_forbids',
    next: `As a superuser there: GRANT "${orders.leftoversRole}" TO "${orders.adminRole}" WITH INHERIT TRUE, SET TRUE;`,
  });
  await asSuperuser('postgres', `GRANT ${orders.leftoversRole} TO ${orders.adminRole}`);
});
