/**
 * One more credential of a lease that is live: judged like any claim, witnessed before and after, never the end of the live
 * lease when it fails, and never shown when grant or lease ended meanwhile. The target is a real PostgreSQL; that it offers
 * `another`, and what happens there, is the double's doing.
 */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { claimLease } from '../../src/commands/claim-lease.ts';
import { endVanished } from '../../src/commands/record-revocation.ts';
import { ProviderError } from '../../src/domain/provider.ts';
import { sweepStartsAndLapses } from '../../src/workers/expire-grants.ts';
import { type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { type ClaimedAnswer, claim, claimed, endsIn, eventsOf, granted, loginAnswer } from '../support/house-verbs.ts';
import { type Faults, newGate } from '../support/provider-double.ts';

let house: House;
const simply: NonNullable<Faults['another']> = (real) => real();
beforeAll(async () => {
  house = await startTestHouse();
  house.faults.another = simply;
});
afterAll(() => house?.close());
afterEach(() => {
  house.faults.another = simply;
  house.faults.issue = undefined;
});

interface Lease {
  readonly id: string;
  readonly state: string;
  readonly end_reason: string | null;
  readonly expires_at: Date;
  readonly revealed_at: Date | null;
}
const leasesOf = async (grant: string): Promise<Lease[]> =>
  (await house.database.superuser.query<Lease>('SELECT * FROM lease WHERE grant_id = $1 ORDER BY id', [grant])).rows;
const endOf = async (grant: string): Promise<Date> =>
  (await house.database.superuser.query<{ ends_at: Date }>('SELECT ends_at FROM access_grant WHERE id = $1', [grant])).rows[0]!.ends_at;
const count = (types: readonly string[], type: string): number => types.filter((one) => one === type).length;
const refusals = async (grant: string): Promise<unknown[]> =>
  (
    await house.database.superuser.query<{ code: string }>(
      `SELECT line::jsonb #>> '{data,code}' AS code FROM audit_event WHERE grant_id = $1 AND type = 'claim.refused' ORDER BY position`,
      [grant],
    )
  ).rows.map(({ code }) => code);
const inMs = (ms: number): Date => new Date(Date.now() + ms);

test('twenty claims make one lease at the target and twenty witnesses of what was shown; the end of the grant ends it', async () => {
  const { grant } = await granted(house);
  const answers: ClaimedAnswer[] = [];
  for (let n = 0; n < 20; n += 1) answers.push(await claimed(house, grant));
  expect(new Set(answers.map(({ lease }) => lease)).size).toBe(1);
  expect(await leasesOf(grant)).toMatchObject([{ state: 'live', end_reason: null }]);
  expect((await rolesAt(house.target)).filter(({ lease }) => lease === answers[0]!.lease)).toHaveLength(1);
  const events = await eventsOf(house, 'lease_id', answers[0]!.lease);
  expect(events.slice(0, 4)).toEqual(['lease.intended', 'lease.revealed', 'lease.again', 'lease.revealed']);
  expect([count(events, 'lease.intended'), count(events, 'lease.again'), count(events, 'lease.revealed')]).toEqual([1, 19, 20]);
  expect(await loginAnswer(answers.at(-1)!)).toBe('let in');
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await until('the lease is gone', async () => (await leasesOf(grant))[0]!.state === 'revoked');
  expect(await loginAnswer(answers.at(-1)!)).not.toBe('let in');
});

test('each is judged anew: another person, a group that was lost, a changed config and a grant that is over are refused, and the lease goes on', async () => {
  const { grant } = await granted(house);
  const first = await claimed(house, grant);
  let asked = 0;
  house.faults.another = (real) => {
    asked += 1;
    return real();
  };
  expect((await claim(house, grant, 'oncall-2')).body.code).toBe('not_found');
  const { ctx } = house.running;
  const actor = await house.actor('oncall');
  const groups = 'UPDATE person SET groups = $2 WHERE subject = $1';
  await house.database.superuser.query(groups, ['oncall', []]);
  await expect(claimLease(ctx, actor, grant, 'orders-readonly')).rejects.toMatchObject({ code: 'not_eligible' });
  await house.database.superuser.query(groups, ['oncall', actor.groups]);
  const entitlement = ctx.policy.entitlements.get('orders-readonly')!;
  const entitlements = new Map(ctx.policy.entitlements).set('orders-readonly', { ...entitlement, grant: { role: 'another' } });
  const changed = { ...ctx, policy: { ...ctx.policy, entitlements } };
  await expect(claimLease(changed, actor, grant, 'orders-readonly')).rejects.toMatchObject({ code: 'policy_changed' });
  expect(await leasesOf(grant)).toMatchObject([{ id: first.lease, state: 'live' }]);
  await endsIn(house, grant, -1);
  expect((await claim(house, grant)).body.code).toBe('grant_not_active');
  expect(asked).toBe(0);
});

test('a role that was edited meanwhile stops it, before the target is asked for anything, and the lease goes on with the end it had', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  house.faults.another = () => Promise.reject(new Error('never asked'));
  const [before] = await leasesOf(grant);
  await house.target.superuser.query(`GRANT UPDATE ON orders TO "${house.target.groupRole}"`);
  try {
    expect((await claim(house, grant)).body.code).toBe('policy_changed');
  } finally {
    await house.target.superuser.query(`REVOKE UPDATE ON orders FROM "${house.target.groupRole}"`);
  }
  expect(await leasesOf(grant)).toMatchObject([{ id: lease, state: 'live', expires_at: before!.expires_at }]);
});

test('invariant 9: the grant is given back while it is made: refused, not shown, and ended with the lease', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  const gate = newGate();
  house.faults.another = async (real) => {
    const issued = await real();
    await gate.pass();
    return issued;
  };
  const claiming = claim(house, grant);
  await gate.arrived;
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  gate.open();
  const answer = await claiming;
  expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 409, code: 'grant_not_active' });
  expect(answer.text).not.toContain('password');
  await until('the lease is gone', async () => (await leasesOf(grant))[0]!.state === 'revoked');
  expect(await rolesAt(house.target)).not.toContainEqual(expect.objectContaining({ lease }));
  expect(count(await eventsOf(house, 'lease_id', lease), 'lease.revealed')).toBe(1);
});

test('the lease ends alone while it is made: lease_conflict, not shown; the next claim makes a new lease', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  house.faults.another = async (real) => {
    const issued = await real();
    await endVanished(house.running.ctx, lease);
    return issued;
  };
  expect((await claim(house, grant)).body.code).toBe('lease_conflict');
  const next = await claimed(house, grant);
  expect(next.lease).not.toBe(lease);
  expect((await leasesOf(grant)).map(({ end_reason }) => end_reason)).toEqual(['vanished', null]);
});

test('a failure at the target never ends the live lease: the code is witnessed, and the lease has the end that it had', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  const soon = inMs(60_000);
  await house.database.superuser.query('UPDATE lease SET expires_at = $2 WHERE id = $1', [lease, soon]);
  for (const nothingMade of [true, false]) {
    house.faults.another = () => Promise.reject(new ProviderError('target_unreachable', 'orders-db is away', { nothingMade }));
    expect((await claim(house, grant)).body.code).toBe('target_unreachable');
    const [row] = await leasesOf(grant);
    expect(row).toMatchObject({ id: lease, state: 'live', end_reason: null });
    // Where something may have been made, the end that covers it stays.
    expect(row!.expires_at).toEqual(nothingMade ? soon : await endOf(grant));
  }
  house.faults.another = () => Promise.reject(new TypeError('a bug'));
  expect((await claim(house, grant)).body.code).toBe('internal');
  expect(await leasesOf(grant)).toMatchObject([{ id: lease, state: 'live' }]);
  expect(await refusals(grant)).toEqual(['target_unreachable', 'target_unreachable', 'internal']);
});

test('what the lease held is gone at the target: it ends as vanished and the same claim makes a new one', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  let asked = 0;
  house.faults.another = () => {
    asked += 1;
    return Promise.reject(new ProviderError('target_failed', 'the binding is gone', { leaseGone: true }));
  };
  const next = await claimed(house, grant);
  expect([asked, next.lease === lease]).toEqual([1, false]);
  expect(await loginAnswer(next)).toBe('let in');
  await until('the first is read back', async () => (await leasesOf(grant))[0]!.state === 'revoked');
  expect(await leasesOf(grant)).toMatchObject([{ end_reason: 'vanished' }, { state: 'live', end_reason: null }]);
  expect(await eventsOf(house, 'lease_id', lease)).toEqual([
    'lease.intended',
    'lease.revealed',
    'lease.again',
    'lease.vanished',
    'lease.ending',
    'lease.cut',
    'lease.revoked',
  ]);
});

test("the lease's end moves forward with the credential that ends last, never back, and stays wide while two are made at once", async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  const setEnd = (at: Date) => house.database.superuser.query('UPDATE lease SET expires_at = $2 WHERE id = $1', [lease, at]);
  const giving = (ms: number): Date => {
    const at = inMs(ms);
    house.faults.another = async (real) => ({ ...(await real()), expiresAt: at });
    return at;
  };
  const earlier = inMs(60_000);
  await setEnd(earlier);
  giving(30_000);
  await claimed(house, grant);
  expect((await leasesOf(grant))[0]!.expires_at).toEqual(earlier);
  const later = giving(120_000);
  expect(new Date((await claimed(house, grant)).expiresAt)).toEqual(later);
  expect((await leasesOf(grant))[0]!.expires_at).toEqual(later);
  giving(24 * 3_600_000);
  expect(new Date((await claimed(house, grant)).expiresAt)).toEqual(await endOf(grant));

  await setEnd(earlier);
  const gate = newGate();
  house.faults.another = async (real) => {
    await gate.pass();
    return { ...(await real()), expiresAt: later };
  };
  const one = claim(house, grant);
  await gate.arrived;
  house.faults.another = async (real) => ({ ...(await real()), expiresAt: later });
  const two = await claim(house, grant);
  gate.open();
  expect([(await one).status, two.status]).toEqual([201, 201]);
  expect((await leasesOf(grant))[0]!.expires_at).toEqual(await endOf(grant));
});

test('claims that come while the lease is being made wait for it and get credentials of it', async () => {
  const { grant } = await granted(house);
  const gate = newGate();
  house.faults.issue = async (real) => {
    await gate.pass();
    return real();
  };
  const first = claim(house, grant);
  await gate.arrived;
  const others = [claim(house, grant), claim(house, grant)];
  await new Promise((done) => setTimeout(done, 300));
  gate.open();
  const answers = await Promise.all([first, ...others]);
  expect(answers.map(({ status }) => status)).toEqual([201, 201, 201]);
  expect(await leasesOf(grant)).toHaveLength(1);
});

test('a claim that never comes to its end is waited for so long and no longer: then it is replaced', async () => {
  const { grant } = await granted(house);
  const gate = newGate();
  let calls = 0;
  house.faults.issue = async (real) => {
    if (calls++ === 0) await gate.pass();
    return real();
  };
  const stuck = claim(house, grant);
  await gate.arrived;
  const began = performance.now();
  const next = await claimed(house, grant);
  expect(performance.now() - began).toBeGreaterThan(4_500);
  expect(performance.now() - began).toBeLessThan(8_000);
  gate.open();
  expect((await stuck).body.code).toBe('lease_conflict');
  expect((await leasesOf(grant)).map(({ id, end_reason }) => [id === next.lease, end_reason])).toEqual([
    [false, 'replaced'],
    [true, null],
  ]);
});

test("a lease that is over before its grant is ended by the sweep, whatever its kind; in its grant's last seconds it is left to that", async () => {
  const [over, last] = [await granted(house), await granted(house)];
  const leases = [await claimed(house, over.grant), await claimed(house, last.grant)];
  await house.database.superuser.query("UPDATE access_grant SET ends_at = now() + interval '4 s' WHERE id = $1", [last.grant]);
  await house.database.superuser.query('UPDATE lease SET expires_at = now() WHERE id = ANY ($1)', [leases.map(({ lease }) => lease)]);
  await sweepStartsAndLapses(house.running.ctx);
  expect(await leasesOf(over.grant)).toMatchObject([{ end_reason: 'expired' }]);
  expect(await leasesOf(last.grant)).toMatchObject([{ state: 'live', end_reason: null }]);
  await until('its grant ended it', async () => (await leasesOf(last.grant))[0]!.state === 'revoked', 15_000);
  expect(await eventsOf(house, 'grant_id', last.grant)).toEqual(expect.arrayContaining(['grant.expired', 'grant.ended']));
});

test('leases that the version before left side by side: the newest is claimed again, the others end by themselves', async () => {
  const { grant } = await granted(house);
  const { lease } = await claimed(house, grant);
  await house.database.superuser.query('UPDATE lease SET may_overlap = true WHERE id = $1', [lease]);
  const copy = (id: string) =>
    house.database.superuser.query(
      `INSERT INTO lease (id, grant_id, entitlement, target, kind, state, external_name, target_grant, may_overlap, handle, expires_at, revealed_at)
       SELECT $2, grant_id, entitlement, target, kind, state, 'hg_' || $2::text, target_grant, true, handle, now() + interval '30 s', revealed_at FROM lease WHERE id = $1`,
      [lease, id],
    );
  const older = `lse_${'0'.repeat(32)}`;
  await copy(older);
  expect((await claimed(house, grant)).lease).toBe(lease);
  expect(await leasesOf(grant)).toMatchObject([
    { id: older, state: 'live' },
    { id: lease, state: 'live' },
  ]);
});
