/** Invariants 18 and 19: reading changes nothing; every state change has its events, in its own transaction, or does not happen. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { expireGrants } from '../../src/commands/end-grant.ts';
import { sweepStartsAndLapses } from '../../src/workers/expire-grants.ts';
import { openDesk, runRevokeLease } from '../../src/workers/revoke-lease.ts';
import { loginAs } from '../support/browserless-login.ts';
import { type House, startTestHouse } from '../support/house.ts';
import { ask, claim, claimed, eventsOf, granted } from '../support/house-verbs.ts';
import { newGate } from '../support/provider-double.ts';
import { apiTable, pageRoutes } from '../support/routes.ts';

let house: House;
beforeAll(async () => {
  house = await startTestHouse({ worker: false });
  for (const person of ['oncall', 'lead', 'lead-2', 'reviewer', 'auditor', 'admin']) await house.tokenOf(person);
});
afterAll(() => house?.close());

const query = async <T extends object>(sql: string, values: unknown[] = []): Promise<T[]> => (await house.database.superuser.query<T>(sql, values)).rows;

/** The whole content of each table but the log, as one hash a table; when a login was last used is not a change. */
async function content(): Promise<Record<string, string>> {
  const tables = ['person', 'session', 'token', 'login_code', 'request', 'decision', 'access_grant', 'lease', 'review', 'idempotency', 'outbox'];
  const found: Record<string, string> = {};
  for (const table of tables) {
    const [row] = await query<{ hash: string }>(
      `SELECT count(*) || ' ' || md5(coalesce(string_agg((to_jsonb(t) - 'seen_at')::text, '|' ORDER BY (to_jsonb(t) - 'seen_at')::text), '')) AS hash FROM ${table} t`,
    );
    found[table] = row!.hash;
  }
  return found;
}

test('invariant 18: no GET and no HEAD changes a row; only refusals are witnessed', async () => {
  const { request, grant } = await granted(house);
  await claimed(house, grant);
  const oncall = await house.apiAs('oncall');
  await oncall.post('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'an emergency', breakGlass: true });
  const [review] = await query<{ id: string; grant_id: string }>('SELECT id, grant_id FROM review LIMIT 1');
  const ids: Record<string, string> = {
    '/requests/:id': request,
    '/grants/:id': grant,
    '/grants/:id/evidence': grant,
    '/reviews/:id': review!.id,
    '/audit/proof/:index': '0',
  };
  const fill = (path: string) => path.replace(/:(id|index)/, ids[path] ?? '');
  const addresses = [
    ...apiTable.filter((route) => route.method === 'get').map((route) => `/api/v1${fill(route.path)}`),
    ...pageRoutes(house.running.server!)
      .filter((name) => name.startsWith('GET ') && !['/events', '/login/callback'].includes(name.slice(4)))
      .map((name) => fill(name.slice(4))),
    '/openapi.json',
    '/login/callback?code=x&state=y',
  ];
  expect(addresses.length).toBeGreaterThan(30);
  const browsers = [await loginAs(house.url, 'oncall'), await loginAs(house.url, 'lead'), await loginAs(house.url, 'auditor')];
  await house.running.sealer.sealOnce();
  const before = await content();
  const [{ position } = { position: 0 }] = await query<{ position: number }>('SELECT coalesce(max(position), 0) AS position FROM audit_event');
  for (const browser of browsers)
    for (const address of addresses)
      for (const method of ['GET', 'HEAD']) {
        const answer = await browser.fetch(address, { method });
        await answer.arrayBuffer();
        expect(answer.status, `${method} ${address}`).toBeLessThan(500);
      }
  expect(await content()).toEqual(before);
  const events = await query<{ type: string }>('SELECT DISTINCT type FROM audit_event WHERE position > $1', [position]);
  expect(events.map((row) => row.type).filter((type) => !['access.refused', 'login.refused'].includes(type))).toEqual([]);
}, 60_000);

interface Transaction {
  readonly events: string[];
  readonly rows: string[];
}
let seen = new Set<string>();

/** What was committed since the last look: for each transaction its events and the rows of state it left, by `table state`. */
async function committed(): Promise<Transaction[]> {
  const events = await query<{ xid: string; type: string }>('SELECT xmin::text AS xid, type FROM audit_event ORDER BY position');
  const rows = await query<{ xid: string; row: string }>(
    `SELECT xmin::text AS xid, 'request ' || state AS row FROM request UNION ALL SELECT xmin::text, 'grant ' || state FROM access_grant
     UNION ALL SELECT xmin::text, 'lease ' || state FROM lease UNION ALL SELECT xmin::text, 'review ' || state FROM review
     UNION ALL SELECT xmin::text, 'decision ' || decision FROM decision`,
  );
  const all = [...new Set([...events, ...rows].map((one) => one.xid))].sort((a, b) => Number(a) - Number(b));
  const fresh = all.filter((xid) => !seen.has(xid));
  seen = new Set([...seen, ...all]);
  return fresh.map((xid) => ({
    events: events.filter((event) => event.xid === xid).map((event) => event.type),
    rows: rows
      .filter((row) => row.xid === xid)
      .map((row) => row.row)
      .sort(),
  }));
}

const revokeNow = async (): Promise<void> => {
  for (const { id, epoch } of await query<{ id: string; epoch: number }>(`SELECT id, epoch FROM lease WHERE state = 'revoking' ORDER BY id`))
    await runRevokeLease(house.running.ctx, openDesk(house.running.ctx), id, epoch, AbortSignal.timeout(15_000));
};
const decide = async (by: string, request: { id: string; seen: string }, decision = 'approve') => {
  const answer = await (await house.apiAs(by)).post<{ grant: { id: string } | null }>(`/requests/${request.id}/decisions`, {
    decision,
    reason: 'r',
    seen: request.seen,
  });
  expect(answer.status).toBe(200);
  return answer.body.grant?.id ?? '';
};

test('invariant 19: a request of two approvals, claimed twice and given back: each transaction has exactly its events', async () => {
  await committed();
  const request = await ask(house, { entitlement: 'orders-two' });
  expect(await committed()).toEqual([{ events: ['request.submitted'], rows: ['request pending'] }]);
  await decide('lead', request);
  expect(await committed()).toEqual([{ events: ['request.approval-given'], rows: ['decision approve', 'request pending'] }]);
  const grant = await decide('lead-2', request);
  expect(await committed()).toEqual([{ events: ['request.approved', 'grant.opened'], rows: ['decision approve', 'grant active', 'request approved'] }]);
  await claim(house, grant, 'oncall', 'orders-two');
  // The row of the lease is moved by the second transaction, so the first one left only its event.
  expect(await committed()).toEqual([
    { events: ['lease.intended'], rows: [] },
    { events: ['lease.revealed'], rows: ['lease live'] },
  ]);
  await claim(house, grant, 'oncall', 'orders-two');
  expect(await committed()).toEqual([
    { events: ['lease.ending', 'lease.intended'], rows: ['lease revoking'] },
    { events: ['lease.revealed'], rows: ['lease live'] },
  ]);
  await revokeNow();
  expect(await committed()).toEqual([{ events: ['lease.cut', 'lease.revoked'], rows: ['lease revoked'] }]);
  await (await house.apiAs('oncall')).post(`/grants/${grant}/return`);
  expect(await committed()).toEqual([{ events: ['grant.returned', 'lease.ending'], rows: ['grant ending', 'lease revoking'] }]);
  await revokeNow();
  expect(await committed()).toEqual([{ events: ['lease.cut', 'lease.revoked', 'grant.ended'], rows: ['grant ended', 'lease revoked'] }]);
});

test('invariant 19: every other way: break-glass, review, withdraw, deny, lapse, start, expire, revoke, incident', async () => {
  const oncall = await house.apiAs('oncall');
  await committed();
  const opened = await oncall.post<{ grant: { id: string } }>('/requests', {
    entitlements: ['orders-readonly'],
    duration: '5m',
    reason: 'an emergency',
    breakGlass: true,
  });
  expect(await committed()).toEqual([
    { events: ['request.submitted', 'request.glass-broken', 'grant.opened', 'review.due'], rows: ['grant active', 'request approved', 'review due'] },
  ]);
  await (await house.apiAs('admin')).post(`/grants/${opened.body.grant.id}/revoke`, { reason: 'enough' });
  expect(await committed()).toEqual([{ events: ['grant.revoked', 'grant.ended'], rows: ['grant ended'] }]);
  const [review] = await query<{ id: string }>('SELECT id FROM review WHERE grant_id = $1', [opened.body.grant.id]);
  await (await house.apiAs('reviewer')).post(`/reviews/${review!.id}/close`, { verdict: 'drill', notes: 'seen' });
  expect(await committed()).toEqual([{ events: ['review.closed'], rows: ['review closed'] }]);

  await oncall.post(`/requests/${(await ask(house)).id}/withdraw`);
  expect(await committed()).toEqual([
    { events: ['request.submitted'], rows: [] },
    { events: ['request.withdrawn'], rows: ['request withdrawn'] },
  ]);
  await decide('lead', await ask(house), 'deny');
  expect((await committed()).at(-1)).toEqual({ events: ['request.denied'], rows: ['decision deny', 'request denied'] });

  const late = await ask(house);
  await house.database.superuser.query(`UPDATE request SET lapses_at = now() WHERE id = $1`, [late.id]);
  await committed();
  await sweepStartsAndLapses(house.running.ctx);
  expect(await committed()).toEqual([{ events: ['request.lapsed'], rows: ['request lapsed'] }]);

  const later = await oncall.post<{ id: string; seen: string }>('/requests', {
    entitlements: ['orders-readonly'],
    duration: '5m',
    reason: 'later',
    startAt: new Date(Date.now() + 3_600_000).toISOString(),
  });
  const scheduled = await decide('lead', later.body);
  await house.database.superuser.query(`UPDATE access_grant SET starts_at = now() - interval '1 s' WHERE id = $1`, [scheduled]);
  await committed();
  await sweepStartsAndLapses(house.running.ctx);
  expect(await committed()).toEqual([{ events: ['grant.started'], rows: ['grant active'] }]);
  await house.database.superuser.query(`UPDATE access_grant SET ends_at = now() WHERE id = $1`, [scheduled]);
  await committed();
  await expireGrants(house.running.ctx, [scheduled]);
  expect(await committed()).toEqual([{ events: ['grant.expired', 'grant.ended'], rows: ['grant ended'] }]);

  await granted(house, { incident: 'INC-19' });
  await granted(house, { incident: 'INC-19' });
  await committed();
  await (await house.apiAs('lead')).post('/incidents/INC-19/revoke', { reason: 'it is over' });
  expect(await committed()).toEqual([
    { events: ['grant.incident-closed', 'grant.incident-closed', 'grant.ended', 'grant.ended'], rows: ['grant ended', 'grant ended'] },
  ]);
});

test('invariant 19: a refusal changes no row and is an event', async () => {
  const request = await ask(house);
  const { grant } = await granted(house);
  await committed();
  const other = await house.apiAs('oncall-2');
  const oncall = await house.apiAs('oncall');
  const lead = await house.apiAs('lead');
  await committed();
  for (const [call, event] of [
    [() => oncall.post('/requests', { entitlements: ['no-such-thing'], duration: '5m', reason: 'r' }), 'access.refused'],
    [() => oncall.post('/requests', { entitlements: ['orders-readonly'], duration: '5h', reason: 'r' }), 'access.refused'],
    [() => lead.post('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'r' }), 'access.refused'],
    [() => oncall.post(`/requests/${request.id}/decisions`, { decision: 'approve', reason: 'r', seen: request.seen }), 'decision.refused'],
    [() => lead.post(`/requests/${request.id}/decisions`, { decision: 'approve', reason: 'r', seen: '0'.repeat(64) }), 'decision.refused'],
    [() => other.post(`/requests/${request.id}/withdraw`), 'access.refused'],
    [() => other.post(`/grants/${grant}/return`), 'access.refused'],
    [() => other.post(`/grants/${grant}/revoke`, { reason: 'r' }), 'access.refused'],
    [() => other.post(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' }), 'claim.refused'],
    [() => other.post('/incidents/INC-0/revoke', { reason: 'r' }), 'access.refused'],
    [() => other.post(`/reviews/rev_${'0'.repeat(32)}/close`, { verdict: 'drill', notes: 'n' }), 'access.refused'],
    [() => other.get(`/requests/${request.id}`), 'access.refused'],
    [() => other.get('/audit/export'), 'access.refused'],
  ] as const) {
    const answer = await call();
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
    expect(await committed()).toEqual([{ events: [event], rows: [] }]);
  }
});

test('invariant 19: what cannot be witnessed does not happen, and no credential is shown without its event', async () => {
  const { grant } = await granted(house);
  const gate = newGate();
  house.faults.issue = async (real) => {
    const issued = await real();
    await gate.pass();
    return issued;
  };
  const claiming = claim(house, grant);
  await gate.arrived;
  const before = await content();
  await house.database.superuser.query('REVOKE INSERT ON audit_event FROM halligan_app');
  try {
    const oncall = await house.apiAs('oncall');
    const answers = [
      await oncall.post('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'r' }),
      await oncall.post(`/grants/${grant}/return`),
      await (await house.apiAs('lead')).post(`/grants/${grant}/revoke`, { reason: 'r' }),
    ];
    expect(answers.map((answer) => answer.status)).toEqual([500, 500, 500]);
    gate.open();
    const answer = await claiming;
    expect(answer.status).toBe(500);
    expect(answer.text).not.toContain('secret');
    expect(await content()).toEqual(before);
  } finally {
    await house.database.superuser.query('GRANT INSERT ON audit_event TO halligan_app');
    house.faults.issue = undefined;
  }
  expect(await eventsOf(house, 'grant_id', grant)).toEqual(['grant.opened', 'lease.intended']);
});
