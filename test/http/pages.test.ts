/** Every page and form × everybody: a page that nobody put into the table fails; nobody without a login sees or does anything. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Browserless, loginAs, newBrowserless } from '../support/browserless-login.ts';
import { type House, startTestHouse, until } from '../support/house.ts';
import { claimed, granted } from '../support/house-verbs.ts';
import { pageRoutes } from '../support/routes.ts';

let house: House;
let ids: Record<string, string>;
beforeAll(async () => {
  house = await startTestHouse();
  const { request, grant } = await granted(house);
  await claimed(house, grant);
  ids = { request, grant };
});
afterAll(() => house?.close());

/** What a GET answers: to nobody, and to people by whether they may see the request of `oncall`. */
const pages: Record<string, { nobody: string; people: string; others?: string }> = {
  'GET /': { nobody: '303', people: '200' },
  'GET /ask': { nobody: '303', people: '200' },
  'GET /decide': { nobody: '303', people: '200' },
  'GET /requests/:id': { nobody: '303', people: '200', others: '404' },
  'GET /active': { nobody: '303', people: '200' },
  'GET /reviews': { nobody: '303', people: '200' },
  'GET /audit': { nobody: '303', people: '200' },
  'GET /entitlements': { nobody: '303', people: '200' },
  'GET /accounts': { nobody: '303', people: '200' },
  'GET /logins': { nobody: '303', people: '200' },
  'GET /device': { nobody: '303', people: '200' },
  // Without the fields that a terminal sends there is nothing to confirm.
  'GET /login/cli': { nobody: '303', people: '400' },
  'GET /login': { nobody: '200', people: '200|303' },
  'GET /login/callback': { nobody: '401', people: '401' },
  'GET /healthz': { nobody: '200', people: '200' },
  'GET /livez': { nobody: '200', people: '200' },
  'GET /readyz': { nobody: '200', people: '200' },
  'GET /openapi.json': { nobody: '200', people: '200' },
};
const fill = (path: string): string =>
  path
    .replace('/requests/:id', `/requests/${ids['request']}`)
    .replace('/grants/:id', `/grants/${ids['grant']}`)
    .replace(':id', `rev_${'0'.repeat(32)}`);

test('every page that the server has stands in the table', () => {
  const known = pageRoutes(house.running.server!).filter((name) => name.startsWith('GET ') && name !== 'GET /events');
  expect(known.filter((name) => !(name in pages))).toEqual([]);
  expect(Object.keys(pages).filter((name) => !known.includes(name))).toEqual([]);
});

test('every page for everybody', async () => {
  const people: [string, Browserless][] = [];
  for (const person of ['oncall', 'oncall-2', 'lead', 'security', 'reviewer', 'auditor', 'admin', 'stranger'])
    people.push([person, await loginAs(house.url, person)]);
  const wrong: string[] = [];
  for (const [name, expected] of Object.entries(pages)) {
    const path = fill(name.slice(4));
    const nobody = await newBrowserless(house.url).fetch(path);
    if (!expected.nobody.split('|').includes(String(nobody.status))) wrong.push(`${name} for nobody: ${nobody.status}`);
    if (nobody.status === 303) expect(nobody.headers.get('location')).toMatch(/^\/login\?returnTo=/);
    for (const [person, browser] of people) {
      const sees = !['oncall-2', 'security', 'stranger'].includes(person);
      const wanted = sees ? expected.people : (expected.others ?? expected.people);
      const answer = await browser.fetch(path);
      const text = await answer.text();
      if (!wanted.split('|').includes(String(answer.status))) wrong.push(`${name} for ${person}: ${answer.status}`);
      if (answer.headers.get('content-type')?.startsWith('text/html')) {
        expect(answer.headers.get('content-security-policy')).toContain("default-src 'none'");
        expect(answer.headers.get('cache-control'), `${name} for ${person}`).toBe('no-store');
        expect(Buffer.byteLength(text), `${name} for ${person}`).toBeLessThan(50_000);
        expect(text).not.toMatch(/ style=| on[a-z]+="|<script>|https?:\/\/(?!127\.0\.0\.1)[^"]*\.(js|css)/);
      }
    }
  }
  expect(wrong).toEqual([]);
}, 60_000);

test('every form without a login, with and without the origin of our own pages, does nothing', async () => {
  const before = await house.database.superuser.query('SELECT id, state, epoch FROM access_grant UNION ALL SELECT id, state, epoch FROM request ORDER BY 1');
  const forms = pageRoutes(house.running.server!).filter((name) => name.startsWith('POST ') && name !== 'POST /login');
  expect(forms.length).toBeGreaterThan(10);
  for (const name of forms)
    for (const headers of [{}, { origin: house.url }]) {
      const answer = await newBrowserless(house.url).fetch(fill(name.slice(5)), {
        method: 'POST',
        headers,
        body: new URLSearchParams({ reason: 'r', decision: 'approve' }),
      });
      if (name === 'POST /logout') expect([303, 401, 403]).toContain(answer.status);
      else expect([name, answer.status]).toEqual([name, 401]);
    }
  const after = await house.database.superuser.query('SELECT id, state, epoch FROM access_grant UNION ALL SELECT id, state, epoch FROM request ORDER BY 1');
  expect(after.rows).toEqual(before.rows);
});

test('live updates: only for people, only that something changed, within two seconds', async () => {
  expect((await newBrowserless(house.url).fetch('/events')).status).toBe(303);
  const browser = await loginAs(house.url, 'lead');
  const stream = await browser.fetch('/events');
  expect(stream.headers.get('content-type')).toContain('text/event-stream');
  const reader = stream.body!.getReader();
  const began = performance.now();
  await (await house.apiAs('oncall')).post('/requests', { entitlements: ['orders-readonly'], duration: '5m', reason: 'something secret-looking' });
  let said = '';
  while (!said.includes('event: changed')) said += new TextDecoder().decode((await reader.read()).value);
  expect(performance.now() - began).toBeLessThan(2_000);
  expect(said).not.toContain('secret-looking');
  await reader.cancel();
});

test('the head of Active tells those who run Halligan how it does, and nobody else', async () => {
  house.faults.revoke = async () => {
    throw new Error('the target is away');
  };
  try {
    const opened = await granted(house);
    await claimed(house, opened.grant);
    await (await house.apiAs('oncall')).post(`/grants/${opened.grant}/return`);
    await until(
      'a try failed',
      async () => (await house.database.superuser.query('SELECT FROM lease WHERE grant_id = $1 AND tries > 0', [opened.grant])).rowCount === 1,
    );
    await house.database.superuser.query(`UPDATE lease SET revoking_at = now() - interval '192 seconds' WHERE grant_id = $1`, [opened.grant]);
    for (const person of ['auditor', 'admin']) {
      const text = await (await (await loginAs(house.url, person)).fetch('/active')).text();
      expect(text).toContain('aria-label="How Halligan does"');
      expect(text).toMatch(/<td>orders-db<\/td>.*open <\/span>2<\/td>.*due <\/span>1<\/td>.*<span class="state over">1 for 03:1\d<\/span><\/td>/);
      expect(text).toMatch(/number \d<span class="under"><bdi>orders-db: ending the login failed/);
      expect(text).toMatch(/queue in memory, 0 waiting · log sealed .*web\+worker on \S+ \(\d+\), version \d/);
    }
    for (const person of ['oncall', 'lead', 'stranger'])
      expect(await (await (await loginAs(house.url, person)).fetch('/active')).text()).not.toContain('How Halligan does');
  } finally {
    delete house.faults.revoke;
  }
});
