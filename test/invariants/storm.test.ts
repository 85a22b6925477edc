/** A thousand grants that end at one instant, with real logins at ten targets of which one hangs (npm run test:live -- --only redis: ten thousand). */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type House, startTestHouse, until } from '../support/house.ts';
import { gatherStorm, hungLot, loginsLeft, lots, measure, quantile, tenTargets, untilNoneOpen, watchApi } from '../support/storm.ts';

const count = 1_000;
const ten = tenTargets();
let house: House;
beforeAll(async () => {
  house = await startTestHouse({ ...ten.options });
  await (await house.apiAs('oncall')).get('/grants');
});
afterAll(async () => {
  ten.proxy().set('pass');
  await house?.close();
  await ten.proxy().close();
});

test('invariants 2, 6 and 26: the healthy nine are cut within 60 s, the API answers, nothing is lost, and the hung one is done within 60 s of its return', async () => {
  const storm = await gatherStorm(house, count, 5_000);
  const { endsAt } = storm;
  ten.proxy().set('hang');
  const stopWatching = await watchApi(house);
  const healthy = lots.filter((name) => name !== hungLot);
  await untilNoneOpen(house, healthy, 90_000);
  const done = Date.now() - endsAt.getTime();
  const api = await stopWatching();
  const { cutMs, revoked, due } = await measure(house, storm, healthy);
  console.log(
    `${due} at nine targets: p50 ${quantile(cutMs, 0.5)} ms, p99 ${quantile(cutMs, 0.99)} ms from due to cut, all read back as gone after ${done} ms; ` +
      `${api.length} calls of the API, p99 ${Math.round(quantile(api, 0.99))} ms`,
  );
  expect([cutMs.length, revoked]).toEqual([due, due]);
  expect(quantile(cutMs, 0.99)).toBeLessThan(60_000);
  // The goal is 500 ms, which is printed; on a machine that does something else as well, this much shows that nobody is starved.
  expect(quantile(api, 0.99)).toBeLessThan(2_000);
  expect((await measure(house, storm, [hungLot])).revoked).toBe(0);
  await until('the hung one is known to be lost', () => house.running.workers!.lostTargets().some(({ target }) => target === hungLot), 40_000);

  ten.proxy().set('pass');
  const back = Date.now();
  await untilNoneOpen(house, lots, 60_000);
  console.log(`the hung one's ${count / 10} were done ${Date.now() - back} ms after its return`);
  expect(await loginsLeft(house, [...storm.leases.values()].flat())).toBe(0);
}, 240_000);
