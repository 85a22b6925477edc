/** Ending leases when the config or the claim went away in between. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { reconcileLeases } from '../../src/workers/reconcile-leases.ts';
import { openDesk, runRevokeLease } from '../../src/workers/revoke-lease.ts';
import { type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { claim, claimed, connectWith, eventsOf, granted, loginAnswer } from '../support/house-verbs.ts';
import { newGate } from '../support/provider-double.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse({ worker: false });
});
afterAll(() => house?.close());

const leaseOf = async (id: string) =>
  (
    await house.database.superuser.query<{ id: string; state: string; epoch: number; last_error: string | null; end_reason: string | null }>(
      'SELECT * FROM lease WHERE id = $1',
      [id],
    )
  ).rows[0]!;
const revoke = async (id: string, targets = house.running.ctx.targets) =>
  runRevokeLease({ ...house.running.ctx, targets }, openDesk(house.running.ctx), id, (await leaseOf(id)).epoch, AbortSignal.timeout(15_000));

test('a target that is no longer in the config keeps its lease overdue, in words, until it is put back', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await revoke(issued.lease, new Map());
  expect(await leaseOf(issued.lease)).toMatchObject({
    state: 'revoking',
    last_error: 'The target orders-db is not in the config, so its lease cannot be ended. Put the target back; the entitlement may stay out.',
  });
  const shown = await (await house.apiAs('oncall')).get<{ overdue: boolean; state: string }>(`/grants/${grant}`);
  expect(shown.body).toMatchObject({ overdue: true, state: 'ending' });
  await revoke(issued.lease);
  expect(await leaseOf(issued.lease)).toMatchObject({ state: 'revoked', last_error: null });
});

test('while others wait for a place at the target access is cut and nothing else; the next try, at once, does the rest', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const session = await connectWith(issued);
  session.on('error', () => undefined);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  const { ctx } = house.running;
  const full = openDesk(ctx, () => 1);
  await runRevokeLease(ctx, full, issued.lease, (await leaseOf(issued.lease)).epoch, AbortSignal.timeout(15_000));
  expect(await loginAnswer(issued)).toBe('28P01');
  await expect(session.query('SELECT 1')).rejects.toThrow();
  expect(await leaseOf(issued.lease)).toMatchObject({ state: 'revoking', tries: 0, last_error: null, cut_at: expect.any(Date) });
  expect((await rolesAt(house.target)).map((role) => role.lease)).toContain(issued.lease);
  await runRevokeLease(ctx, full, issued.lease, (await leaseOf(issued.lease)).epoch, AbortSignal.timeout(15_000));
  expect((await leaseOf(issued.lease)).state).toBe('revoked');
  expect((await eventsOf(house, 'lease_id', issued.lease)).slice(-3)).toEqual(['lease.ending', 'lease.cut', 'lease.revoked']);
});

test('a role at the target that lost our marker is not ended, and the lease says so instead of being called gone', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  await house.target.superuser.query(`COMMENT ON ROLE "${issued.handle}" IS 'mine now'`);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await revoke(issued.lease);
  expect((await leaseOf(issued.lease)).state).toBe('revoking');
  expect((await leaseOf(issued.lease)).last_error).toContain('does not bear the marker');
  await house.target.superuser.query(`COMMENT ON ROLE "${issued.handle}" IS 'halligan lease=${issued.lease}'`);
  await revoke(issued.lease);
  expect((await leaseOf(issued.lease)).state).toBe('revoked');
});

test('a claim that a crash cut short is ended by reconcile, but not while it may still be under way', async () => {
  const { grant } = await granted(house);
  const gate = newGate();
  house.faults.issue = async (real) => {
    const issued = await real();
    await gate.pass();
    return issued;
  };
  const claiming = claim(house, grant);
  await gate.arrived;
  house.faults.issue = undefined;
  const { rows } = await house.database.superuser.query<{ id: string }>('SELECT id FROM lease WHERE grant_id = $1', [grant]);
  const { id } = rows[0]!;
  await reconcileLeases(house.running.ctx);
  expect((await leaseOf(id)).state).toBe('issuing');
  expect((await rolesAt(house.target)).map((role) => role.lease)).toContain(id);
  // As it would stand after a crash: eleven seconds later nobody finishes it.
  await house.database.superuser.query(`UPDATE lease SET created_at = now() - interval '11 s' WHERE id = $1`, [id]);
  await reconcileLeases(house.running.ctx);
  expect(await leaseOf(id)).toMatchObject({ state: 'revoking', end_reason: 'unfinished' });
  gate.open();
  expect((await claiming).body.code).toBe('lease_conflict');
  await revoke(id);
  expect((await leaseOf(id)).state).toBe('revoked');
  expect(await eventsOf(house, 'lease_id', id)).toEqual(['lease.intended', 'lease.ending', 'lease.cut', 'lease.revoked']);
  await until('nothing of it is left', async () => !(await rolesAt(house.target)).some((role) => role.lease === id));
});

test('one target that cannot be compared does not keep the others from it', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  await house.target.superuser.query(`DROP ROLE "${issued.handle}"`);
  const real = house.running.ctx.targets.get('orders-db')!;
  const broken = { ...real, name: 'broken-db', sweep: async () => Promise.reject(new Error('away')) };
  const targets = new Map([
    ['broken-db', broken],
    ['orders-db', real],
  ]);
  await reconcileLeases({ ...house.running.ctx, targets });
  expect(await leaseOf(issued.lease)).toMatchObject({ state: 'revoking', end_reason: 'vanished' });
  expect(house.logged.join('')).toContain('reconcile_failed');
});
