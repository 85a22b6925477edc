/** A target that does not answer costs one try every few seconds, keeps nothing else from ending, and loses nothing. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { retryNow } from '../../src/commands/retry-now.ts';
import { ProviderError } from '../../src/domain/provider.ts';
import { type House, startTestHouse, until } from '../support/house.ts';
import { claimed, granted } from '../support/house-verbs.ts';
import { addLeases, leftOpen } from '../support/many-leases.ts';

/** So many tries are under way at once at a PostgreSQL target. */
const places = 32;
let house: House;
let calls: number[] = [];
beforeAll(async () => {
  house = await startTestHouse();
  // The first request and login of a person; rows of many leases are made for them.
  const { grant } = await granted(house);
  await claimed(house, grant);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  await until('it is gone', async () => (await leftOpen(house.database.superuser)) === 0);
});
afterAll(() => house?.close());
afterEach(async () => {
  house.faults.revoke = undefined;
  await until('the lane is open', () => house.running.workers!.lostTargets().length === 0, 20_000);
  await house.database.superuser.query(`UPDATE lease SET next_try_at = now() WHERE state = 'revoking'`);
  await until('nothing is left', async () => (await leftOpen(house.database.superuser)) === 0, 20_000);
});

const codes = (): string[] => house.logged.map((line) => (JSON.parse(line) as { code: string }).code).filter((code) => /^target_(lost|back)$/.test(code));
const away = (code: 'target_unreachable' | 'target_failed' = 'target_unreachable'): void => {
  calls = [];
  house.faults.revoke = async () => {
    calls.push(performance.now());
    throw new ProviderError(code, 'orders-db: nobody is there.');
  };
};

test('two hundred leases of a target that is away: one try at a time, each change said once, all done soon after its return, with few calls', async () => {
  house.logged.length = 0;
  away();
  await addLeases(house.database.superuser, { target: 'orders-db', count: 200 });
  await until('it is lost', () => codes().length === 1, 15_000);
  // What had begun before comes to its end.
  await new Promise((resolve) => setTimeout(resolve, 200));
  const before = calls.length;
  expect(before).toBeLessThanOrEqual(places + 6);
  await new Promise((resolve) => setTimeout(resolve, 9_000));
  expect(calls.length - before).toBeGreaterThanOrEqual(2);
  expect(calls.length - before).toBeLessThanOrEqual(6);
  const { warnings } = await house.running.health();
  expect(warnings).toMatchObject([{ code: 'target_lost', message: expect.stringMatching(/^orders-db has not answered since .* nobody is there/) as string }]);
  // As it stands after two hours: each was tried, and its next try is minutes away.
  await house.database.superuser.query(
    `UPDATE lease SET tries = 20, last_error = 'orders-db: nobody is there.', next_try_at = now() + interval '290 s', epoch = epoch + 1 WHERE state = 'revoking'`,
  );
  const failed = calls.length;
  let answered = 0;
  house.faults.revoke = (real) => {
    answered++;
    return real();
  };
  const back = performance.now();
  await until('all are done', async () => (await leftOpen(house.database.superuser)) === 0, 60_000);
  console.log(`200 leases done ${Math.round(performance.now() - back)} ms after the target's return; ${failed} tries while it was away, ${answered} after`);
  expect(failed + answered).toBeLessThanOrEqual(400);
  expect(codes()).toEqual(['target_lost', 'target_back']);
}, 120_000);

test('a target that answers with errors is not lost', async () => {
  house.logged.length = 0;
  away('target_failed');
  await addLeases(house.database.superuser, { target: 'orders-db', count: 10 });
  await until('each was tried', () => calls.length >= 10);
  expect(codes()).toEqual([]);
});

test('a call that does not heed its signal counts as silence, and is written down', async () => {
  house.logged.length = 0;
  calls = [];
  house.faults.revoke = () => {
    calls.push(performance.now());
    return new Promise(() => undefined);
  };
  await addLeases(house.database.superuser, { target: 'orders-db', count: 80 });
  await until('it is lost', () => codes().length === 1, 30_000);
  expect(calls.length).toBeLessThanOrEqual(places + 4);
  const { rows } = await house.database.superuser.query<{ last_error: string }>(`SELECT last_error FROM lease WHERE state = 'revoking' AND tries > 0`);
  expect(rows.length).toBeGreaterThanOrEqual(3);
  expect(rows[0]?.last_error).toContain('did not answer in time');
  house.faults.revoke = undefined;
  await until('all are done', async () => (await leftOpen(house.database.superuser)) === 0, 60_000);
}, 120_000);

test('only what failed is brought forward: what waits for proof, another target’s, and what is due stay as they are', async () => {
  await house.stop();
  await house.start({ worker: false });
  try {
    const ids = await addLeases(house.database.superuser, { target: 'orders-db', count: 5 });
    const far = `now() + interval '200 s'`;
    const set = (index: number, what: string) => house.database.superuser.query(`UPDATE lease SET ${what} WHERE id = $1`, [ids[index]]);
    await set(0, `next_try_at = ${far}, last_error = 'away'`);
    await set(1, `next_try_at = ${far}, last_error = NULL`);
    await set(2, `next_try_at = ${far}, last_error = 'away', target = 'elsewhere'`);
    await set(3, `next_try_at = now() - interval '5 s', last_error = 'away'`);
    const epochs = async () =>
      (await house.database.superuser.query<{ epoch: number }>('SELECT epoch FROM lease WHERE id = ANY ($1) ORDER BY array_position($1, id)', [ids])).rows.map(
        ({ epoch }) => epoch,
      );
    const before = await epochs();
    expect(await retryNow(house.running.ctx, 'orders-db')).toBe(1);
    expect((await epochs()).map((epoch, index) => epoch - (before[index] ?? 0))).toEqual([1, 0, 0, 0, 0]);
    expect((await house.database.superuser.query(`SELECT FROM lease WHERE id = $1 AND state = 'revoking' AND next_try_at <= now()`, [ids[0]])).rowCount).toBe(
      1,
    );
    await set(2, `target = 'orders-db'`);
  } finally {
    await house.stop();
    await house.start();
  }
});
