/** A real server is scraped after a busy story: what is counted, what stands in the database, and that nobody's name is in it. */
import { connect } from 'node:net';
import pino from 'pino';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDb, openPool } from '../../src/db/pool.ts';
import { createMetrics } from '../../src/workers/metrics.ts';
import { openMetricsListener } from '../../src/workers/metrics-listener.ts';
import { freePort, type House, startTestHouse, until } from '../support/house.ts';
import { ask, claim, claimed, endsIn, granted } from '../support/house-verbs.ts';
import { tcpProxyDouble } from '../support/tcp-proxy-double.ts';
import { parseScrape, scrape } from './scrape.ts';

let house: House;
let listen: string;
beforeAll(async () => {
  listen = `127.0.0.1:${await freePort()}`;
  house = await startTestHouse({ tell: `metrics: { listen: '${listen}' }` });
});
afterAll(() => house?.close());

/** The database is read every five seconds at most. */
const fresh = () => new Promise((resolve) => setTimeout(resolve, 5_100));

describe('after a busy story', () => {
  test('requests, decisions, claims, refusals and due → cut are counted, and no label names anybody', async () => {
    const { grant } = await granted(house, { incident: 'INC-77123', reason: 'the reason of this test' });
    const lead = await house.apiAs('lead');
    const denied = await ask(house);
    await lead.post(`/requests/${denied.id}/decisions`, { decision: 'deny', reason: 'not now', seen: denied.seen });
    const own = await ask(house);
    expect((await (await house.apiAs('oncall')).post(`/requests/${own.id}/decisions`, { decision: 'approve', reason: 'me', seen: own.seen })).body.code).toBe(
      'self_decision',
    );
    const issued = await claimed(house, grant);
    expect((await claim(house, grant, 'oncall-2')).body.code).toBe('not_found');
    expect((await claim(house, grant, 'oncall', 'no-such-thing')).body.code).toBe('not_found');
    await endsIn(house, grant, 300);
    await until(
      'the lease is gone',
      async () => (await house.database.superuser.query(`SELECT FROM lease WHERE id = $1 AND state = 'revoked'`, [issued.lease])).rowCount === 1,
    );
    await fresh();
    const seen = await scrape(listen);
    const target = 'orders-db';
    expect(seen.value('halligan_requests_total', { outcome: 'submitted' })).toBe(3);
    expect(seen.value('halligan_requests_total', { outcome: 'denied' })).toBe(1);
    expect(seen.value('halligan_decisions_total', { outcome: 'approve' })).toBe(1);
    expect(seen.value('halligan_decisions_total', { outcome: 'deny' })).toBe(1);
    expect(seen.value('halligan_decisions_total', { outcome: 'refused' })).toBe(1);
    expect(seen.value('halligan_refusals_total', { code: 'self_decision' })).toBe(1);
    expect(seen.value('halligan_claims_total', { target, outcome: 'given' })).toBe(1);
    expect(seen.value('halligan_claims_total', { target, outcome: 'not_found' })).toBe(1);
    expect(seen.value('halligan_claims_total', { target: 'none', outcome: 'not_found' })).toBe(1);
    expect(seen.value('halligan_revocation_due_to_cut_seconds_count', { target })).toBe(1);
    expect(seen.value('halligan_revocation_due_to_cut_seconds_sum', { target })).toBeLessThan(10);
    expect(seen.value('halligan_database_up')).toBe(1);
    expect(seen.value('halligan_revocations_due', { target })).toBe(0);
    expect(seen.value('halligan_processes_alive', { role: 'worker' })).toBe(1);
    expect(Math.abs(seen.value('halligan_clock_offset_seconds')!)).toBeLessThan(1);
    for (const duty of ['relay-outbox', 'expire-grants', 'reconcile-leases', 'seal-audit', 'notify', 'heartbeat']) {
      expect(seen.value('halligan_duty_last_success_timestamp_seconds', { duty }), duty).toBeGreaterThan(Date.now() / 1_000 - 60);
      expect(seen.value('halligan_duty_duration_seconds_count', { duty, outcome: 'ok' }), duty).toBeGreaterThan(0);
    }
    expect(seen.value('process_start_time_seconds')).toBeGreaterThan(0);
    expect(seen.samples.find((one) => one.name === 'halligan_build_info')?.labels['version']).toMatch(/^\d/);
    await nobodyIn(seen.text, [issued.handle, issued.secret.password]);
  });

  /** Every id of every row, every name, subject, reason, incident and entitlement of the story. */
  async function nobodyIn(text: string, more: string[]): Promise<void> {
    const words = new Set(more);
    const queries = [
      'SELECT id AS a, name AS b, subject AS c FROM person',
      'SELECT id AS a, reason AS b, incident AS c FROM request',
      'SELECT unnest(entitlements) AS a FROM request',
      'SELECT id AS a, external_name AS b, handle AS c FROM lease',
      'SELECT id AS a FROM access_grant',
      'SELECT id AS a, reason AS b FROM decision',
      'SELECT id AS a FROM token',
      'SELECT id AS a FROM process',
    ];
    for (const query of queries)
      for (const row of (await house.database.superuser.query<Record<string, string | null>>(query)).rows)
        for (const value of Object.values(row)) if (value) words.add(value);
    expect(words.size).toBeGreaterThan(20);
    const labels = [...text.matchAll(/="((?:[^"\\]|\\.)*)"/g)].map((match) => match[1] ?? '');
    expect(labels.length).toBeGreaterThan(50);
    for (const word of words)
      expect(
        labels.filter((label) => label.toLowerCase().includes(word.toLowerCase())),
        word,
      ).toEqual([]);
  }

  test('a revocation that fails is due, retried and, after a minute, overdue; the page for those who run it says why', async () => {
    const { grant } = await granted(house);
    const issued = await claimed(house, grant);
    house.faults.revoke = async () => {
      throw new Error('the target is away');
    };
    try {
      await endsIn(house, grant, 100);
      await until(
        'a try failed',
        async () => (await house.database.superuser.query(`SELECT FROM lease WHERE id = $1 AND last_error IS NOT NULL`, [issued.lease])).rowCount === 1,
      );
      await house.database.superuser.query(`UPDATE lease SET revoking_at = now() - interval '20 minutes' WHERE id = $1`, [issued.lease]);
      await fresh();
      const seen = await scrape(listen);
      const target = 'orders-db';
      expect(seen.value('halligan_revocations_due', { target })).toBe(1);
      expect(seen.value('halligan_revocations_overdue', { target })).toBe(1);
      expect(seen.value('halligan_revocation_oldest_due_seconds', { target })).toBeGreaterThan(1_100);
      expect(seen.value('halligan_revocations_retrying', { target })).toBe(1);
      expect(seen.value('halligan_revocation_oldest_retrying_seconds', { target })).toBeGreaterThan(1_100);
      expect(seen.samples.filter((one) => one.name === 'halligan_revocation_retries_total').reduce((sum, one) => sum + one.value, 0)).toBeGreaterThan(0);
      const system = await (await house.apiAs('admin')).get<{ targets: { target: string; due: number; overdue: number; retrying: number; why: string }[] }>(
        '/system',
      );
      expect(system.body.targets).toMatchObject([{ target, open: 1, due: 1, overdue: 1, retrying: 1, why: expect.stringContaining('orders-db') }]);
    } finally {
      delete house.faults.revoke;
    }
  });
});

test('it answers reads of its three paths only, and asks for no login', async () => {
  const get = (path: string, method = 'GET') => fetch(`http://${listen}${path}`, { method });
  expect((await get('/metrics')).headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
  expect((await get('/livez')).status).toBe(200);
  expect((await get('/readyz')).status).toBe(200);
  expect((await get('/api/v1/me')).status).toBe(404);
  const refused = await get('/metrics', 'POST');
  expect([refused.status, refused.headers.get('allow')]).toEqual([405, 'GET, HEAD']);
  expect(await (await get('/metrics', 'HEAD')).text()).toBe('');
  const [host, port] = listen.split(':');
  expect(
    await new Promise((resolve) =>
      connect({ host: '127.0.0.2', port: Number(port) })
        .once('error', () => resolve('refused'))
        .once('connect', () => resolve(host)),
    ),
  ).toBe('refused');
});

test.each(['refuse', 'hang'] as const)(
  'a scrape never hangs on a database that does %s: it says 0, and no old number stays',
  async (mode) => {
    const address = new URL(house.database.appUrl);
    const proxy = await tcpProxyDouble(Number(address.port));
    address.hostname = '127.0.0.1';
    address.port = String(proxy.port);
    const pool = openPool({ connectionString: address.href, max: 1 });
    try {
      const metrics = createMetrics({ db: openDb(pool), version: '0', targets: ['orders-db'], running: () => ({ workers: undefined, heartbeat: undefined }) });
      const before = parseScrape(await metrics.scrape());
      expect(before.value('halligan_database_up')).toBe(1);
      expect(before.value('halligan_outbox_rows')).toBeDefined();
      proxy.set(mode);
      await fresh();
      const began = performance.now();
      const scrapes = (await Promise.all([metrics.scrape(), metrics.scrape(), metrics.scrape()])).map(parseScrape);
      expect(performance.now() - began).toBeLessThan(3_000);
      for (const seen of scrapes) {
        expect(seen.value('halligan_database_up')).toBe(0);
        for (const gone of ['halligan_outbox_rows', 'halligan_seal_waiting_events', 'halligan_revocations_due', 'halligan_processes_alive'])
          expect(seen.value(gone), gone).toBeUndefined();
        expect(seen.value('halligan_claims_total')).toBe(0);
      }
      proxy.set('pass');
      // The one statement that hung is ended by the driver's own deadline; meanwhile nothing else was asked.
      await until('it is up again', async () => parseScrape(await metrics.scrape()).value('halligan_database_up') === 1, 30_000);
    } finally {
      proxy.set('refuse');
      await pool.end();
      await proxy.close();
    }
  },
  60_000,
);

test('a port that is taken stops no process: it is said in words, in the log and in the health', async () => {
  const lines: string[] = [];
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) });
  const metrics = createMetrics({ db: house.running.ctx.db, version: '0', targets: [], running: () => ({ workers: undefined, heartbeat: undefined }) });
  const listener = await openMetricsListener({ metrics, health: house.running.health, listen, log });
  expect(listener.trouble()).toBe(
    `${listen} is taken by another process, so this process has no metrics. Set metrics.listen, or give one of the two its own: --metrics host:port.`,
  );
  expect(lines.filter((line) => line.includes('metrics_unavailable'))).toHaveLength(1);
  await listener.close();
  expect((await scrape(listen)).value('halligan_database_up')).toBe(1);
});
