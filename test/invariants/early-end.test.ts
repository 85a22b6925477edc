/**
 * Invariants 6 and 9: ending access early wins over a claim that is under way, whichever comes first at the target, and
 * a revocation never gives up, however often, in whatever order and by however many it is tried.
 */
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Issued, ProviderError } from '../../src/domain/provider.ts';
import { openDesk, runRevokeLease } from '../../src/workers/revoke-lease.ts';
import { type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { type ClaimedAnswer, claim, claimed, connectWith, eventsOf, granted, loginAnswer } from '../support/house-verbs.ts';
import { newGate } from '../support/provider-double.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse();
});
afterAll(() => house?.close());
/** What stands in the way of the claims of one grant, so that tests of several can run side by side. */
const inTheWay = new Map<string, (real: () => Promise<Issued>) => Promise<Issued>>();
const clearFaults = (): void => {
  house.faults.issue = (real, spec) => (inTheWay.get(spec.grantId) ?? ((go) => go()))(real);
  house.faults.revoke = undefined;
};
beforeAll(clearFaults);
afterEach(clearFaults);

const within = () => AbortSignal.timeout(15_000);
const leaseRow = async (id: string) =>
  (await house.database.superuser.query<{ state: string; epoch: number; tries: number; revealed_at: Date | null }>('SELECT * FROM lease WHERE id = $1', [id]))
    .rows[0]!;
const leasesOf = async (grant: string) =>
  (
    await house.database.superuser.query<{ id: string; state: string; end_reason: string | null }>(
      'SELECT id, state, end_reason FROM lease WHERE grant_id = $1 ORDER BY id',
      [grant],
    )
  ).rows;

/** Pauses the claim before or after the login was made, ends the grant, lets the claim go on. */
async function endDuringClaim(pause: 'before' | 'after', end: (grant: string) => Promise<number>): Promise<void> {
  const { grant } = await granted(house);
  const gate = newGate();
  inTheWay.set(grant, async (real) => {
    if (pause === 'before') await gate.pass();
    const issued = await real();
    if (pause === 'after') await gate.pass();
    return issued;
  });
  const claiming = claim(house, grant);
  await gate.arrived;
  expect(await end(grant)).toBe(200);
  // The worker may look at the target before the login is there: that must not be taken for the end.
  await new Promise((resolve) => setTimeout(resolve, 150));
  gate.open();
  const answer = await claiming;
  expect({ status: answer.status, code: answer.body.code }).toEqual({ status: 409, code: 'grant_not_active' });
  expect(answer.text).not.toContain('password');
  const [lease] = await leasesOf(grant);
  await until('the login is gone from the target', async () => !(await rolesAt(house.target)).some((role) => role.lease === lease!.id), 15_000);
  await until('the lease is revoked', async () => (await leaseRow(lease!.id)).state === 'revoked', 15_000);
  expect((await leaseRow(lease!.id)).revealed_at).toBeNull();
  expect(await eventsOf(house, 'grant_id', grant)).not.toContain('lease.revealed');
  await until('the grant ended', async () => (await eventsOf(house, 'grant_id', grant)).at(-1) === 'grant.ended', 15_000);
}

const byHolder = async (grant: string) => (await (await house.apiAs('oncall')).post(`/grants/${grant}/return`)).status;
const byLead = async (grant: string) => (await (await house.apiAs('lead')).post(`/grants/${grant}/revoke`, { reason: 'not now' })).status;

// Each waits nine seconds for a claim that can make nothing any more: side by side.
describe.concurrent('a claim that is under way', () => {
  test('invariant 9: returned while the login is being made: refused, destroyed, never shown', () => endDuringClaim('before', byHolder), 30_000);
  test('invariant 9: revoked after the login was made and before it is shown: refused, destroyed, never shown', () => endDuringClaim('after', byLead), 30_000);

  test('invariant 9: a claim replaced while its login is made is refused, and only the newer one lives', async () => {
    const { grant } = await granted(house);
    const gate = newGate();
    let first = true;
    inTheWay.set(grant, async (real) => {
      if (!first) return real();
      first = false;
      const issued = await real();
      await gate.pass();
      return issued;
    });
    const slow = claim(house, grant);
    await gate.arrived;
    const quick = await claimed(house, grant);
    gate.open();
    const lost = await slow;
    expect({ status: lost.status, code: lost.body.code }).toEqual({ status: 409, code: 'lease_conflict' });
    expect(await loginAnswer(quick)).toBe('let in');
    await until('one login is left', async () => (await leasesOf(grant)).every((lease) => lease.id === quick.lease || lease.state === 'revoked'), 15_000);
    expect((await leasesOf(grant)).map((lease) => lease.end_reason)).toEqual(['replaced', null]);
    expect((await leaseRow(quick.lease)).state).toBe('live');
  }, 30_000);
});

test('invariant 9: whatever the order of two claims, an end and their steps at the target, nothing lives after the end', async () => {
  const seed = Number(process.env['HALLIGAN_SEED'] ?? Date.now() % 1_000_000);
  console.log(`seed ${seed}`);
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), async (scheduler) => {
      const { grant } = await granted(house);
      inTheWay.set(grant, async (real) => {
        await scheduler.schedule(Promise.resolve(), 'before the login is made');
        const issued = await real();
        await scheduler.schedule(Promise.resolve(), 'before it is shown');
        return issued;
      });
      const steps = [
        scheduler.schedule(Promise.resolve(), 'claim 1').then(() => claim(house, grant)),
        scheduler.schedule(Promise.resolve(), 'claim 2').then(() => claim(house, grant)),
        scheduler.schedule(Promise.resolve(), 'end').then(() => byHolder(grant)),
      ];
      await scheduler.waitFor(Promise.all(steps));
      expect(await steps[2]).toBe(200);
      for (const step of steps.slice(0, 2)) {
        const answer = (await step) as Awaited<ReturnType<typeof claim>>;
        if (answer.status === 201) {
          await until('it is refused at the target', async () => (await loginAnswer(answer.body as ClaimedAnswer)) === '28P01');
        } else expect(['grant_not_active', 'lease_conflict', 'conflict']).toContain(answer.body.code);
      }
      const ids = new Set((await leasesOf(grant)).map((lease) => lease.id));
      await until('nothing of it is at the target', async () => !(await rolesAt(house.target)).some((role) => ids.has(role.lease)), 15_000);
      expect((await leasesOf(grant)).every((lease) => ['revoking', 'revoked', 'void'].includes(lease.state))).toBe(true);
    }),
    { seed, numRuns: 12, interruptAfterTimeLimit: 25_000, markInterruptAsFailure: false },
  );
}, 60_000);

test('invariant 6: a target that fails three times is tried again until it works, and meanwhile shown as overdue', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  let failures = 0;
  house.faults.revoke = async (real, ref) => {
    if (ref.leaseId === issued.lease && failures < 3) {
      failures++;
      throw new ProviderError('target_unreachable', 'orders-db could not be reached (a test said so).');
    }
    return real();
  };
  expect(await byLead(grant)).toBe(200);
  const api = await house.apiAs('lead');
  const overdue = await until('it is overdue', async () => {
    const { body } = await api.get<{ items: { id: string; overdue: boolean; state: string; leases: { tries: number; lastError: string }[] }[] }>(
      '/grants?state=open',
    );
    return body.items.find((item) => item.id === grant && item.overdue);
  });
  expect(overdue).toMatchObject({
    state: 'ending',
    leases: [{ state: 'revoking', overdue: true, lastError: 'orders-db could not be reached (a test said so).' }],
  });
  await until('it is revoked', async () => (await leaseRow(issued.lease)).state === 'revoked', 20_000);
  expect(await eventsOf(house, 'lease_id', issued.lease)).toEqual([
    'lease.intended',
    'lease.revealed',
    'lease.ending',
    'lease.revocation-failed',
    'lease.revocation-failed',
    'lease.revocation-failed',
    'lease.cut',
    'lease.revoked',
  ]);
  expect(await loginAnswer(issued)).toBe('28P01');
}, 40_000);

test('invariant 6: the hundredth failure waits five minutes and not longer, and the job is still on its way', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  house.faults.revoke = async () => {
    throw new ProviderError('target_failed', 'not yet');
  };
  await byHolder(grant);
  await until('the first failure', async () => (await leaseRow(issued.lease)).tries > 0);
  await house.database.superuser.query(`UPDATE lease SET tries = 100, next_try_at = now() WHERE id = $1`, [issued.lease]);
  const { epoch } = await leaseRow(issued.lease);
  await runRevokeLease(house.running.ctx, openDesk(house.running.ctx), issued.lease, epoch, within());
  const { rows } = await house.database.superuser.query<{ wait: number }>(
    'SELECT extract(epoch FROM next_try_at - now())::float8 AS wait FROM lease WHERE id = $1',
    [issued.lease],
  );
  expect(rows[0]!.wait).toBeGreaterThan(290);
  expect(rows[0]!.wait).toBeLessThanOrEqual(300);
  house.faults.revoke = undefined;
  await house.database.superuser.query(`UPDATE lease SET next_try_at = now() WHERE id = $1`, [issued.lease]);
  await until('it is revoked', async () => (await leaseRow(issued.lease)).state === 'revoked');
}, 30_000);

test('invariant 6: an error that is no refusal of the target is retried too, and does not stay unseen', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  let failures = 0;
  house.faults.revoke = async (real) => {
    if (failures++ < 2) throw new TypeError('a bug in a provider');
    return real();
  };
  await byHolder(grant);
  await until('it is revoked all the same', async () => (await leaseRow(issued.lease)).state === 'revoked', 15_000);
  expect(house.logged.join('')).toContain('a bug in a provider');
  expect(await eventsOf(house, 'lease_id', issued.lease)).toContain('lease.revocation-failed');
}, 30_000);

test('invariant 6: revoking twice, in parallel, late and by an old epoch changes nothing more', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const session = await connectWith(issued);
  await byHolder(grant);
  const { ctx } = house.running;
  await Promise.all(Array.from({ length: 6 }, (_, index) => runRevokeLease(ctx, openDesk(ctx), issued.lease, 1 + (index % 3), within())));
  await until('it is revoked', async () => (await leaseRow(issued.lease)).state === 'revoked');
  const { epoch } = await leaseRow(issued.lease);
  for (const late of [0, 1, 2, epoch]) await runRevokeLease(ctx, openDesk(ctx), issued.lease, late, within());
  const types = await eventsOf(house, 'lease_id', issued.lease);
  expect(types.filter((type) => type === 'lease.revoked')).toHaveLength(1);
  expect(types.filter((type) => type === 'lease.cut')).toHaveLength(1);
  await session.end().catch(() => undefined);
});

test('invariant 6: a forged job for a live lease ends nothing', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const { epoch } = await leaseRow(issued.lease);
  await runRevokeLease(house.running.ctx, openDesk(house.running.ctx), issued.lease, epoch, within());
  expect(await loginAnswer(issued)).toBe('let in');
});

test('invariant 6: ending one grant never touches the login or the session of another', async () => {
  const [mine, other] = [await granted(house), await granted(house, { by: 'oncall-2' })];
  const [ending, staying] = [await claimed(house, mine.grant), await claimed(house, other.grant, 'oncall-2')];
  const session = await connectWith(staying);
  await byHolder(mine.grant);
  await until('the one is gone', async () => (await leaseRow(ending.lease)).state === 'revoked');
  expect((await session.query('SELECT count(*)::int AS n FROM orders')).rows).toEqual([{ n: 40 }]);
  expect(await loginAnswer(staying)).toBe('let in');
  expect(await loginAnswer(ending)).toBe('28P01');
  await session.end();
});

test('invariant 7: access that is cut is recorded and shown as cut, although the clean-up failed', async () => {
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const cutAt = new Date(Math.floor(Date.now() / 1_000) * 1_000);
  let failures = 0;
  house.faults.revoke = async (real, ref) => {
    if (ref.leaseId !== issued.lease || failures++ > 0) return real();
    throw new ProviderError('target_forbids', 'orders-db: the clean-up failed.', { cut: { at: cutAt, sessionsCut: 2 } });
  };
  expect(await byHolder(grant)).toBe(200);
  const shown = await until('it is shown as cut', async () => {
    const { body } = await (await house.apiAs('oncall')).get<{ leases: { cutAt: string | null; state: string }[] }>(`/grants/${grant}`);
    return body.leases[0]?.cutAt && body.leases[0];
  });
  expect(shown).toMatchObject({ cutAt: cutAt.toISOString(), state: 'revoking' });
  await until('it is revoked', async () => (await leaseRow(issued.lease)).state === 'revoked');
  expect(await eventsOf(house, 'lease_id', issued.lease)).toEqual([
    'lease.intended',
    'lease.revealed',
    'lease.ending',
    'lease.cut',
    'lease.revocation-failed',
    'lease.revoked',
  ]);
});
