/** Every fault of Redis while work waits: all of it runs, and each change of state is said once. */
import { rm } from 'node:fs/promises';
import { createServer as createHttp } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { EvictingRedis, openRedis, type RedisSettings } from '../../src/queue/redis.ts';
import { testCertificate } from '../support/certificate.ts';
import { freePort, until } from '../support/house.ts';
import { job, openUnderTest, settingsOf, strangerAt, type UnderTest } from './redis-support.ts';
import { type RedisServer, startRedis } from './servers/redis.ts';

const open: { stop(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.stop();
});
async function server(...args: Parameters<typeof startRedis>): Promise<RedisServer> {
  const one = await startRedis(...args);
  open.push(one);
  return one;
}
async function opened(...args: Parameters<typeof openUnderTest>): Promise<UnderTest> {
  const one = await openUnderTest(...args);
  open.push({ stop: () => one.stop() });
  return one;
}
const many = (count: number, inMs: number) =>
  Array.from({ length: count }, (_, n) => job(`j${n}`, { lane: `target:${n % 5}`, dueAt: new Date(Date.now() + inMs) }));
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

test('FLUSHALL with 1,000 waiting: all run, at the latest two sweeps after they are due', async () => {
  const redis = await server();
  const { queue, ran, ranAt, sweep, codes } = await opened(settingsOf(redis), { limits: { concurrency: 8 } });
  const jobs = many(1_000, 3_000);
  for (const one of jobs) await queue.add(one);
  await redis.client.flushall();
  sweep(jobs);
  await until('all ran', () => new Set(ran).size === 1_000, 20_000);
  expect(Math.max(...ranAt) - jobs[0]!.dueAt.getTime()).toBeLessThan(4_000);
  expect(codes).toEqual([]);
});

test('killed and restarted empty: work runs meanwhile, each change is said once, and within 30 s Redis is used again', async () => {
  const redis = await server();
  const { queue, ran, sweep, codes, link } = await opened(settingsOf(redis));
  const jobs = many(100, 1_500);
  for (const one of jobs) await queue.add(one);
  sweep(jobs);
  await redis.kill();
  await until('all ran without Redis', () => new Set(ran).size === 100, 10_000);
  expect(link.warnings()).toMatchObject([{ code: 'queue_unavailable' }]);
  const began = Date.now();
  await redis.restart();
  await until('it is back', () => link.up(), 30_000);
  const after = job('after', { dueAt: new Date(Date.now() + 400) });
  await queue.add(after);
  expect(await redis.client.exists(`${link.prefix}:{expiry}:${after.id}`)).toBe(1);
  await until('it ran', () => ran.includes(after.id), 30_000);
  console.log(`back in use ${Date.now() - began} ms after the restart began`);
  expect(codes).toEqual(['queue_lost', 'queue_back']);
  expect(link.warnings()).toEqual([]);
}, 90_000);

test.for([true, false])('killed with its AOF kept: %s. Nothing is lost', async (kept) => {
  const redis = await server(['--appendonly', 'yes', '--appendfsync', 'always']);
  const { queue, ran, sweep } = await opened(settingsOf(redis));
  const jobs = many(100, 4_000);
  for (const one of jobs) await queue.add(one);
  await redis.kill();
  if (!kept) await rm(join(redis.folder, 'appendonlydir'), { recursive: true });
  await redis.restart();
  if (kept) expect(await redis.client.dbsize()).toBeGreaterThan(100);
  sweep(jobs);
  await until('all ran', () => new Set(ran).size === 100, 20_000);
});

test('a Redis that takes connections and answers nothing holds nothing up', async () => {
  const redis = await server();
  const { queue, ran, codes, link, sweep } = await opened(settingsOf(redis));
  await queue.add(job('before'));
  await until('it ran', () => ran.length === 1);
  redis.freeze(true);
  const began = Date.now();
  const jobs = many(50, 0);
  for (const one of jobs) await queue.add(one);
  expect(Date.now() - began).toBeLessThan(2_500);
  await until('all ran', () => new Set(ran).size === 51, 5_000);
  expect(codes).toEqual(['queue_lost']);
  redis.freeze(false);
  await until('it is back', () => link.up(), 30_000);
  const after = job('after', { dueAt: new Date() });
  await queue.add(after);
  sweep([after]);
  await until('it ran', () => ran.includes(after.id), 30_000);
}, 90_000);

test('a full Redis takes no work: it runs here', async () => {
  const redis = await server(['--maxmemory', '3mb', '--maxmemory-policy', 'noeviction']);
  const { queue, ran, link, codes } = await opened(settingsOf(redis));
  await queue.add(job('before'));
  await until('it ran', () => ran.length === 1);
  await redis.client.config('SET', 'maxmemory', '1mb');
  await queue.add(job('full'));
  await until('it ran', () => ran.length === 2, 5_000);
  await until('it is said', () => link.warnings()[0]?.message.includes('OOM'), 5_000);
  expect(codes).toContain('queue_lost');
});

test('a policy that evicts is refused at the start, and alarmed when set later', async () => {
  const redis = await server(['--maxmemory-policy', 'allkeys-lru']);
  const refused = await openRedis(settingsOf(redis), { say: () => undefined }).catch((error: Error) => error);
  expect(refused).toBeInstanceOf(EvictingRedis);
  expect((refused as Error).message).toMatch(/maxmemory-policy is allkeys-lru.*CONFIG SET maxmemory-policy noeviction/);
  await redis.client.config('SET', 'maxmemory-policy', 'noeviction');
  const { codes, link, queue, ran } = await opened(settingsOf(redis), { policyEveryMs: 200 });
  await redis.client.config('SET', 'maxmemory-policy', 'volatile-ttl');
  await until('it is alarmed', () => codes.includes('redis_evicts'), 5_000);
  expect(link.warnings()).toMatchObject([{ code: 'redis_evicts' }]);
  await queue.add(job('all the same'.replaceAll(' ', '-')));
  await until('it ran', () => ran.length === 1);
  await redis.client.config('SET', 'maxmemory-policy', 'noeviction');
  await until('it is well', () => link.warnings().length === 0, 5_000);
  expect(codes).toEqual(['redis_evicts', 'redis_evicts_no_more']);
});

const listening = async (listener: Server): Promise<string> => {
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const sockets = new Set<Socket>();
  listener.on('connection', (socket) => sockets.add(socket));
  open.push({
    stop: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((resolve) => listener.close(resolve));
    },
  });
  return `redis://127.0.0.1:${(listener.address() as AddressInfo).port}`;
};
test.for([
  ['nothing listens', async () => ({ url: `redis://127.0.0.1:${await freePort()}` }), /ECONNREFUSED/],
  ['a web server', async () => ({ url: await listening(createHttp((_, response) => response.end('hello'))) }), /does not speak as Redis|broke/],
  ['something that is silent', async () => ({ url: await listening(createServer(() => undefined)) }), /no answer/],
  ['a wrong password', async () => ({ url: (await server()).url, password: async () => 'this-is-not-it' }), /WRONGPASS.*|Is the password right/],
  ['no password', async () => ({ url: (await server()).url, password: undefined }), /NOAUTH|Is the password right/],
  [
    'a password file that is missing',
    async () => ({ url: (await server()).url, password: () => Promise.reject(new Error('the file is missing')) }),
    /the file is missing/,
  ],
  ['TLS with a certificate of nobody', async () => ({ url: await tlsRedis().then((one) => one.url) }), /certificate/],
] as const)('%s: the start goes on, says so once, and work runs', async ([, make, said]) => {
  const settings = settingsOf({ url: '', password: 'unused' }, (await (make as () => Promise<Partial<RedisSettings>>)()) as Partial<RedisSettings>);
  const began = Date.now();
  const one = await opened(settings, { patienceMs: 1_000 });
  expect(Date.now() - began).toBeLessThan(3_000);
  await one.queue.add(job('here'));
  await until('it ran', () => one.ran.length === 1);
  await pause(2_500);
  expect(one.codes).toEqual(['queue_lost']);
  expect(one.said[0]).toMatch(said);
  expect(one.link.warnings()).toMatchObject([{ code: 'queue_unavailable' }]);
  expect(one.said.join()).not.toContain('this-is-not-it');
});

async function tlsRedis(): Promise<RedisServer & { ca: string }> {
  const { cert, key } = testCertificate();
  const redis = await server([], { tls: { cert, key } });
  return { ...redis, ca: cert };
}
test('with TLS, and the authority that signed it', async () => {
  const redis = await tlsRedis();
  const { ran, link, queue } = await opened(settingsOf(redis, { tlsCa: redis.ca }));
  expect(link.up()).toBe(true);
  await queue.add(job('safe'));
  await until('it ran', () => ran.length === 1);
});

test('a user of the ACL, and a password that is changed while it runs', async () => {
  const redis = await server();
  await redis.client.call('ACL', 'SETUSER', 'queue', 'on', '>first', '~test-*', '&*', '+@all', '-@dangerous', '+info');
  let password = 'first';
  const { link, queue, ran, sweep, codes } = await opened(settingsOf(redis, { username: 'queue', password: async () => password }));
  expect(link.up()).toBe(true);
  await queue.add(job('one'));
  await until('it ran', () => ran.length === 1);
  password = 'second';
  await redis.client.call('ACL', 'SETUSER', 'queue', 'resetpass', '>second');
  await redis.client.call('CLIENT', 'KILL', 'USER', 'queue');
  await until('it is back', () => codes.includes('queue_back'), 30_000);
  expect(codes).toEqual(['queue_lost', 'queue_back']);
  const after = job('two', { dueAt: new Date(Date.now() + 500) });
  await queue.add(after);
  expect(await redis.client.exists(`${link.prefix}:{expiry}:${after.id}`)).toBe(1);
  sweep([after]);
  await until('it ran', () => ran.includes(after.id), 10_000);
  expect(codes).toEqual(['queue_lost', 'queue_back']);
}, 60_000);

test('behind Sentinel: the primary is found, and after a failover the other one', async () => {
  const first = await server();
  const second = await server(['--replicaof', '127.0.0.1', String(first.port)], { password: first.password });
  const sentinel = await server(['--sentinel'], { sentinelOf: first });
  const name = 'halligan-test';
  const settings = settingsOf({ url: 'redis://sentinel', password: first.password }, { sentinel: { name, hosts: [`127.0.0.1:${sentinel.port}`] } });
  await until('the replica is known', async () => String(await sentinel.client.call('SENTINEL', 'replicas', name)).includes(String(second.port)), 20_000);
  const { link, queue, ran, sweep } = await opened(settings);
  expect(link.up()).toBe(true);
  await queue.add(job('one'));
  await until('it ran', () => ran.length === 1);
  await sentinel.client.call('SENTINEL', 'failover', name);
  const jobs = many(20, 2_000);
  sweep(jobs);
  await until('all ran', () => new Set(ran).size === 21, 30_000);
  await until('the other one is in use', async () => link.up() && /^role:master/m.test(await second.client.info('replication')), 60_000);
  await queue.add(job('after', { dueAt: new Date(Date.now() + 60_000) }));
  expect(await second.client.exists(`${link.prefix}:{expiry}:grant-due-after-0`)).toBe(1);
}, 120_000);

test('a queue that somebody pauses, and ids that somebody holds: the work runs here after the patience', async () => {
  const redis = await server();
  const settings = settingsOf(redis);
  const one = await opened(settings, { queuePatienceMs: 3_000 });
  await one.queue.add(job('first'));
  await until('it ran', () => one.ran.length === 1);
  const bull = strangerAt(redis, settings.prefix);
  await bull.pause();
  const [paused, held, text] = [job('paused', { dueAt: new Date() }), job('held', { dueAt: new Date() }), job('text', { dueAt: new Date() })];
  await redis.client.hset(`${settings.prefix}:{expiry}:${held.id}`, { name: 'grant-due', data: '{}' });
  await redis.client.set(`${settings.prefix}:{expiry}:${text.id}`, 'a string');
  for (const each of [paused, held, text]) await one.queue.add(each);
  one.sweep([paused, held, text]);
  await until('all ran', () => one.ran.length === 4, 10_000);
});
