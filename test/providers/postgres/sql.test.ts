/** The way to a target: what its config block accepts, and what each failure is called. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import type { ProviderError } from '../../../src/domain/provider.ts';
import { oneLine, targetSchema } from '../../../src/providers/postgres/sql.ts';
import { asSuperuser, type TestTarget, testTarget } from '../../support/postgres.ts';
import { newLease, refusalOf, within } from '../../support/provider-contract.ts';
import { connectTo } from './holder.ts';

const block = { host: 'db.example.com', database: 'orders', user: 'halligan', passwordEnv: 'ORDERS_PASSWORD' };

describe('the config block', () => {
  test('says as little as possible and is strict', () => {
    expect(targetSchema.parse(block)).toEqual({
      ...block,
      port: 5432,
      tls: 'verify-full',
      allowPlaintext: false,
      leftoversRole: 'halligan_leftovers',
      connectionLimit: 10,
      makers: 16,
      reaper: false,
    });
  });
  test.each([
    ['an unknown key', { ...block, pasword: 'x' }],
    ['a password in the file itself', { ...block, password: 'x' }],
    ['no password', { ...block, passwordEnv: undefined }],
    ['two passwords', { ...block, passwordFile: 'x' }],
    ['a port out of range', { ...block, port: 70_000 }],
    ['a port as text', { ...block, port: '5432' }],
    ['plaintext to another machine', { ...block, tls: 'disable' }],
    ['a host that only looks like this machine', { ...block, host: '127.0.0.1.example.com', tls: 'disable' }],
    ['a name longer than PostgreSQL keeps', { ...block, database: 'x'.repeat(64) }],
    ['more helper roles than are of use', { ...block, makers: 65 }],
    ['a reaper that comes once a day', { ...block, reaper: 86_400 }],
    ['a reaper that never waits', { ...block, reaper: 0 }],
  ])('refuses %s', (_, bad) => {
    expect(targetSchema.safeParse(bad).success).toBe(false);
  });
  test.each([
    { ...block, host: '127.0.0.1', tls: 'disable' },
    { ...block, host: 'localhost', tls: 'disable' },
    { ...block, tls: 'disable', allowPlaintext: true },
  ])('accepts plaintext where it was meant: %j', (good) => {
    expect(targetSchema.safeParse(good).success).toBe(true);
  });
});

describe('a failure has a code, words, and no secret', () => {
  let orders: TestTarget;
  let folder: string;
  const wrongPassword = 'certainly-the-wrong-password';
  beforeAll(async () => {
    orders = await testTarget();
    folder = await mkdtemp(join(inject('server').folder, 'secret-'));
    await writeFile(join(folder, 'wrong'), wrongPassword);
  });
  afterAll(async () => {
    await orders.close();
    await rm(folder, { recursive: true, force: true });
  });

  async function failWith(change: object, seconds = 10): Promise<ProviderError> {
    const target = connectTo({ ...orders.config, ...change });
    try {
      return await refusalOf(target.issue(newLease(orders.grant, 60), within(seconds)));
    } finally {
      await target.close();
    }
  }

  test('nobody listens', async () => {
    const error = await failWith({ port: 1 });
    expect(error).toMatchObject({ code: 'target_unreachable', nothingMade: true });
    expect(error.message).toContain('127.0.0.1:1');
  });
  test('the name leads nowhere', async () => {
    expect(await failWith({ host: 'no-such-host.invalid', allowPlaintext: true })).toMatchObject({ code: 'target_unreachable', nothingMade: true });
  });
  test('there is no such database', async () => {
    expect(await failWith({ database: 'no_such_database' })).toMatchObject({ code: 'target_unreachable', nothingMade: true });
  });
  test('the server has no TLS', async () => {
    const error = await failWith({ tls: 'require' });
    expect(error).toMatchObject({ code: 'target_unreachable', nothingMade: true });
    expect(error.message).toContain('does not offer TLS');
  });
  test('our own password is wrong', async () => {
    const error = await failWith({ passwordFile: join(folder, 'wrong') });
    expect(error).toMatchObject({ code: 'target_forbids', nothingMade: true });
    expect(JSON.stringify([error.message, error.next, error.stack, error.cause])).not.toContain(wrongPassword);
  });
  test('our own password cannot be read', async () => {
    const error = await failWith({ passwordFile: join(folder, 'missing') });
    expect(error).toMatchObject({ code: 'target_failed', nothingMade: true });
    expect(error.message).toContain('cannot be read (ENOENT)');
  });
  test('the server takes the connection and never answers', async () => {
    const silent = await silentServerDouble();
    try {
      const began = performance.now();
      expect(await failWith({ port: silent.port }, 0.5)).toMatchObject({ code: 'target_timeout', nothingMade: true });
      expect(performance.now() - began).toBeLessThan(1_500);
      const slow = await failWith({ port: silent.port }, 30);
      expect(slow).toMatchObject({ code: 'target_timeout' });
      expect(performance.now() - began).toBeLessThan(8_000);
    } finally {
      await silent.close();
    }
  });
  test('a lock is held there for longer than the call may take', async () => {
    const blocker = await orders.superuser.connect();
    const target = connectTo(orders.config);
    try {
      await blocker.query('BEGIN');
      await blocker.query('LOCK TABLE pg_catalog.pg_authid IN ACCESS EXCLUSIVE MODE');
      const began = performance.now();
      expect(await refusalOf(target.issue(newLease(orders.grant, 60), within(1)))).toMatchObject({ code: 'target_timeout' });
      expect(performance.now() - began).toBeLessThan(2_000);
    } finally {
      await blocker.query('ROLLBACK');
      blocker.release();
      await target.close();
    }
  });
  test('the server cuts our session in the middle: the next call uses a new one', async () => {
    const target = connectTo(orders.config);
    try {
      expect(await target.sweep(within(10))).toEqual([]);
      await asSuperuser('postgres', `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '${orders.adminRole}'`);
      await new Promise((done) => setTimeout(done, 100));
      expect(await target.sweep(within(10))).toEqual([]);
    } finally {
      await target.close();
    }
  });
});

test('what a target says becomes one line of bounded length', () => {
  expect(oneLine('a\r\nb\u0000\u001b[31mc\u2028d')).toBe('a b [31mc d');
  expect(oneLine('x'.repeat(500))).toHaveLength(300);
});

/** A server that accepts connections and says nothing, which no real PostgreSQL can be made to do on demand. */
async function silentServerDouble(): Promise<{ port: number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  return {
    port: address.port,
    close: () => {
      for (const socket of sockets) socket.destroy();
      return new Promise((done) => server.close(() => done()));
    },
  };
}

test('forty claims at once all succeed on a few sessions, and a caller that cannot wait is told so', async () => {
  const orders = await testTarget();
  const target = connectTo(orders.config);
  const leases = Array.from({ length: 40 }, () => newLease(orders.grant, 60));
  try {
    const claims = leases.map((lease) => target.issue(lease, within(20)));
    const hurried = await refusalOf(target.issue(newLease(orders.grant, 60), within(0.005)));
    expect(hurried).toMatchObject({ code: 'target_timeout', nothingMade: true });
    expect(await Promise.all(claims)).toHaveLength(40);
    const { rows } = await orders.superuser.query('SELECT count(*)::int AS sessions FROM pg_stat_activity WHERE usename = $1', [orders.adminRole]);
    expect((rows[0] as { sessions: number }).sessions).toBeLessThanOrEqual(4);
  } finally {
    for (const lease of leases) await target.revoke(lease, within(20));
    await target.close();
    await orders.close();
  }
});
