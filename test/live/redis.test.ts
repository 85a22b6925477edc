/** The queue on Redis against a real one: the contract of the port, on one server and on a cluster, and what several processes do with one queue. */
import { randomUUID } from 'node:crypto';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { bullQueue } from '../../src/queue/bullmq.ts';
import { openRedis, type RedisSettings } from '../../src/queue/redis.ts';
import { until } from '../support/house.ts';
import { queueConformance } from '../support/queue-conformance.ts';
import { job, openUnderTest, settingsOf, strangerAt, type UnderTest } from './redis-support.ts';
import { type RedisServer, startRedis } from './servers/redis.ts';

let redis: RedisServer;
let cluster: RedisServer;
beforeAll(async () => {
  redis = await startRedis();
  cluster = await startRedis(['--cluster-enabled', 'yes', '--cluster-announce-ip', '127.0.0.1']);
  await cluster.client.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
  await until('the cluster is ready', async () => String(await cluster.client.cluster('INFO')).includes('cluster_state:ok'));
});
afterAll(async () => {
  await redis?.stop();
  await cluster?.stop();
});

const open: UnderTest[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.stop();
});
const opened = async (...args: Parameters<typeof openUnderTest>): Promise<UnderTest> => {
  const one = await openUnderTest(...args);
  open.push(one);
  return one;
};

for (const [name, settings] of [
  ['BullMQ on Redis', () => settingsOf(redis)],
  ['BullMQ on a Redis Cluster', () => settingsOf(cluster, { cluster: [] })],
] as const)
  queueConformance(name, async (parts) => {
    const link = await openRedis((settings as () => RedisSettings)(), { say: () => undefined });
    // Without Redis this queue would keep the contract too, in memory.
    expect(link.up()).toBe(true);
    return { queue: bullQueue({ ...parts, now: () => Date.now(), say: () => undefined, link }), close: async () => expect(link.warnings()).toEqual([]) };
  });

test('processes share the work, and a job that both put in runs once', async () => {
  const settings = settingsOf(redis);
  const work = () => new Promise<void>((resolve) => setTimeout(resolve, 5));
  const both = [await opened(settings, { work }), await opened(settings, { work })] as const;
  const jobs = Array.from({ length: 200 }, (_, n) => job(`j${n}`, { lane: 'target:orders', kind: 'revoke-lease', dueAt: new Date(Date.now() + 300) }));
  await Promise.all(both.map(async ({ queue }) => Promise.all(jobs.map((one) => queue.add(one)))));
  for (const one of both) one.sweep(jobs);
  await until('all ran', () => both[0].ran.length + both[1].ran.length >= 200);
  await new Promise((resolve) => setTimeout(resolve, 500));
  expect([...both[0].ran, ...both[1].ran].toSorted()).toEqual(jobs.map((one) => one.id).toSorted());
  expect(Math.min(both[0].ran.length, both[1].ran.length)).toBeGreaterThan(20);
  // What the other one did is forgotten as well.
  expect(both[0].link.warnings()).toEqual([]);
});

test.for(['completed', 'failed'] as const)('a %s job that was kept with the same id does not swallow new work', async (state) => {
  const settings = settingsOf(redis);
  const bull = strangerAt(redis, settings.prefix);
  const left = job('again', { dueAt: new Date() });
  await bull.add('grant-due', { subject: 'again', epoch: 0, due: 0 }, { jobId: left.id, removeOnComplete: false, removeOnFail: false });
  const { Worker } = await import('bullmq');
  const stranger = new Worker(bull.name, async () => (state === 'failed' ? Promise.reject(new Error('no')) : null), {
    connection: redis.client.duplicate(),
    prefix: settings.prefix,
  });
  await until('it is kept', async () => (await bull.getJobState(left.id)) === state);
  await stranger.close();
  const { ran, sweep, queue } = await opened(settings);
  await queue.add(left);
  sweep([left]);
  await until('it ran', () => ran.length === 1, 5_000);
  await until('nothing is left', async () => (await bull.getJobState(left.id)) === 'unknown');
});

test('invariant 11: a machine whose clock is an hour ahead makes nothing early, and nothing late for the others', async () => {
  const settings = settingsOf(redis);
  const bull = strangerAt(redis, settings.prefix);
  const { ran, ranAt, sweep } = await opened(settings);
  const [late, early] = [job('late', { dueAt: new Date(Date.now() + 500) }), job('early', { dueAt: new Date(Date.now() + 700) })];
  await bull.add('grant-due', { subject: 'late', epoch: 0, due: late.dueAt.getTime() }, { jobId: late.id, delay: 3_600_000 });
  await bull.add('grant-due', { subject: 'early', epoch: 0, due: early.dueAt.getTime() }, { jobId: early.id });
  sweep([late, early]);
  await until('both ran', () => ran.length === 2, 6_000);
  for (const [index, id] of ran.entries()) {
    const { dueAt } = id === late.id ? late : early;
    expect(ranAt[index]! - dueAt.getTime()).toBeGreaterThanOrEqual(0);
    expect(ranAt[index]! - dueAt.getTime()).toBeLessThan(4_000);
  }
});

test('a process that vanishes with a job loses it to another', async () => {
  const settings = settingsOf(redis);
  const gone = await opened(settings, { work: () => new Promise(() => undefined) });
  const stuck = job('stuck');
  await gone.queue.add(stuck);
  await until('it runs', () => gone.ran.length === 1);
  await gone.stop(0);
  const other = await opened(settings, { queuePatienceMs: 300_000 });
  other.sweep([stuck]);
  await until('the other one runs it', () => other.ran.length === 1, 60_000);
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(other.ran).toEqual([stuck.id]);
}, 90_000);

test('two databases with prefixes of their own do not meet', async () => {
  const [one, two] = [await opened(settingsOf(redis, { prefix: `one-${randomUUID()}` })), await opened(settingsOf(redis, { prefix: `two-${randomUUID()}` }))];
  await one.queue.add(job('mine'));
  await until('it ran', () => one.ran.length === 1);
  expect(two.ran).toEqual([]);
});

test('all keys of a lane are in one slot of a cluster, and a job holds ids, an epoch and a time', async () => {
  const settings = settingsOf(cluster, { cluster: [] });
  const { queue } = await opened(settings);
  await queue.add(job('far', { dueAt: new Date(Date.now() + 60_000), lane: 'target:orders-db', kind: 'revoke-lease', epoch: 3 }));
  const keys = await cluster.client.keys(`${settings.prefix}:{*`);
  expect(keys.length).toBeGreaterThan(2);
  for (const key of keys) expect(key.startsWith(`${settings.prefix}:{target.orders-db}:`)).toBe(true);
  expect(await cluster.client.hget(`${settings.prefix}:{target.orders-db}:revoke-lease-far-3`, 'data')).toMatch(/^\{"subject":"far","epoch":3,"due":\d+\}$/);
});
