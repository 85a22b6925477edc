/** Many logins that end at the same time: the steps are shared, and whoever has trouble has it alone. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Issued, LeaseSpec, Target } from '../../../src/domain/provider.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { newLease, refusalOf, within } from '../../support/provider-contract.ts';
import { connectTo, open, sqlStateOf, unopened } from './holder.ts';

let orders: TestTarget;
let target: Target;
let leases: LeaseSpec[];
let issued: Issued[];

beforeEach(async () => {
  orders = await testTarget();
  target = connectTo(orders.config);
  await asSuperuser(orders.database, `GRANT CREATE ON SCHEMA public TO ${orders.groupRole}`);
  leases = Array.from({ length: 12 }, () => newLease(orders.grant, 60));
  issued = [];
  for (const lease of leases) issued.push(await target.issue(lease, within(10)));
});
afterEach(async () => {
  await Promise.all(leases.map((lease) => target.revoke(lease, within(20))));
  await target.close();
  await orders.close();
});

const namesLeft = async (): Promise<string[]> => {
  const names = leases.map(({ externalName }) => externalName);
  return (await orders.superuser.query<{ name: string }>('SELECT rolname AS name FROM pg_roles WHERE rolname = ANY ($1)', [names])).rows.map(
    ({ name }) => name,
  );
};

test('who is connected is cut, what one left is kept, and the others end meanwhile: each with its own answer', async () => {
  const session = await open(issued[3] as Issued);
  const holder = await open(issued[5] as Issued);
  await holder.query('CREATE TABLE left_behind ()');
  await holder.end();
  const gone = await Promise.all(leases.map((lease) => target.revoke(lease, within(20))));
  expect(gone.map(({ sessionsCut }) => sessionsCut)).toEqual(leases.map((_, index) => (index === 3 ? 1 : 0)));
  expect(gone.map(({ notes }) => notes)).toEqual(leases.map((_, index) => (index === 5 ? [`1 object given to ${orders.leftoversRole}`] : [])));
  for (const { cutAt } of gone) expect(cutAt).toBeInstanceOf(Date);
  expect(await sqlStateOf(session.query('SELECT 1'))).not.toBe('none');
  expect(await namesLeft()).toEqual([]);
});

test('a role that lost our marker is refused, and keeps none of the others', async () => {
  const strange = leases[4] as LeaseSpec;
  await asSuperuser('postgres', `COMMENT ON ROLE ${strange.externalName} IS 'mine now'`);
  const ends = await Promise.allSettled(leases.map((lease) => target.revoke(lease, within(20))));
  expect(ends.map(({ status }) => status)).toEqual(leases.map((lease) => (lease === strange ? 'rejected' : 'fulfilled')));
  expect(await namesLeft()).toEqual([strange.externalName]);
  await asSuperuser('postgres', `COMMENT ON ROLE ${strange.externalName} IS 'halligan lease=${strange.leaseId}'`);
});

test('a role that gave a membership on cannot be dropped with the others; alone what it gave is taken back first', async () => {
  const giver = leases[7] as LeaseSpec;
  const other = `member_of_${orders.groupRole}`;
  await asSuperuser(
    'postgres',
    `GRANT ${orders.groupRole} TO ${giver.externalName} WITH ADMIN TRUE`,
    `CREATE ROLE ${other}`,
    `SET SESSION AUTHORIZATION ${giver.externalName}; GRANT ${orders.groupRole} TO ${other}; RESET SESSION AUTHORIZATION`,
  );
  await Promise.all(leases.map((lease) => target.revoke(lease, within(20))));
  expect(await namesLeft()).toEqual([]);
  expect((await orders.superuser.query(`SELECT FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member WHERE r.rolname = $1`, [other])).rowCount).toBe(0);
  await asSuperuser('postgres', `DROP ROLE ${other}`);
});

test('ended twice at once, a login is gone once, and neither answer says so too early', async () => {
  const twice = await Promise.all(
    [...leases, ...leases].map(async (lease) => [await target.revoke({ ...lease }, within(20)), await target.inspect(lease, within(10))]),
  );
  for (const [, inspected] of twice) expect(inspected).toEqual({ state: 'absent' });
});

test('two processes that end the same logins, one of them alone with each, leave no membership of nobody behind', async () => {
  const other = connectTo(orders.config);
  for (const made of issued) await (await open(made)).query('SELECT 1');
  await Promise.all(leases.flatMap((lease) => [target.revoke(lease, within(20)), other.revoke(lease, within(20))]));
  await other.close();
  const { rows } = await orders.superuser.query(
    'SELECT FROM pg_auth_members m WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = m.roleid) OR NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = m.member)',
  );
  expect(rows).toEqual([]);
});

test('cut alone: no new login, no open session, the object is there for `revoke`; of what is not there, nothing', async () => {
  const [lease, made] = [leases[0] as LeaseSpec, issued[0] as Issued];
  const session = await open(made);
  const cut = await target.cut?.(lease, within(20));
  expect(cut).toEqual({ at: expect.any(Date), sessionsCut: 1 });
  expect(await sqlStateOf(session.query('SELECT 1'))).not.toBe('none');
  expect(await sqlStateOf(unopened(made).connect())).toBe('28P01');
  expect(await target.inspect(lease, within(10))).toMatchObject({ state: 'present', usable: false, openSessions: 0 });
  expect(await target.cut?.(lease, within(20))).toMatchObject({ sessionsCut: 0 });
  expect(await target.revoke(lease, within(20))).toMatchObject({ sessionsCut: 0 });
  expect(await target.cut?.(lease, within(20))).toBeNull();
});

test('a target that is not reached is told so by each of them, within its time', async () => {
  const away = connectTo({ ...orders.config, port: 1 });
  for (const refusal of await Promise.all(leases.map((lease) => refusalOf(away.revoke(lease, within(20)))))) expect(refusal.code).toBe('target_unreachable');
  const late = await Promise.all(leases.map((lease) => refusalOf(target.revoke(lease, AbortSignal.abort()))));
  expect(late.map(({ code }) => code)).toEqual(leases.map(() => 'target_timeout'));
  await away.close();
});
