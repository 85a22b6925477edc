/** Faults around Halligan: a target that is away while access must end, and Halligan's own database restarting. */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { type House, rolesAt, startTestHouse, until } from '../support/house.ts';
import { houseEntitlements } from '../support/house-config.ts';
import { claim, claimed, connectWith, endsIn, eventsOf, granted, loginAnswer } from '../support/house-verbs.ts';
import { newGate } from '../support/provider-double.ts';
import { type TcpProxyDouble, tcpProxyDouble } from '../support/tcp-proxy-double.ts';

let house: House;
let proxy: TcpProxyDouble;
beforeAll(async () => {
  house = await startTestHouse({
    targetPort: async (real) => {
      proxy = await tcpProxyDouble(real);
      return proxy.port;
    },
    moreTargets: (target) => `  direct-db: ${JSON.stringify({ kind: 'postgres', ...target.config })}`,
    entitlements: (target) => houseEntitlements(target.groupRole) + houseEntitlements(target.groupRole, 'direct-db').replaceAll(/^ {2}orders-/gm, '  direct-'),
  });
});
afterAll(async () => {
  proxy?.set('pass');
  await house?.close();
  await proxy?.close();
});
afterEach(() => proxy.set('pass'));

const leaseState = async (id: string) =>
  (await house.database.superuser.query<{ state: string; last_error: string | null }>('SELECT state, last_error FROM lease WHERE id = $1', [id])).rows[0]!;

test.each(['refuse', 'reset', 'hang'] as const)(
  'a target that does %s while access must end: overdue in words, others unaffected, done soon after its return',
  async (mode) => {
    const { grant } = await granted(house);
    const issued = await claimed(house, grant);
    const other = await granted(house, { entitlement: 'direct-readonly', by: 'oncall-2' });
    proxy.set(mode);
    const oncall = await house.apiAs('oncall');
    const before = Date.now();
    expect((await oncall.post(`/grants/${grant}/return`)).status).toBe(200);
    expect(Date.now() - before).toBeLessThan(1_000);

    const direct = await claim(house, other.grant, 'oncall-2', 'direct-readonly');
    expect(direct.status).toBe(201);
    await (await house.apiAs('oncall-2')).post(`/grants/${other.grant}/return`);
    await until('the other target’s login is gone', async () => (await leaseState(direct.body.lease)).state === 'revoked', 3_000);

    const shown = await until(
      'it is shown as overdue',
      async () => {
        const { body } = await oncall.get<{ overdue: boolean; leases: { overdue: boolean; lastError: string | null; state: string }[] }>(`/grants/${grant}`);
        return body.overdue && body.leases[0];
      },
      25_000,
    );
    expect(shown).toMatchObject({ state: 'revoking', overdue: true });
    expect(shown.lastError).toMatch(/^orders-db/);

    const refused = await claim(house, (await granted(house)).grant);
    expect(refused.body.code).toMatch(/^target_(unreachable|timeout)$/);
    expect(refused.text).not.toContain('password');

    proxy.set('pass');
    await until('it is done after the return', async () => (await leaseState(issued.lease)).state === 'revoked', 30_000);
    expect(await loginAnswer({ ...issued, connection: { ...issued.connection, port: String(house.target.config.port) } })).toBe('28P01');
    expect(await eventsOf(house, 'grant_id', grant)).toContain('grant.ended');
  },
  90_000,
);

test('a claim whose answer from the target was lost is ended, and the next claim works', async () => {
  const { grant } = await granted(house);
  house.faults.issue = async (real) => {
    await real();
    proxy.set('reset');
    throw new (await import('../../src/domain/provider.ts')).ProviderError('target_unreachable', 'orders-db: the connection broke.');
  };
  const lost = await claim(house, grant);
  expect(lost.body.code).toBe('target_unreachable');
  house.faults.issue = undefined;
  proxy.set('pass');
  const next = await claimed(house, grant);
  await until('one login is left', async () => (await rolesAt(house.target)).every((role) => role.lease === next.lease), 20_000);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
}, 40_000);

test('Halligan’s own database ends every connection: calls answer 503 at worst, and everything goes on by itself', async () => {
  const { grant } = await granted(house, { entitlement: 'direct-readonly' });
  const issued = (await claim(house, grant, 'oncall', 'direct-readonly')).body;
  const session = await connectWith(issued);
  const cut = new Promise<void>((resolve) => session.once('end', () => resolve()));
  const api = await house.apiAs('oncall');
  let stop = false;
  const codes = new Set<string>();
  const calls = (async () => {
    while (!stop) {
      const answer = await api.get('/grants');
      codes.add(`${answer.status} ${answer.body.code ?? ''}`.trim());
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  })();
  for (let round = 0; round < 3; round++) {
    await house.database.superuser.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'halligan_app' AND application_name LIKE 'halligan%'`,
      [house.database.name],
    );
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  await endsIn(house, grant, 500);
  await cut;
  stop = true;
  await calls;
  for (const code of codes) expect(['200', '503 database_unavailable']).toContain(code);
  expect((await api.get('/grants')).status).toBe(200);
  await until('the login is gone', async () => (await leaseState(issued.lease)).state === 'revoked');
  await until('the log goes on being sealed', async () => (await house.database.superuser.query('SELECT FROM audit_pending')).rowCount === 0);
  expect((await house.running.health()).ready).toBe(true);
}, 40_000);

test('Halligan’s own database is read-only: nothing is asked, ended or shown, nothing is half done, and it goes on afterwards', async () => {
  const { grant } = await granted(house, { entitlement: 'direct-readonly' });
  const gate = newGate();
  house.faults.issue = async (real) => {
    const issued = await real();
    await gate.pass();
    return issued;
  };
  const claiming = claim(house, grant, 'oncall', 'direct-readonly');
  await gate.arrived;
  house.faults.issue = undefined;
  const { superuser, name } = house.database;
  const reconnect = () => superuser.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename = 'halligan_app'`, [name]);
  const content = async () =>
    (await superuser.query('SELECT (SELECT count(*) FROM request) AS requests, (SELECT max(position) FROM audit_event) AS last')).rows;
  await superuser.query(`ALTER DATABASE ${name} SET default_transaction_read_only = on`);
  await reconnect();
  try {
    const before = await content();
    const api = await house.apiAs('oncall');
    await until('reading works', async () => (await api.get('/grants')).status === 200);
    const asked = await api.post('/requests', { entitlements: ['direct-readonly'], duration: '5m', reason: 'r' });
    expect([asked.status, asked.body.code]).toEqual([503, 'database_unavailable']);
    gate.open();
    const answer = await claiming;
    expect([answer.status, answer.body.code]).toEqual([503, 'database_unavailable']);
    expect(answer.text).not.toContain('password');
    expect(await content()).toEqual(before);
  } finally {
    await superuser.query(`ALTER DATABASE ${name} RESET default_transaction_read_only`);
    await reconnect();
  }
  // The claim could not even write that it failed: giving back ends what it made.
  await until('giving back works', async () => (await (await house.apiAs('oncall')).post(`/grants/${grant}/return`)).status === 200);
  await until('the grant ended', async () => (await eventsOf(house, 'grant_id', grant)).includes('grant.ended'), 20_000);
}, 60_000);
