/** Every form of the console, through a real login: it does what it says, refuses in words, and shows hostile text as text. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Browserless, loginAs } from '../support/browserless-login.ts';
import { type House, startTestHouse, until } from '../support/house.ts';
import { housePeople } from '../support/house-config.ts';
import { ask, claimed, eventsOf, granted, loginAnswer } from '../support/house-verbs.ts';
import { pageRoutes } from '../support/routes.ts';

let house: House;
let oncall: Browserless;
let lead: Browserless;
let reviewer: Browserless;
const hostileName = '<img src=x onerror=alert(1)>\u202eevil';
beforeAll(async () => {
  house = await startTestHouse({ people: [...housePeople(), { subject: 'hostile', name: hostileName, groups: ['oncall'] }] });
  oncall = await loginAs(house.url, 'oncall');
  lead = await loginAs(house.url, 'lead');
  reviewer = await loginAs(house.url, 'reviewer');
});
afterAll(() => house?.close());

const leadsTo = (answer: Response) => `${answer.status} ${answer.headers.get('location')}`;
const state = async (table: 'request' | 'access_grant' | 'review', id: string) =>
  (await house.database.superuser.query<{ state: string }>(`SELECT state FROM ${table} WHERE id = $1`, [id])).rows[0]?.state;

test('every form that the console has stands in this file', () => {
  const forms = pageRoutes(house.running.server!).filter((name) => name.startsWith('POST '));
  expect(forms).toEqual(
    [
      'POST /accounts/link-code',
      'POST /accounts/unlink',
      'POST /ask',
      'POST /deliveries/:id/repeat',
      'POST /device',
      'POST /device/decide',
      'POST /grants/:id/claim',
      'POST /grants/:id/return',
      'POST /grants/:id/revoke',
      'POST /incidents/revoke',
      'POST /login',
      'POST /login/cli',
      'POST /logins/end',
      'POST /logins/end-all',
      'POST /logout',
      'POST /requests/:id/decide',
      'POST /requests/:id/withdraw',
      'POST /reviews/:id/close',
    ].sort(),
  );
});

test('ask, see, decide, claim once, give back', async () => {
  const asked = await oncall.submit('/ask', {
    entitlement: 'orders-readonly',
    chip: '15m',
    duration: '',
    reason: 'look at the queue',
    incident: 'INC-1',
    how: 'ask',
  });
  expect(leadsTo(asked)).toMatch(/^303 \/requests\/req_[0-9a-f]{32}\?did=asked$/);
  const path = asked.headers.get('location')!.split('?')[0]!;
  const id = path.split('/')[2]!;
  const page = await (await lead.fetch(path)).text();
  const seen = /name="seen" value="([0-9a-f]{64})"/.exec(page)?.[1] ?? '';
  expect(page).toContain('look at the queue');

  const stale = await lead.submit(`/requests/${id}/decide`, { decision: 'approve', reason: 'my reason', seen: '0'.repeat(64) });
  const words = await stale.text();
  expect(stale.status).toBe(422);
  expect(words).toContain('What was shown is no longer what would be granted.');
  expect(words).toContain('my reason</textarea>');
  expect(await state('request', id)).toBe('pending');

  expect(leadsTo(await lead.submit(`/requests/${id}/decide`, { decision: 'approve', reason: 'go on', seen }))).toBe(`303 ${path}?did=approved`);
  const grant = /\/grants\/(gnt_[0-9a-f]{32})\/claim/.exec(await (await oncall.fetch(path)).text())?.[1] ?? '';
  const shown = await oncall.submit(`/grants/${grant}/claim`, { entitlement: 'orders-readonly', request: id });
  expect([shown.status, shown.headers.get('cache-control')]).toEqual([200, 'no-store']);
  const html = await shown.text();
  const password = /data-secret>([^<]+)</.exec(html)?.[1] ?? '';
  const handle = /user=(hg_lse_[0-9a-f]{32})/.exec(html)?.[1] ?? '';
  const issued = {
    lease: '',
    grant,
    handle,
    expiresAt: '',
    connection: { host: '127.0.0.1', port: String(house.target.config.port), database: house.target.database },
    secret: { password },
  };
  expect(await loginAnswer(issued)).toBe('let in');
  for (const again of ['/', path, '/active', '/audit']) expect(await (await oncall.fetch(again)).text()).not.toContain(password);
  expect(leadsTo(await oncall.submit(`/grants/${grant}/return`))).toBe('303 /?did=returned');
  await until('it is refused', async () => (await loginAnswer(issued)) === '28P01');
});

/**
 * The story of a bug: the form of a claim names the request whose page the answer is. With a wrong or missing name the
 * login was made and revealed in the log, and then the answer was “there is nothing here”: a secret nobody ever saw.
 */
test('a claim shows its secret whatever request the form names', async () => {
  for (const named of [undefined, 'req_nonsense', (await ask(house, { by: 'oncall-2' })).id]) {
    const { grant } = await granted(house);
    const answer = await oncall.submit(`/grants/${grant}/claim`, { entitlement: 'orders-readonly', ...(named ? { request: named } : {}) });
    expect(answer.status).toBe(200);
    expect(await answer.text()).toMatch(/data-secret>[^<]{20,}</);
    await oncall.submit(`/grants/${grant}/return`);
  }
});

/** With Slack, these two are driven in test/slack/surface.test.ts. */
test('without Slack there is no account to link, and none to unlink', async () => {
  expect(await (await oncall.fetch('/accounts')).text()).toContain('Slack is not set up here.');
  expect((await oncall.submit('/accounts/link-code')).status).toBe(404);
  expect((await oncall.submit('/accounts/unlink', { workspace: 'T0123ABCD', account: 'U0123ABCD' })).status).toBe(404);
});

test('a refused claim says why, and that of another is not there', async () => {
  const { request, grant } = await granted(house);
  const other = await loginAs(house.url, 'oncall-2');
  expect((await other.submit(`/grants/${grant}/claim`, { entitlement: 'orders-readonly', request })).status).toBe(404);
  await oncall.submit(`/grants/${grant}/return`);
  const late = await oncall.submit(`/grants/${grant}/claim`, { entitlement: 'orders-readonly', request });
  expect(late.status).toBe(422);
  expect(await late.text()).toContain('The grant is ended (returned).');
});

test('withdraw, twice, and somebody else’s', async () => {
  const { id } = await ask(house);
  expect((await lead.submit(`/requests/${id}/withdraw`)).status).toBe(404);
  expect(leadsTo(await oncall.submit(`/requests/${id}/withdraw`))).toBe(`303 /requests/${id}?did=withdrawn`);
  const again = await oncall.submit(`/requests/${id}/withdraw`);
  expect(again.status).toBe(409);
  expect(await again.text()).toContain('request_already_decided');
});

test('revoke with a reason, without one, with a body that is no form; an incident', async () => {
  const one = await granted(house, { incident: 'INC-2' });
  const two = await granted(house, { incident: 'INC-2' });
  expect((await lead.submit(`/grants/${one.grant}/revoke`, { reason: ' ' })).status).toBe(400);
  expect((await lead.submit(`/grants/${one.grant}/revoke`)).status).toBe(400);
  const foreign = await lead.fetch(`/grants/${one.grant}/revoke`, {
    method: 'POST',
    headers: { origin: house.url, 'content-type': 'application/json', 'x-csrf-token': lead.csrf },
    body: '{"reason":"r"}',
  });
  expect(foreign.status).toBe(400);
  expect(await state('access_grant', one.grant)).toBe('active');
  expect(leadsTo(await lead.submit(`/grants/${one.grant}/revoke`, { reason: 'enough' }))).toBe('303 /active?did=revoked');
  expect(await state('access_grant', one.grant)).toBe('ended');
  expect((await lead.submit(`/grants/${one.grant}/revoke`, { reason: 'enough' })).status).toBe(409);
  const empty = await lead.fetch('/incidents/revoke', {
    method: 'POST',
    headers: { origin: house.url, 'content-type': 'application/json', 'x-csrf-token': lead.csrf },
    body: '{}',
  });
  expect(empty.status).toBe(400);
  expect(leadsTo(await lead.submit('/incidents/revoke', { incident: 'INC-2', reason: 'over' }))).toBe('303 /active?did=ended');
  expect(await state('access_grant', two.grant)).toBe('ended');
  expect((await lead.submit('/incidents/revoke', { incident: 'INC-2', reason: 'over' })).status).toBe(404);
});

test('break-glass needs its tick; its review is closed by somebody else', async () => {
  const glass = { entitlement: 'orders-readonly', chip: '15m', reason: 'an emergency', how: 'glass' };
  const without = await oncall.submit('/ask', glass);
  expect(without.status).toBe(422);
  expect(await without.text()).toContain('Nothing was opened');
  const opened = await oncall.submit('/ask', { ...glass, sure: 'yes' });
  expect(leadsTo(opened)).toMatch(/did=glass$/);
  const id = opened.headers.get('location')!.split('?')[0]!.split('/')[2]!;
  const { rows } = await house.database.superuser.query<{ review: string; grant: string }>(
    'SELECT r.id AS review, g.id AS grant FROM review r JOIN access_grant g ON g.id = r.grant_id WHERE g.request_id = $1',
    [id],
  );
  const { review, grant } = rows[0]!;
  const early = await reviewer.submit(`/reviews/${review}/close`, { verdict: 'justified', notes: 'n' });
  expect(early.status).toBe(422);
  expect(await early.text()).toContain('The grant still lasts');
  await oncall.submit(`/grants/${grant}/return`);
  expect((await oncall.submit(`/reviews/${review}/close`, { verdict: 'justified', notes: 'n' })).status).toBe(422);
  expect((await reviewer.submit(`/reviews/${review}/close`, { verdict: 'fine', notes: 'n' })).status).toBe(422);
  expect(await state('review', review)).toBe('due');
  expect(leadsTo(await reviewer.submit(`/reviews/${review}/close`, { verdict: 'drill', notes: 'seen' }))).toBe('303 /reviews?did=reviewed');
});

test('a form without its token, or from another origin, changes nothing and is witnessed', async () => {
  const { id } = await ask(house);
  for (const init of [
    { headers: { origin: house.url }, body: new URLSearchParams({}) },
    { headers: { origin: house.url }, body: new URLSearchParams({ _csrf: 'x'.repeat(43) }) },
    { headers: { origin: 'https://evil.example' }, body: new URLSearchParams({ _csrf: oncall.csrf }) },
    { headers: { origin: house.url, 'sec-fetch-site': 'cross-site' }, body: new URLSearchParams({ _csrf: oncall.csrf }) },
  ])
    expect((await oncall.fetch(`/requests/${id}/withdraw`, { method: 'POST', ...init })).status).toBe(403);
  expect(await state('request', id)).toBe('pending');
  const { rows } = await house.database.superuser.query(`SELECT FROM audit_event WHERE type = 'access.refused' AND line LIKE $1`, [`%${id}/withdraw%`]);
  expect(rows.length).toBe(4);
});

test('hostile text is shown as text on every page: no tag of it lives, hidden characters are made visible', async () => {
  const hostile = await loginAs(house.url, 'hostile');
  const reason = '</textarea><script>alert(1)</script>" onmouseover="x\u202e\u200b\u2066txt.exe';
  const asked = await hostile.submit('/ask', { entitlement: 'orders-readonly', chip: '15m', reason, how: 'glass', sure: 'yes', incident: 'INC-3' });
  const id = asked.headers.get('location')!.split('?')[0]!.split('/')[2]!;
  const pending = await ask(house, { by: 'hostile', reason, incident: 'INC-3' });
  const { rows } = await house.database.superuser.query<{ id: string }>('SELECT id FROM access_grant WHERE request_id = $1', [id]);
  await claimed(house, rows[0]!.id, 'hostile');
  await lead.submit(`/grants/${rows[0]!.id}/revoke`, { reason });
  const { rows: reviews } = await house.database.superuser.query<{ id: string }>('SELECT id FROM review WHERE grant_id = $1', [rows[0]!.id]);
  await reviewer.submit(`/reviews/${reviews[0]!.id}/close`, { verdict: 'misuse', notes: reason });
  const failing = await hostile.submit('/ask', { entitlement: 'orders-readonly', duration: '<b>5</b>', reason, how: 'ask', incident: '"><script>' });
  const admin = await loginAs(house.url, 'admin');
  const pages: Record<string, string> = { 'the form again': await failing.text() };
  for (const [who, browser] of Object.entries({ hostile, lead, reviewer, admin }))
    for (const path of [
      '/',
      '/ask',
      '/decide',
      '/active',
      '/active?incident=%22%3E%3Cscript%3E',
      '/reviews',
      '/audit',
      '/audit?person=%22%3E%3Cscript%3E',
      '/logins',
      `/requests/${id}`,
      `/requests/${pending.id}`,
    ])
      pages[`${path} for ${who}`] = await (await browser.fetch(path)).text();
  let shown = 0;
  for (const [where, page] of Object.entries(pages)) {
    expect(page, where).not.toMatch(/<script>|<img |<b>5| onmouseover="x| onerror=alert\(1\)>/);
    // In what is shown; the form may give back what was typed, unchanged.
    const read = page.replaceAll(/<textarea[^>]*>[^<]*<\/textarea>/g, '');
    expect(/[\u202a-\u202e\u2066-\u2069\u200b]/.test(read), `${where} lets a hidden character through`).toBe(false);
    if (page.includes('U+202E')) shown++;
  }
  expect(shown).toBeGreaterThan(10);
});

test('the story of a request names what happened and the codes of refusals', async () => {
  const { request, grant } = await granted(house);
  await oncall.submit(`/requests/${request}/decide`, { decision: 'approve', reason: 'mine', seen: '0'.repeat(64) });
  expect(await eventsOf(house, 'request_id', request)).toContain('decision.refused');
  const page = await (await lead.fetch(`/requests/${request}`)).text();
  expect(page).toContain('self_decision');
  await oncall.submit(`/grants/${grant}/return`);
});
