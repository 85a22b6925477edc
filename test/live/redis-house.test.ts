/** The whole house with its queue on Redis: what people get is the same, whatever becomes of Redis and whoever writes there. */

import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { StartFault } from '../../src/compose.ts';
import { laneName } from '../../src/queue/payload.ts';
import { newSeat } from '../cli/run-cli.ts';
import { freePort, type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { claimed, connectWith, endsIn, eventsOf, granted, loginAnswer } from '../support/house-verbs.ts';
import { strangerAt } from './redis-support.ts';
import { awaitReady, runTool, startChild } from './servers/install.ts';
import { type RedisServer, startRedis } from './servers/redis.ts';

let redis: RedisServer;
beforeAll(async () => {
  redis = await startRedis(['--rdbcompression', 'no']);
});
afterAll(() => redis?.stop());
const open: { close(): Promise<unknown> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0).reverse()) await one.close();
});

let count = 0;
/** A house whose config names this Redis; the server is started by the test, when the password file is there. */
async function houseOn(url: string, options: { worker?: boolean; password?: string } = {}): Promise<House & { prefix: string }> {
  const prefix = `house-${process.pid}-${++count}`;
  const house = await startTestHouse({
    server: 'none',
    tell: `redis: { url: '${url}', passwordFile: redis-password, prefix: '${prefix}' }`,
    worker: options.worker ?? true,
  });
  open.push(house);
  await writeFile(join(house.folder, 'redis-password'), `${options.password ?? redis.password}\n`, { mode: 0o600 });
  return Object.assign(Object.create(house) as House, { prefix });
}
const codes = (house: House): string[] => house.logged.map((line) => (JSON.parse(line) as { code: string }).code);
const readyz = async (house: House) => {
  const response = await fetch(`${house.url}/readyz`);
  const body = (await response.json()) as { faults: { code: string }[]; warnings: { code: string; message: string }[] };
  return { ...body, status: response.status };
};
/** What `halligan doctor` finds wrong with Redis. */
async function doctor(house: House): Promise<string[]> {
  const seat = await newSeat();
  const ran = await seat.run('doctor', '--config', house.configFile, '-o', 'json');
  await seat.close();
  const { targets } = JSON.parse(ran.out) as { targets: { target: string; faults: { message: string }[] }[] };
  return targets.find(({ target }) => target === 'redis')!.faults.map(({ message }) => message);
}
const ended = (house: House, grant: string, withinMs: number): Promise<unknown> =>
  until(
    'the grant has ended',
    async () => (await house.database.superuser.query(`SELECT FROM access_grant WHERE id = $1 AND state = 'ended'`, [grant])).rowCount === 1,
    withinMs,
  );

test('invariant 22: with the queue on Redis access ends on time, and no secret is ever sent there', async () => {
  const house = await houseOn(redis.url);
  const monitor = await redis.client.duplicate({ lazyConnect: false }).monitor();
  const sent: string[] = [];
  monitor.on('monitor', (_time: string, args: string[]) => sent.push(args.join(' ')));
  await house.start();
  expect(await readyz(house)).toMatchObject({ status: 200, warnings: [] });
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const session = await connectWith(issued);
  const cut = new Promise<number>((resolve) => session.once('end', () => resolve(Date.now())));
  await endsIn(house, grant, 5_000);
  const dueAt = Date.now() + 5_000;
  await until('the job waits in Redis', async () => redis.client.exists(`${house.prefix}:{expiry}:delayed`), 4_000);
  expect((await cut) - dueAt).toBeGreaterThan(-100);
  expect((await cut) - dueAt).toBeLessThan(3_000);
  await ended(house, grant, 10_000);
  const kept: string[] = [];
  for (const key of await redis.client.keys('*')) kept.push(key, (await redis.client.dumpBuffer(key))?.toString('latin1') ?? '');
  monitor.disconnect();
  const all = [...sent, ...kept].join('\n');
  expect(all).toContain('revoke-lease');
  for (const secret of [issued.secret.password, encodeURIComponent(issued.secret.password), Buffer.from(issued.secret.password).toString('base64')])
    expect(all.includes(secret)).toBe(false);
  expect(all).not.toContain(issued.handle);
  expect(house.logged.join('')).not.toContain(redis.password);
});

test('invariant 8: Redis down for the whole life of a grant: it ends on time, and the process is ready and says what is amiss', async () => {
  const house = await houseOn(`redis://127.0.0.1:${await freePort()}`);
  await house.start();
  expect(codes(house).filter((code) => code === 'queue_lost')).toHaveLength(1);
  const health = await readyz(house);
  expect(health).toMatchObject({ status: 200, faults: [], warnings: [{ code: 'queue_unavailable' }] });
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const session = await connectWith(issued);
  const cut = new Promise<number>((resolve) => session.once('end', () => resolve(Date.now())));
  await endsIn(house, grant, 3_000);
  const dueAt = Date.now() + 3_000;
  expect((await cut) - dueAt).toBeLessThan(3_000);
  await ended(house, grant, 10_000);
  expect(await loginAnswer(issued)).not.toBe('let in');
  expect((await house.database.superuser.query('SELECT FROM outbox')).rowCount).toBe(0);
  expect(codes(house)).not.toContain('queue_back');
});

test('a policy that evicts is refused at the start in one sentence; a process without workers does not ask', async () => {
  const evicting = await startRedis(['--maxmemory-policy', 'allkeys-lfu']);
  open.push({ close: () => evicting.stop() });
  const house = await houseOn(evicting.url, { password: evicting.password });
  const fault = await house.start().catch((error: Error) => error);
  expect(fault).toBeInstanceOf(StartFault);
  expect((fault as Error).message).toMatch(/^redis: .*maxmemory-policy is allkeys-lfu/);
  expect((fault as Error).message).not.toContain(evicting.password);
  const looked = await doctor(house);
  expect(looked).toEqual([expect.stringMatching(/maxmemory-policy is allkeys-lfu/)]);
  expect(looked.join()).not.toContain(evicting.password);
  // A process that only serves needs no queue.
  await house.start({ worker: false });
  expect((await readyz(house)).status).toBe(200);
});

test('halligan doctor looks at it: well, away, and with a wrong password', async () => {
  const well = await houseOn(redis.url);
  expect(await doctor(well)).toEqual([]);
  const away = await houseOn(`redis://127.0.0.1:${await freePort()}`);
  expect(await doctor(away)).toEqual([expect.stringMatching(/cannot be used|ECONNREFUSED/)]);
  const closed = await startRedis([]);
  open.push({ close: () => closed.stop() });
  const wrong = await houseOn(closed.url, { password: 'not this one' });
  expect(await doctor(wrong)).toEqual([expect.stringMatching(/WRONGPASS|password/)]);
}, 60_000);

test('jobs that somebody writes straight into Redis grant nothing, end nothing and stop nothing', async () => {
  const house = await houseOn(redis.url);
  await house.start();
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const { rows } = await house.database.superuser.query<{ epoch: number; grant_epoch: number }>(
    'SELECT l.epoch, g.epoch AS grant_epoch FROM lease l JOIN access_grant g ON g.id = l.grant_id WHERE l.id = $1',
    [issued.lease],
  );
  const { epoch = 0, grant_epoch = 0 } = rows[0] ?? {};
  const [before, roles] = [await eventsOf(house, 'grant_id', grant), await rolesAt(house.target)];
  // The lanes are there once something has run in them.
  const other = await granted(house);
  await claimed(house, other.grant);
  await (await house.apiAs('oncall')).post(`/grants/${other.grant}/return`);
  await ended(house, other.grant, 10_000);

  const expiry = strangerAt(redis, house.prefix);
  const target = strangerAt(redis, house.prefix, 'target:orders-db');
  const put = (kind: string, subject: string, at: number, more: object = {}) => ({
    name: kind,
    data: { subject, epoch: at, due: 0, ...more },
    opts: { jobId: `${kind}-${subject}-${at}`, attempts: 1_000, removeOnComplete: false, removeOnFail: false, backoff: 1 },
  });
  const evil = '{"__proto__":{"kind":"grant-due"},"constructor":{"prototype":{"x":1}},"subject":"__proto__","epoch":0,"due":0}';
  await expiry.addBulk([
    put('grant-due', grant, grant_epoch),
    put('grant-due', grant, grant_epoch + 1),
    put('grant-due', `gnt_${'0'.repeat(32)}`, 0),
    put('grant-due', "x'; DROP TABLE access_grant; --", 0),
    put('issue-lease', issued.lease, epoch),
    put('__proto__', grant, 0),
    put('grant-due', grant, 3, { due: 'now' }),
    put('grant-due', 'g'.repeat(5_000_000).slice(0, 90), 1, { subject: 'g'.repeat(5_000_000) }),
    { name: 'grant-due', data: JSON.parse(evil) as object, opts: { jobId: 'grant-due-__proto__-0' } },
    { name: 'grant-due', data: null as never, opts: { jobId: 'nothing' } },
  ]);
  await target.addBulk([
    put('revoke-lease', issued.lease, epoch),
    put('revoke-lease', issued.lease, epoch + 1),
    put('revoke-lease', `lse_${'0'.repeat(32)}`, 0),
    put('issue', grant, 0),
  ]);
  // And what BullMQ itself cannot read.
  for (const [id, data] of [
    ['broken', '{'],
    ['deep', '['.repeat(100_000)],
  ] as const) {
    await redis.client.hset(`${house.prefix}:${laneName('expiry')}:${id}`, { name: 'grant-due', data, opts: '{', timestamp: 'x', delay: '-1' });
    await redis.client.rpush(`${house.prefix}:${laneName('expiry')}:wait`, id);
    await redis.client.zadd(`${house.prefix}:${laneName('expiry')}:marker`, 0, '0');
  }
  await until('it is said', () => codes(house).includes('job_refused'));
  await new Promise((resolve) => setTimeout(resolve, 3_000));

  expect(await eventsOf(house, 'grant_id', grant)).toEqual(before);
  expect((await rolesAt(house.target)).map((role) => role.name)).toEqual(roles.map((role) => role.name));
  expect(await loginAnswer(issued)).toBe('let in');
  expect((await readyz(house)).status).toBe(200);
  expect(({} as { kind?: string }).kind).toBeUndefined();
  expect(codes(house).filter((code) => code === 'job_refused')).toHaveLength(1);
  // The lanes work on, and the real end comes.
  await endsIn(house, grant, 500);
  await ended(house, grant, 10_000);
  expect(await loginAnswer(issued)).not.toBe('let in');
}, 60_000);

test('an attacker who empties Redis again and again, or forges a job that is being done, delays no end beyond a minute', async () => {
  const house = await houseOn(redis.url);
  await house.start();
  const { grant } = await granted(house);
  const issued = await claimed(house, grant);
  const attack = setInterval(() => void redis.client.flushall(), 20);
  const { rows } = await house.database.superuser.query<{ epoch: number }>('SELECT epoch FROM access_grant WHERE id = $1', [grant]);
  const id = `grant-due-${grant}-${rows[0]?.epoch}`;
  const began = Date.now();
  await endsIn(house, grant, 1_000);
  try {
    await ended(house, grant, 60_000);
  } finally {
    clearInterval(attack);
  }
  const again = await granted(house);
  await claimed(house, again.grant);
  const { rows: more } = await house.database.superuser.query<{ epoch: number }>('SELECT epoch FROM access_grant WHERE id = $1', [again.grant]);
  const held = `grant-due-${again.grant}-${more[0]?.epoch}`;
  const key = (name: string): string => `${house.prefix}:${laneName('expiry')}:${name}`;
  await redis.client.hset(key(held), { name: 'grant-due', data: '{}', opts: '{}' });
  await redis.client.lpush(key('active'), held);
  await redis.client.set(`${key(held)}:lock`, 'mine');
  const since = Date.now();
  await endsIn(house, again.grant, 1_000);
  await ended(house, again.grant, 60_000);
  console.log(`emptied every 20 ms: ended after ${since - began} ms (${id}); held by a forged lock: after ${Date.now() - since} ms`);
  expect(await loginAnswer(issued)).not.toBe('let in');
}, 150_000);

test('two worker processes share 200 revocations, each done once', async () => {
  const house = await houseOn(redis.url, { worker: false });
  await house.start();
  const grants: string[] = [];
  const leases: string[] = [];
  for (let n = 0; n < 200; n++) {
    const { grant } = await granted(house);
    grants.push(grant);
    leases.push((await claimed(house, grant)).lease);
  }
  const script = fileURLToPath(new URL('redis-worker-child.ts', import.meta.url));
  const workers = [0, 1].map(() => {
    let out = '';
    const child = startChild(process.execPath, [script, house.configFile], process.env);
    child.process.stdout?.on('data', (chunk) => (out += String(chunk)));
    open.push({ close: () => child.stop() });
    return { child, out: () => out };
  });
  await Promise.all(workers.map(({ child, out }) => awaitReady(child, 'the worker', 20, async () => out().includes('ready\n'))));
  await house.database.superuser.query(`UPDATE access_grant SET ends_at = clock_timestamp() + interval '3 seconds' WHERE id = ANY ($1)`, [grants]);
  const began = Date.now() + 3_000;
  await until(
    'all have ended',
    async () => (await house.database.superuser.query(`SELECT FROM access_grant WHERE id = ANY ($1) AND state <> 'ended'`, [grants])).rowCount === 0,
    60_000,
  );
  const took = Date.now() - began;
  const each = workers.map(({ out }) => [...out().matchAll(/^revoking (\S+)$/gm)].map((match) => match[1] ?? ''));
  console.log(`200 revocations by two processes: ${each.map((one) => one.length).join(' and ')}, ${took} ms after they were due`);
  expect(each.flat().toSorted()).toEqual(leases.toSorted());
  for (const one of each) expect(one.length).toBeGreaterThan(20);
  const { rows } = await house.database.superuser.query(`SELECT FROM audit_event WHERE type = 'lease.revoked' AND lease_id = ANY ($1)`, [leases]);
  expect(rows).toHaveLength(200);
}, 180_000);

test('without redis in the config nothing of its libraries is loaded', async () => {
  const script = `
    const cached = async () => Object.keys((await import('node:module')).default._cache).filter((file) => /bullmq|ioredis/.test(file)).length;
    await import('./src/compose.ts');
    const { openQueue } = await import('./src/workers/open-queue.ts');
    await openQueue(undefined, undefined);
    const without = await cached();
    await import('./src/queue/bullmq.ts');
    console.log(without, (await cached()) > 10);`;
  expect((await runTool(process.execPath, ['--input-type=module', '-e', script])).trim()).toBe('0 true');
});
