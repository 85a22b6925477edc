/** Invariant 11: an application clock that is wrong by ten minutes, or is set while we run, changes no decision. */

import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { type ChildServer, startChild } from '../support/child-server.ts';
import { apiOf, type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { ask, type ClaimedAnswer, connectWith, granted, loginAnswer } from '../support/house-verbs.ts';

let house: House | undefined;
let child: ChildServer | undefined;
afterEach(async () => {
  await child?.stop();
  child = undefined;
  await house?.close();
  house = undefined;
  delete process.env['HALLIGAN_TEST_CLOCK_SHIFT_MS'];
});

const shiftFile = fileURLToPath(new URL('../support/clock-shift.mjs', import.meta.url));
const shifts = [
  ['ten minutes ahead', 600_000],
  ['ten minutes behind', -600_000],
] as const;

test.each(shifts)(
  'invariant 11: with a clock %s, grants open, are claimed and end by Postgres’ time',
  async (_, shift) => {
    house = await startTestHouse({ worker: false });
    const { superuser } = house.database;
    await house.tokenOf('oncall');
    await house.tokenOf('lead');
    // Left in the outbox by the first server: what the second one finds when it starts.
    const waiting = await granted(house, { duration: '8s' });
    const issued = (await (await house.apiAs('oncall')).post<ClaimedAnswer>(`/grants/${waiting.grant}/leases`, { entitlement: 'orders-readonly' })).body;
    const lapses = await ask(house);
    const decidable = await ask(house);
    await superuser.query(`UPDATE request SET lapses_at = now() - interval '1 s' WHERE id = $1`, [lapses.id]);
    await superuser.query(`UPDATE request SET lapses_at = now() + interval '60 s' WHERE id = $1`, [decidable.id]);
    await house.stop();

    process.env['HALLIGAN_TEST_CLOCK_SHIFT_MS'] = String(shift);
    child = await startChild(house, [shiftFile]);
    const session = await connectWith(issued);
    const cut = new Promise<number>((resolve) => session.once('end', () => resolve(Date.now())));
    const lead = apiOf(house.url, await house.tokenOf('lead'));
    const oncall = apiOf(house.url, await house.tokenOf('oncall'));

    const late = await lead.post(`/requests/${lapses.id}/decisions`, { decision: 'approve', reason: 'r', seen: lapses.seen });
    expect(['request_lapsed']).toContain(late.body.code);
    const decided = await lead.post<{ grant: { id: string; startsAt: string; endsAt: string } }>(`/requests/${decidable.id}/decisions`, {
      decision: 'approve',
      reason: 'r',
      seen: decidable.seen,
    });
    expect(decided.status).toBe(200);
    expect(Math.abs(Date.parse(decided.body.grant.startsAt) - Date.now())).toBeLessThan(5_000);
    const claimed = await oncall.post<ClaimedAnswer>(`/grants/${decided.body.grant.id}/leases`, { entitlement: 'orders-readonly' });
    expect(claimed.status).toBe(201);
    expect(claimed.body.expiresAt).toBe(decided.body.grant.endsAt);
    expect(await loginAnswer(claimed.body)).toBe('let in');
    const startsInAMinute = await oncall.post('/requests', {
      entitlements: ['orders-readonly'],
      duration: '5m',
      reason: 'later',
      startAt: new Date(Date.now() + 60_000).toISOString(),
    });
    expect(startsInAMinute.status).toBe(201);

    const [row] = (await superuser.query<{ ends_at: Date }>('SELECT ends_at FROM access_grant WHERE id = $1', [waiting.grant])).rows;
    const late2 = (await cut) - row!.ends_at.getTime();
    console.log(`clock ${shift / 60_000} min: due → cut ${late2} ms`);
    expect(late2).toBeGreaterThanOrEqual(-50);
    expect(late2).toBeLessThan(5_000);
    expect(await loginAnswer(claimed.body)).toBe('let in');
    await oncall.post(`/grants/${decided.body.grant.id}/return`);
    await until('both logins are gone', async () => (await rolesAt(house!.target)).length === 0);
  },
  60_000,
);

/**
 * The story of a bug: the queue took Postgres' time for the wall clock and a difference measured at the last sweep. When
 * the clock was set back ten minutes between two sweeps, the job of a new grant got a timer ten minutes too long; every
 * later hint was dropped as a repetition, and the grant outlived its end by ten minutes.
 */
test('invariant 11: with a clock set back ten minutes while it runs, a grant opened just then ends on time', async () => {
  house = await startTestHouse({ server: 'none' });
  child = await startChild(house, [shiftFile]);
  for (const person of ['oncall', 'lead']) await house.tokenOf(person);
  process.kill(child.pid, 'SIGUSR2');
  await until('the clock is set', () => child?.output().includes('stepped'));
  const { grant } = await granted(house, { duration: '3s' });
  const issued = (await (await house.apiAs('oncall')).post<ClaimedAnswer>(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' })).body;
  const session = await connectWith(issued);
  const cut = new Promise<number>((resolve) => session.once('end', () => resolve(Date.now())));
  const late = (await cut) - Date.parse(issued.expiresAt);
  console.log(`clock stepped back: due → cut ${late} ms`);
  expect(late).toBeGreaterThanOrEqual(-50);
  expect(late).toBeLessThan(5_000);
  await until('the login is gone', async () => (await rolesAt(house!.target)).length === 0);
}, 30_000);
