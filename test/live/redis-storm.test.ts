/** Ten thousand grants that end at one instant, with real logins at ten targets of which one hangs, the queue on Redis, and Redis emptied with all of them pending. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type House, startTestHouse, until } from '../support/house.ts';
import { gatherStorm, hungLot, loginsLeft, lots, measure, quantile, tenTargets, untilNoneOpen, watchApi } from '../support/storm.ts';
import { type RedisServer, startRedis } from './servers/redis.ts';

const count = Number(process.env['STORM_COUNT'] ?? 10_000);
const prefix = `storm-${process.pid}`;
const ten = tenTargets();
let redis: RedisServer;
let house: House;
beforeAll(async () => {
  redis = await startRedis();
  house = await startTestHouse({ ...ten.options, server: 'none', tell: `redis: { url: '${redis.url}', passwordFile: redis-password, prefix: '${prefix}' }` });
  await writeFile(join(house.folder, 'redis-password'), `${redis.password}\n`, { mode: 0o600 });
  await house.start({ worker: false });
  await (await house.apiAs('oncall')).get('/grants');
  await house.stop();
});
afterAll(async () => {
  ten.proxy().set('pass');
  await house?.close();
  await ten.proxy().close();
  await redis?.stop();
});
const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;

test(`FLUSHALL with ${count} pending: revoked ÷ due = 1.000; one target of ten hangs, and the other nine and the API do not feel it`, async () => {
  const storm = await gatherStorm(house, count, 60_000);
  const { endsAt } = storm;
  ten.proxy().set('hang');
  await house.start();
  await until('all are pending in Redis', async () => (await redis.client.zcard(`${prefix}:{expiry}:delayed`)) === count, 60_000);
  await redis.client.flushall();
  const flushed = Date.now();
  expect(flushed).toBeLessThan(endsAt.getTime());
  const stopWatching = await watchApi(house);
  const healthy = lots.filter((name) => name !== hungLot);
  await untilNoneOpen(house, healthy, 900_000);
  const done = Date.now() - endsAt.getTime();
  const api = await stopWatching();
  const { cutMs, endingMs, due } = await measure(house, storm, healthy);
  console.log(
    `emptied ${seconds(endsAt.getTime() - flushed)} before they were due. ${due} at nine targets: begun p50 ${seconds(quantile(endingMs, 0.5))}, p99 ${seconds(quantile(endingMs, 0.99))}; p50 ${seconds(quantile(cutMs, 0.5))}, p99 ${seconds(quantile(cutMs, 0.99))} from due to cut, ` +
      `all read back as gone after ${seconds(done)}, ${Math.round((due / done) * 1_000)} a second; ${api.length} calls of the API, p99 ${Math.round(quantile(api, 0.99))} ms`,
  );
  expect(cutMs.length).toBe(due);
  // The goal is 500 ms, which is printed; on a machine that does something else as well, this much shows that nobody is starved.
  expect(quantile(api, 0.99)).toBeLessThan(2_000);
  // All may be over before the first of its tries is.
  await until('the hung one counts as lost', async () => house.running.workers?.lostTargets().some(({ target }) => target === hungLot), 60_000);
  expect(house.running.workers?.lostTargets().map(({ target }) => target)).toEqual([hungLot]);

  ten.proxy().set('pass');
  const back = Date.now();
  await untilNoneOpen(house, lots, 300_000);
  console.log(`the hung one's ${count / 10} were done ${seconds(Date.now() - back)} after its return`);
  const all = await measure(house, storm, lots);
  expect(all.revoked / all.due).toBe(1);
  expect(await loginsLeft(house, [...storm.leases.values()].flat())).toBe(0);
}, 1_500_000);
