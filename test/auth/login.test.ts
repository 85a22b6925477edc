import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { approachCallback, type Browserless, locationOf, loginAs, newBrowserless } from '../support/browserless-login.ts';
import { refusalOf, startAppWithProvider } from './app.ts';

let app: Awaited<ReturnType<typeof startAppWithProvider>>;
beforeAll(async () => {
  app = await startAppWithProvider();
});
afterAll(() => app.close());

const me = async (browser: Browserless) =>
  (await browser.fetch('/api/v1/me')).json() as Promise<{ id: string; name: string; groups: string[]; via: string; loginId: string; authAt: string }>;
const lastRefusal = async () => (await app.events('login.refused')).at(-1);

test('a person logs in, is known by issuer and subject, and the login is witnessed in their name', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const person = await me(browser);
  expect(person).toMatchObject({ subject: 'oncall', name: 'oncall', groups: ['oncall'], via: 'web' });
  expect(Date.now() - Date.parse(person.authAt)).toBeLessThan(60_000);
  const { rows } = await app.database.app.query('SELECT id, issuer, subject, name, groups FROM person WHERE subject = $1', ['oncall']);
  expect(rows).toEqual([{ id: person.id, issuer: app.idp.issuer, subject: 'oncall', name: 'oncall', groups: ['oncall'] }]);
  expect((await app.events('login.succeeded')).at(-1)).toMatchObject({
    actor: { id: person.id, via: 'web' },
    data: { subject: 'oncall', issuer: app.idp.issuer, login: person.loginId },
  });
});

test('groups are those of the latest login', async () => {
  app.idp.people.set('mover', { subject: 'mover', name: 'Mover', groups: ['oncall'] });
  const first = await me(await loginAs(app.url, 'mover'));
  app.idp.setGroups('mover', ['leads', 'security']);
  const second = await me(await loginAs(app.url, 'mover'));
  expect(second).toMatchObject({ id: first.id, groups: ['leads', 'security'] });
});

test('state, nonce and PKCE S256 are always sent, each new', async () => {
  const ask = async () => locationOf(await newBrowserless(app.url).submit('/login')).searchParams;
  const [one, two] = [await ask(), await ask()];
  for (const name of ['state', 'nonce', 'code_challenge']) {
    expect(one.get(name)).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(one.get(name)).not.toBe(two.get(name));
  }
  expect(one.get('code_challenge_method')).toBe('S256');
  expect(one.get('redirect_uri')).toBe(new URL('/login/callback', app.url).href);
});

test('a foreign state is refused: one browser cannot finish the login of another', async () => {
  const callback = await approachCallback(newBrowserless(app.url), 'oncall');
  const victim = newBrowserless(app.url);
  await victim.submit('/login');
  const before = (await app.events('login.refused')).length;
  expect(await refusalOf(await victim.fetch(callback))).toBe('401 login_refused');
  expect((await app.events('login.refused')).length).toBe(before + 1);
  expect(await lastRefusal()).toMatchObject({ actor: { system: 'login' }, data: { way: 'web', code: 'login_refused' } });
});

test.each([
  ['missing', (url: URL) => url.searchParams.delete('state')],
  ['changed', (url: URL) => url.searchParams.set('state', 'A'.repeat(43))],
  ['doubled', (url: URL) => url.searchParams.append('state', url.searchParams.get('state') ?? '')],
])('a %s state is refused', async (_how, change) => {
  const browser = newBrowserless(app.url);
  const callback = await approachCallback(browser, 'oncall');
  change(callback);
  expect(await refusalOf(await browser.fetch(callback))).toBe('401 login_refused');
  expect(await refusalOf(await browser.fetch('/api/v1/me'))).toBe('401 not_logged_in');
});

test('a replayed callback is refused, also when both come at once', async () => {
  const browser = newBrowserless(app.url);
  const callback = await approachCallback(browser, 'lead');
  const cookie = Object.entries(browser.cookies())
    .map(([name, value]) => `${name}=${value}`)
    .join('; ');
  const answers = await Promise.all([1, 2, 3].map(() => browser.fetch(callback, { headers: { cookie } })));
  expect(answers.map((answer) => answer.status).sort()).toEqual([303, 401, 401]);
  expect(await refusalOf(await browser.fetch(callback, { headers: { cookie } }))).toBe('401 login_refused');
});

test('two tabs of one browser can both finish', async () => {
  const browser = newBrowserless(app.url);
  const first = await approachCallback(browser, 'oncall', '/first');
  const second = await approachCallback(browser, 'lead', '/second');
  expect(locationOf(await browser.fetch(first)).pathname).toBe('/first');
  expect(locationOf(await browser.fetch(second)).pathname).toBe('/second');
  expect(await me(browser)).toMatchObject({ subject: 'lead' });
});

test('of six logins under way in one browser the oldest is forgotten', async () => {
  const browser = newBrowserless(app.url);
  const callbacks: URL[] = [];
  for (let tab = 0; tab < 6; tab++) callbacks.push(await approachCallback(browser, 'oncall'));
  expect(await refusalOf(await browser.fetch(callbacks[0] as URL))).toBe('401 login_refused');
  expect((await browser.fetch(callbacks[1] as URL)).status).toBe(303);
});

test('a login that took longer than ten minutes is refused', async () => {
  const browser = newBrowserless(app.url);
  const callback = await approachCallback(browser, 'oncall');
  await app.database.app.query(`UPDATE session SET data = jsonb_build_object('logins', (SELECT jsonb_object_agg(key, value || jsonb_build_object('at', (value->>'at')::numeric - 601)) FROM jsonb_each(data->'logins')))
    WHERE person_id IS NULL AND data->'logins' <> '{}'`);
  expect(await refusalOf(await browser.fetch(callback))).toBe('401 login_refused');
});

test.each(['//evil.example', '/\\evil.example', 'https://evil.example/', '/.//evil.example', '/\tevil', 'evil'])(
  'open redirect: returnTo %j leads to the first page',
  async (returnTo) => {
    const browser = newBrowserless(app.url);
    expect(locationOf(await browser.fetch(await approachCallback(browser, 'oncall', returnTo))).href).toBe(new URL('/', app.url).href);
  },
);

test('returnTo leads to a path of ours', async () => {
  const browser = newBrowserless(app.url);
  expect(locationOf(await browser.fetch(await approachCallback(browser, 'oncall', '/decide?state=pending'))).href).toBe(
    new URL('/decide?state=pending', app.url).href,
  );
});

test('a forged Host is refused, and redirects never follow it', async () => {
  const answer = await new Promise<{ status: number | undefined; location: string | undefined }>((resolve, reject) => {
    void import('node:http').then(({ request }) => {
      const call = request(
        new URL('/login', app.url),
        { method: 'POST', headers: { host: 'evil.example', origin: app.url.origin, 'x-forwarded-host': 'evil.example' } },
        (res) => {
          res.resume();
          resolve({ status: res.statusCode, location: res.headers.location });
        },
      );
      call.on('error', reject);
      call.end();
    });
  });
  expect(answer).toEqual({ status: 421, location: undefined });
});

test('an e-mail address is no identity: two subjects with one address are two people', async () => {
  for (const subject of ['twin-a', 'twin-b']) app.idp.people.set(subject, { subject, name: 'same@example.com', groups: [] });
  const [a, b] = [await me(await loginAs(app.url, 'twin-a')), await me(await loginAs(app.url, 'twin-b'))];
  expect(a.id).not.toBe(b.id);
});

test('a HEAD of the callback finishes nothing', async () => {
  const browser = newBrowserless(app.url);
  const callback = await approachCallback(browser, 'oncall');
  expect((await browser.fetch(callback, { method: 'HEAD' })).status).toBe(405);
  expect((await browser.fetch(callback)).status).toBe(303);
});

test('after the provider changed its keys, the next key fetch is one minute away at most', async () => {
  await loginAs(app.url, 'oncall');
  app.idp.rotateKeys();
  const browser = newBrowserless(app.url);
  const callback = await approachCallback(browser, 'oncall');
  expect(await refusalOf(await browser.fetch(callback))).toBe('401 login_refused');
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 61_000 });
  try {
    expect((await me(await loginAs(app.url, 'oncall'))).name).toBe('oncall');
  } finally {
    vi.useRealTimers();
  }
});

test('nothing secret of a login rests in the database or the log', async () => {
  const browser = newBrowserless(app.url);
  const url = locationOf(await browser.submit('/login', { returnTo: '/x' }));
  const secrets = [url.searchParams.get('state'), url.searchParams.get('nonce'), ...Object.values(browser.cookies())].map(String);
  expect(secrets).toHaveLength(3);
  const { rows } = await app.database.app.query('SELECT encode(id_hash, $1) AS hash, data::text FROM session', ['escape']);
  const dump = JSON.stringify(rows) + app.logged.join('');
  for (const secret of secrets) expect(dump).not.toContain(secret);
});
