/** What comes in wrong: each with its code, and nothing half done afterwards. */

import { createServer } from 'node:http';
import { connect } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Api, type House, startTestHouse } from '../support/house.ts';
import { ask, granted } from '../support/house-verbs.ts';

let house: House;
let oncall: Api;
let lead: Api;
beforeAll(async () => {
  house = await startTestHouse({ pendingPerPerson: 200 });
  oncall = await house.apiAs('oncall');
  lead = await house.apiAs('lead');
});
afterAll(() => house?.close());

const state = async (): Promise<unknown> =>
  (
    await house.database.superuser.query(
      `SELECT (SELECT count(*) FROM request) AS requests, (SELECT count(*) FROM decision) AS decisions, (SELECT count(*) FROM access_grant) AS grants,
              (SELECT count(*) FROM lease) AS leases, (SELECT count(*) FROM idempotency) AS keys, (SELECT md5(string_agg(id || state || epoch, ',' ORDER BY id)) FROM request) AS hash`,
    )
  ).rows;
const codeOf = (answer: { status: number; body: { code?: string } }) => `${answer.status} ${answer.body.code ?? ''}`.trim();
const asking = (more: object = {}) => ({ entitlements: ['orders-readonly'], duration: '5m', reason: 'a reason', ...more });

describe('asking', () => {
  let before: unknown;
  beforeEach(async () => {
    before = await state();
  });
  afterEach(async () => {
    expect(await state()).toEqual(before);
  });

  const cases: [string, unknown, string][] = [
    ['an unknown field', asking({ admin: true }), '400 bad_input'],
    ['__proto__ as a field', '{"entitlements":["orders-readonly"],"duration":"5m","reason":"r","__proto__":{"breakGlass":true}}', '400 bad_input'],
    ['a wrong type', asking({ entitlements: 'orders-readonly' }), '400 bad_input'],
    ['a number as duration', asking({ duration: 300 }), '400 bad_input'],
    ['a bare number in quotes', asking({ duration: '300' }), '400 duration_invalid'],
    ['a duration of 0', asking({ duration: '0m' }), '400 duration_invalid'],
    ['a negative duration', asking({ duration: '-5m' }), '400 duration_invalid'],
    ['a duration of a year', asking({ duration: '365d' }), '422 duration_too_long'],
    ['a duration past all bounds', asking({ duration: '999999999d' }), '400 duration_invalid'],
    ['a duration above the maximum', asking({ duration: '4h1s' }), '422 duration_too_long'],
    ['an unknown entitlement', asking({ entitlements: ['nothing'] }), '404 entitlement_unknown'],
    ['a known and an unknown entitlement', asking({ entitlements: ['orders-readonly', 'nothing'] }), '404 entitlement_unknown'],
    ['constructor as entitlement', asking({ entitlements: ['constructor'] }), '404 entitlement_unknown'],
    ['no entitlement', asking({ entitlements: [] }), '400 bad_input'],
    ['nine entitlements', asking({ entitlements: Array.from({ length: 9 }, (_, index) => `e${index}`) }), '400 bad_input'],
    ['a reason of 100 kB', asking({ reason: 'x'.repeat(100_000) }), '400 bad_input'],
    ['an empty reason', asking({ reason: '   ' }), '400 bad_input'],
    ['a control character', asking({ reason: 'a\u0000b' }), '400 bad_input'],
    ['an ANSI escape', asking({ reason: '\u001b[2Jgone' }), '400 bad_input'],
    ['half a character', asking({ reason: 'a\ud800' }), '400 bad_input'],
    ['an incident with spaces', asking({ incident: 'INC 1; DROP' }), '400 bad_input'],
    ['a time without a zone', asking({ startAt: '2030-01-01T00:00:00' }), '400 bad_input'],
    ['a start in the past', asking({ startAt: '2001-01-01T00:00:00Z' }), '400 bad_input'],
    ['a start in a year', asking({ startAt: new Date(Date.now() + 365 * 86_400_000).toISOString() }), '400 bad_input'],
    ['break-glass where it is not offered', asking({ entitlements: ['orders-two'], breakGlass: true }), '422 break_glass_not_offered'],
    ['break-glass for too long', asking({ breakGlass: true, duration: '16m' }), '422 duration_too_long'],
    ['an array', '[]', '400 bad_input'],
    ['null', 'null', '400 bad_input'],
    ['half of JSON', '{"entitlements":', '400 bad_input'],
    ['JSON 100,000 deep', `{"reason":${'['.repeat(100_000)}${']'.repeat(100_000)}}`, '400 bad_input'],
    ['a body of 300 kB', asking({ reason: 'x'.repeat(300_000) }), '413 body_too_large'],
  ];
  test.each(cases)('%s: refused', async (_, body, expected) => {
    const answer = await oncall.post('/requests', body);
    expect(codeOf(answer)).toBe(expected);
    expect(answer.body).toMatchObject({ type: `urn:halligan:error:${answer.body.code}`, status: answer.status });
    expect(answer.text.length).toBeLessThan(4_000);
  });

  test('a zip bomb is refused before it is unpacked whole', async () => {
    const { gzipSync } = await import('node:zlib');
    const response = await fetch(`${house.url}/api/v1/requests`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'content-encoding': 'gzip', authorization: `Bearer ${await house.tokenOf('oncall')}` },
      body: gzipSync(`{"reason":"${'x'.repeat(20_000_000)}"}`),
    });
    expect(response.status).toBe(413);
  });

  test('JSON as text/plain, as a form, or without a type is no JSON', async () => {
    const body = JSON.stringify(asking());
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'text/plain; a=application/json'])
      expect(codeOf(await oncall.post('/requests', body, { 'content-type': type }))).toBe('415 media_type_unsupported');
  });

  test('a method that the address does not take: 405 with Allow, whatever the override headers say', async () => {
    const answer = await oncall.call('PUT', '/requests');
    expect(codeOf(answer)).toBe('405 method_not_allowed');
    expect(answer.headers.get('allow')).toBe('POST, GET');
    const { grant } = { grant: `gnt_${'0'.repeat(32)}` };
    expect(codeOf(await oncall.call('GET', `/grants/${grant}/return`, undefined, { 'x-http-method-override': 'POST' }))).toBe('405 method_not_allowed');
    expect(codeOf(await oncall.call('GET', `/grants/${grant}/return?_method=POST`))).toBe('405 method_not_allowed');
    for (const method of ['PATCH', 'DELETE', 'OPTIONS']) expect((await oncall.call(method, '/requests')).status).toBe(405);
    const head = await oncall.call('HEAD', '/requests');
    expect([head.status, head.text]).toEqual([200, '']);
    expect((await oncall.call('HEAD', `/grants/${grant}/return`)).status).toBe(405);
  });

  test('malformed ids, cursors, filters and addresses', async () => {
    const bad: [string, string][] = [
      ['/requests/1', '400 bad_input'],
      ['/requests/req_XYZ', '400 bad_input'],
      [`/requests/gnt_${'0'.repeat(32)}`, '400 bad_input'],
      [`/requests/req_${'0'.repeat(32)}'--`, '400 bad_input'],
      [`/requests/req_${'0'.repeat(32)}`, '404 not_found'],
      ['/requests/%E0%A4%A', '400 bad_input'],
      ['/requests?cursor=nonsense', '400 cursor_invalid'],
      [`/requests?cursor=${Buffer.from("req_x' OR 1=1").toString('base64url')}`, '400 cursor_invalid'],
      ['/requests?state=open', '400 bad_input'],
      ['/requests?state=pending&state=approved', '400 bad_input'],
      ['/requests?unknown=1', '400 bad_input'],
      ['/requests?mine=perhaps', '400 bad_input'],
      ['/requests?mine[a]=1', '400 bad_input'],
      ['/grants?cursor=%00', '400 cursor_invalid'],
      ['/audit/events?from=yesterday', '400 bad_input'],
      ['/audit/events?person=a&person=b', '400 bad_input'],
      ['/audit/proof/-1', '400 bad_input'],
      ['/audit/proof/1e3', '400 bad_input'],
      ['/no-such-thing', '404 not_found'],
    ];
    for (const [path, expected] of bad) expect([path, codeOf(await oncall.get(path))]).toEqual([path, expected]);
    const auditor = await house.apiAs('auditor');
    expect(codeOf(await auditor.get('/audit/proof/999999999999'))).toBe('404 not_found');
    expect(codeOf(await auditor.get('/audit/export?first=5&end=2'))).toMatch(/^(200|400 bad_input)$/);
  });

  test('no login, a foreign one, an ended one', async () => {
    for (const token of ['', 'Bearer', `Bearer hgt_${'a'.repeat(43)}`, 'Bearer nonsense', 'Basic YTpi']) {
      const answer = await fetch(`${house.url}/api/v1/me`, { headers: token ? { authorization: token } : {} });
      expect([token, answer.status]).toEqual([token, 401]);
      expect(answer.headers.get('www-authenticate')).toBe('Bearer realm="halligan"');
      expect(((await answer.json()) as { code: string }).code).toBe('not_logged_in');
    }
    const cookie = await fetch(`${house.url}/api/v1/me`, { headers: { cookie: 'halligan=s%3Aforged.forged; __Host-halligan=s%3Aforged.forged' } });
    expect([cookie.status, ((await cookie.json()) as { code: string }).code]).toEqual([401, 'session_over']);
  });
});

describe('deciding and ending', () => {
  test('a stale seen is 409, a malformed one 400, and the request stays as it was', async () => {
    const request = await ask(house);
    const before = await state();
    for (const [seen, expected] of [
      ['0'.repeat(64), '409 seen_stale'],
      ['x', '400 bad_input'],
      [request.seen.toUpperCase(), '400 bad_input'],
      [undefined, '400 bad_input'],
    ])
      expect(codeOf(await lead.post(`/requests/${request.id}/decisions`, { decision: 'approve', reason: 'r', seen }))).toBe(expected);
    expect(codeOf(await lead.post(`/requests/${request.id}/decisions`, { decision: 'maybe', reason: 'r', seen: request.seen }))).toBe('400 bad_input');
    expect(await state()).toEqual(before);
  });

  test('a claim of what the grant does not hold, of an unknown name, before the start and after the end', async () => {
    const { grant } = await granted(house);
    for (const entitlement of ['orders-two', 'nothing', '__proto__'])
      expect(codeOf(await oncall.post(`/grants/${grant}/leases`, { entitlement }))).toBe('404 not_found');
    await oncall.post(`/grants/${grant}/return`);
    expect(codeOf(await oncall.post(`/grants/${grant}/leases`, { entitlement: 'orders-readonly' }))).toBe('409 grant_not_active');
    expect(codeOf(await oncall.post(`/grants/${grant}/return`))).toBe('409 grant_not_active');
    const later = await oncall.post<{ id: string; seen: string }>('/requests', asking({ startAt: new Date(Date.now() + 600_000).toISOString() }));
    const opened = await lead.post<{ grant: { id: string } }>(`/requests/${later.body.id}/decisions`, {
      decision: 'approve',
      reason: 'r',
      seen: later.body.seen,
    });
    expect(codeOf(await oncall.post(`/grants/${opened.body.grant.id}/leases`, { entitlement: 'orders-readonly' }))).toBe('409 grant_not_active');
    expect((await house.database.superuser.query('SELECT FROM lease WHERE grant_id = ANY ($1)', [[grant, opened.body.grant.id]])).rowCount).toBe(0);
  });

  test('the same entitlement named twice is one', async () => {
    const answer = await oncall.post<{ entitlements: { name: string }[] }>('/requests', asking({ entitlements: ['orders-readonly', 'orders-readonly'] }));
    expect(answer.body.entitlements.map((one) => one.name)).toEqual(['orders-readonly']);
  });
});

describe('Idempotency-Key', () => {
  const send = (key: string, more: object = {}) => oncall.post<{ id: string }>('/requests', asking(more), { 'idempotency-key': key });

  test('the same key and body give the same request; another body is refused; another person has keys of their own', async () => {
    const [first, second] = [await send('one'), await send('one')];
    expect([first.status, second.status, second.body.id]).toEqual([201, 201, first.body.id]);
    expect(codeOf(await send('one', { duration: '6m' }))).toBe('422 idempotency_key_reused');
    const other = await (await house.apiAs('oncall-2')).post<{ id: string }>('/requests', asking(), { 'idempotency-key': 'one' });
    expect(other.status).toBe(201);
    expect(other.body.id).not.toBe(first.body.id);
    for (const key of ['', 'with space', 'x'.repeat(129)]) expect(codeOf(await send(key))).toBe('400 bad_input');
  });

  test('eight at once with one key make one request, and each answer is that one', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => send('at-once')));
    expect(answers.map(codeOf)).toEqual(Array.from({ length: 8 }, () => '201'));
    expect(new Set(answers.map((answer) => answer.body.id)).size).toBe(1);
  });

  test('break-glass repeated opens one grant', async () => {
    const twice = await Promise.all([send('glass', { breakGlass: true }), send('glass', { breakGlass: true })]);
    expect(twice.map(codeOf)).toEqual(['201', '201']);
    const [one] = twice;
    expect((await house.database.superuser.query('SELECT FROM access_grant WHERE request_id = $1', [one!.body.id])).rowCount).toBe(1);
  });
});

describe('slow and broken senders', () => {
  /** The same application behind a server with the same limits, only shorter ones. */
  async function shortServer() {
    const { server } = house.running;
    const [app] = server!.listeners('request') as Parameters<typeof createServer>[1][];
    const short = createServer({ requestTimeout: 600, headersTimeout: 400, connectionsCheckingInterval: 100 }, app);
    await new Promise<void>((resolve) => short.listen(0, '127.0.0.1', resolve));
    return short;
  }

  test('the server has limits for the headers and for the whole request', () => {
    const { server } = house.running;
    expect(server!.requestTimeout).toBeLessThanOrEqual(30_000);
    expect(server!.headersTimeout).toBeLessThanOrEqual(10_000);
    expect(server!.requestTimeout).toBeGreaterThan(0);
  });

  test('a POST that never ends is ended, and nothing came of it', async () => {
    const before = await state();
    const short = await shortServer();
    const address = short.address();
    const socket = connect(typeof address === 'object' && address ? address.port : 0, '127.0.0.1');
    let said = '';
    socket.on('data', (chunk) => {
      said += String(chunk);
    });
    socket.on('error', () => undefined);
    const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
    const token = await house.tokenOf('oncall');
    socket.write(
      `POST /api/v1/requests HTTP/1.1\r\nhost: ${new URL(house.url).host}\r\nauthorization: Bearer ${token}\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"entitle`,
    );
    await closed;
    await new Promise((resolve) => short.close(resolve));
    expect(said).toMatch(/^HTTP\/1\.1 408 /);
    expect(await state()).toEqual(before);
  });

  test('two lengths, a bad chunk and a header of 100 kB are refused by the parser itself', async () => {
    const raw = (text: string) =>
      new Promise<string>((resolve) => {
        const url = new URL(house.url);
        const socket = connect(Number(url.port), url.hostname);
        let said = '';
        socket.on('data', (chunk) => {
          said += String(chunk);
        });
        socket.on('error', () => undefined);
        socket.once('close', () => resolve(said.split('\r\n')[0] ?? ''));
        socket.end(text);
      });
    const { host } = new URL(house.url);
    const head = `POST /api/v1/requests HTTP/1.1\r\nhost: ${host}\r\n`;
    expect(await raw(`${head}content-length: 3\r\ncontent-length: 4\r\n\r\nabcd`)).toMatch(/ 400 /);
    expect(await raw(`${head}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n`)).toMatch(/ 400 /);
    expect(await raw(`${head}x: ${'a'.repeat(100_000)}\r\n\r\n`)).toMatch(/ 431 |^$/);
  });
});

test('another host name than the server’s is refused', async () => {
  const { request } = await import('node:http');
  const status = await new Promise<number | undefined>((resolve) => {
    request(`${house.url}/api/v1/me`, { headers: { host: 'evil.example' } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    }).end();
  });
  expect(status).toBe(421);
});
