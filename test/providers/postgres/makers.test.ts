/** The helper roles that share out the logins: made by Halligan, used only while they are its alone, and in nobody's way when a login ends. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { newId } from '../../../src/domain/ids.ts';
import type { LeaseSpec, Target } from '../../../src/domain/provider.ts';
import { makerFor } from '../../../src/providers/postgres/makers.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { newLease, refusalOf, within } from '../../support/provider-contract.ts';
import { connectTo, open, sqlStateOf } from './holder.ts';

describe('which helper', () => {
  const names = Array.from({ length: 1_600 }, () => `hg_${newId('lease')}`);
  test('the same for a login at each try, and each about as often', () => {
    const counts = Map.groupBy(names, (name) => makerFor('halligan', 16, name));
    expect([...counts.keys()].toSorted()).toEqual(Array.from({ length: 16 }, (_, n) => `halligan_maker_${n}`).toSorted());
    for (const [maker, share] of counts) {
      expect(share.length, String(maker)).toBeLessThan(200);
      for (const name of share) expect(makerFor('halligan', 16, name)).toBe(maker);
    }
  });
  test('none where none is wanted, or where PostgreSQL would cut the name', () => {
    expect(makerFor('halligan', 0, 'hg_x')).toBeNull();
    expect(makerFor('é'.repeat(30), 1, 'hg_x')).toBeNull();
    expect(makerFor('x'.repeat(55), 1, 'hg_x')).toBe(`${'x'.repeat(55)}_maker_0`);
  });
});

describe('at a server', () => {
  let orders: TestTarget;
  let target: Target;
  const leases: LeaseSpec[] = [];
  const others: Target[] = [];
  beforeEach(async () => {
    orders = await testTarget();
    target = connectTo({ ...orders.config, makers: 1 });
  });
  afterEach(async () => {
    for (const lease of leases.splice(0)) await target.revoke(lease, within(20));
    for (const other of others.splice(0)) await other.close();
    await target.close();
    await orders.close();
  });

  const maker = () => `${orders.adminRole}_maker_0`;
  async function issued(by = target) {
    const lease = newLease(orders.grant, 60);
    leases.push(lease);
    return { lease, issued: await by.issue(lease, within(10)) };
  }
  function connected(more: object): Target {
    const other = connectTo({ ...orders.config, ...more });
    others.push(other);
    return other;
  }
  /** The members of a role, read by the superuser. */
  const membersOf = async (role: string): Promise<string[]> =>
    (
      await orders.superuser.query<{ name: string }>(
        'SELECT DISTINCT a.rolname AS name FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles a ON a.oid = m.member WHERE r.rolname = $1 ORDER BY 1',
        [role],
      )
    ).rows.map(({ name }) => name);

  test('a login is made by a helper, whose only member is Halligan; it is found, works and ends like any other', async () => {
    const { lease, issued: made } = await issued();
    expect(await membersOf(lease.externalName)).toEqual([maker()]);
    expect(await membersOf(maker())).toEqual([orders.adminRole]);
    const { rows } = await orders.superuser.query('SELECT rolcanlogin, rolcreaterole, rolsuper, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname = $1', [
      maker(),
    ]);
    expect(rows).toEqual([{ rolcanlogin: false, rolcreaterole: true, rolsuper: false, rolcreatedb: false, rolbypassrls: false }]);
    expect(await target.sweep(within(10))).toEqual([{ leaseId: lease.leaseId, externalName: lease.externalName }]);
    expect(await target.check([orders.grant], within(10))).toEqual([]);
    const session = await open(made);
    expect(await target.inspect(lease, within(10))).toMatchObject({ usable: true, openSessions: 1 });
    expect(await target.revoke(lease, within(20))).toMatchObject({ sessionsCut: 1 });
    expect(await sqlStateOf(session.query('SELECT 1'))).not.toBe('none');
    expect(await target.inspect(lease, within(10))).toEqual({ state: 'absent' });
  });

  test('the holder can neither become a helper nor ask it for anything', async () => {
    const { issued: made } = await issued();
    const client = await open(made);
    for (const sql of [`SET ROLE ${maker()}`, `GRANT ${maker()} TO "${made.handle}"`, `ALTER ROLE ${maker()} LOGIN`, `DROP ROLE ${maker()}`])
      expect(await sqlStateOf(client.query(sql)), sql).toBe('42501');
    await client.end();
    const error = await refusalOf(target.issue(newLease({ role: maker() }, 60), within(10)));
    expect(error).toMatchObject({ code: 'target_forbids', nothingMade: true });
  });

  test('many at once where no helper is there yet: all are made, by all the helpers', async () => {
    const all = connected({ makers: 4 });
    const made = await Promise.all(Array.from({ length: 24 }, () => issued(all)));
    const makers = await Promise.all(made.map(async ({ lease }) => (await membersOf(lease.externalName)).join()));
    expect(makers.every((name) => name.startsWith(`${orders.adminRole}_maker_`))).toBe(true);
    expect(new Set(makers).size).toBeGreaterThan(1);
  });

  test('with other settings than it was made with, a login is given a new password and ended all the same', async () => {
    const without = connected({ makers: 0 });
    const [one, two] = [await issued(without), await issued()];
    expect(await membersOf(one.lease.externalName)).toEqual([orders.adminRole]);
    const again = [await target.issue(one.lease, within(10)), await without.issue(two.lease, within(10))];
    for (const made of again) await (await open(made)).end();
    for (const old of [one, two]) expect(await sqlStateOf(open(old.issued))).toBe('28P01');
    expect((await without.sweep(within(10))).map(({ leaseId }) => leaseId).toSorted()).toEqual([one.lease.leaseId, two.lease.leaseId].toSorted());
    await target.revoke(one.lease, within(20));
    await without.revoke(two.lease, within(20));
    expect(await target.sweep(within(10))).toEqual([]);
  });

  test.each([
    [
      'made by somebody else, who keeps power over it',
      [
        'CREATE ROLE {other} CREATEROLE',
        'SET ROLE {other}',
        'CREATE ROLE {maker} CREATEROLE',
        'GRANT {maker} TO {admin} WITH INHERIT TRUE, SET TRUE',
        'RESET ROLE',
      ],
    ],
    ['that can log in', ['ALTER ROLE {maker} LOGIN']],
    ['that bypasses row security', ['ALTER ROLE {maker} BYPASSRLS']],
    ['of which somebody else is a member', ['CREATE ROLE {other}', 'GRANT {maker} TO {other}']],
    ['that was taken from Halligan', ['REVOKE {maker} FROM {admin} CASCADE', 'REVOKE {maker} FROM {admin} GRANTED BY {admin} CASCADE']],
  ])('a helper %s makes no login: Halligan makes it itself, and the check says so until it is dropped', async (what, statements) => {
    const other = `other_${orders.database}`;
    if (!what.startsWith('made by')) await target.revoke((await issued()).lease, within(20));
    const sql = statements.map((one) => one.replaceAll('{maker}', maker()).replaceAll('{admin}', orders.adminRole).replaceAll('{other}', other));
    await asSuperuser(orders.database, ...sql);
    try {
      const { lease, issued: made } = await issued();
      expect(await membersOf(lease.externalName)).toEqual([orders.adminRole]);
      await (await open(made)).end();
      await target.revoke(lease, within(20));
      const [fault, ...more] = await target.check([orders.grant], within(10));
      expect(more).toEqual([]);
      expect(fault).toMatchObject({ warning: true, message: expect.stringContaining(`the role "${maker()}" bears the name of a helper of ours`) });
      await asSuperuser(orders.database, /as a superuser there: (.*?;)/.exec(fault?.next ?? '')?.[1] ?? 'nothing to run');
      expect(await target.check([orders.grant], within(10))).toEqual([]);
      expect(await membersOf((await issued()).lease.externalName)).toEqual([maker()]);
    } finally {
      await asSuperuser(orders.database, `DROP ROLE IF EXISTS ${other}`);
    }
  });

  test('CREATEROLE taken from Halligan stops it, whatever helpers there are', async () => {
    await issued();
    await asSuperuser(orders.database, `ALTER ROLE ${orders.adminRole} NOCREATEROLE`);
    const error = await refusalOf(target.issue(newLease(orders.grant, 60), within(10)));
    expect(error).toMatchObject({ code: 'target_forbids', nothingMade: true, next: `As a superuser there: ALTER ROLE "${orders.adminRole}" CREATEROLE;` });
    await asSuperuser(orders.database, `ALTER ROLE ${orders.adminRole} CREATEROLE`);
  });

  test('the group taken from Halligan is taken from the helpers; given back, they give it again', async () => {
    await target.revoke((await issued()).lease, within(20));
    await asSuperuser(orders.database, `REVOKE ADMIN OPTION FOR ${orders.groupRole} FROM ${orders.adminRole} CASCADE`);
    expect(await refusalOf(target.issue(newLease(orders.grant, 60), within(10)))).toMatchObject({ code: 'target_forbids', nothingMade: true });
    await asSuperuser(orders.database, `GRANT ${orders.groupRole} TO ${orders.adminRole} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`);
    expect(await membersOf((await issued()).lease.externalName)).toEqual([maker()]);
  });

  test('limits: an open session has a bound with Halligan dead only where a reaper is said to be', async () => {
    const deadFor = (reaper: unknown) => connected({ reaper }).limits.openSession.dead;
    expect([target.limits.openSession.dead, deadFor(false), deadFor(true), deadFor(30)]).toEqual([null, null, 120, 90]);
  });
});
