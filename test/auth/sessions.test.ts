import { afterAll, beforeAll, expect, test } from 'vitest';
import { sweepLogins } from '../../src/auth/logins.ts';
import { approachCallback, type Browserless, csrfOf, locationOf, loginAs, newBrowserless } from '../support/browserless-login.ts';
import { refusalOf, startAppWithProvider } from './app.ts';

let app: Awaited<ReturnType<typeof startAppWithProvider>>;
beforeAll(async () => {
  app = await startAppWithProvider();
});
afterAll(() => app.close());

const me = async (browser: Browserless, init?: RequestInit) => (await browser.fetch('/api/v1/me', init)).json() as Promise<{ id: string; loginId: string }>;
const move = (loginId: string, column: 'seen_at' | 'created_at', back: string) =>
  app.database.app.query(`UPDATE session SET ${column} = ${column} - $2::interval WHERE id = $1`, [loginId, back]);
const row = async (loginId: string) =>
  (await app.database.app.query<{ seen_at: Date; data: object }>('SELECT seen_at, data FROM session WHERE id = $1', [loginId])).rows[0];
const header = (browser: Browserless) =>
  Object.entries(browser.cookies())
    .map(([name, value]) => `${name}=${value}`)
    .join('; ');

test('the cookie of a session on loopback http: HttpOnly, SameSite=Lax, Path=/, no Domain', async () => {
  const browser = newBrowserless(app.url);
  const lines = (await browser.fetch(await approachCallback(browser, 'oncall'))).headers.getSetCookie();
  const cookie = lines.find((line) => line.startsWith('halligan='));
  expect(cookie).toMatch(/; HttpOnly/);
  expect(cookie).toMatch(/; SameSite=Lax/);
  expect(cookie).toMatch(/; Path=\/(;|$)/);
  expect(cookie).not.toMatch(/Domain|Secure|Expires|Max-Age/);
});

test('over https both cookies are __Host- and Secure, whatever the proxy says', async () => {
  const secure = await startAppWithProvider({ serverUrl: new URL('https://halligan.example') });
  try {
    const { request } = await import('node:http');
    const call = (path: string, method: string, headers: Record<string, string>) =>
      new Promise<{ location: string; cookies: string[]; status: number }>((resolve, reject) => {
        const sent = request(new URL(path, secure.url), { method, headers: { host: 'halligan.example', ...headers } }, (res) => {
          res.resume();
          resolve({ location: String(res.headers.location ?? ''), cookies: res.headers['set-cookie'] ?? [], status: res.statusCode ?? 0 });
        });
        sent.on('error', reject);
        sent.end();
      });
    const started = await call('/login', 'POST', { origin: 'https://halligan.example' });
    expect(started.cookies).toEqual([expect.stringMatching(/^__Host-halligan-login=.*; Path=\/;.*HttpOnly; Secure; SameSite=Lax$/)]);
    const provider = newBrowserless(secure.idp.url);
    let url = locationOf(await provider.fetch(started.location));
    url = locationOf(await provider.fetch(url, { method: 'POST', body: new URLSearchParams({ person: 'oncall' }) }));
    while (url.hostname !== 'halligan.example') url = locationOf(await provider.fetch(url));
    const finished = await call(url.pathname + url.search, 'GET', { cookie: String(started.cookies[0]).split(';', 1)[0] as string });
    expect(finished.status).toBe(303);
    expect(finished.cookies).toEqual([expect.stringMatching(/^__Host-halligan=.*; Path=\/; HttpOnly; Secure; SameSite=Lax$/)]);
  } finally {
    await secure.close();
  }
});

test('only a hash of the session id is kept', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const id = decodeURIComponent(browser.cookies()['halligan'] ?? '')
    .slice(2)
    .split('.', 1)[0] as string;
  expect(id).toMatch(/^[A-Za-z0-9_-]{43}$/);
  const { rows } = await app.database.app.query('SELECT encode(id_hash, $1) AS hash, id, data::text FROM session', ['escape']);
  expect(JSON.stringify(rows) + app.logged.join('')).not.toContain(id);
});

test('fixation: a session id planted before the login is worth nothing after it', async () => {
  const attacker = await loginAs(app.url, 'lead');
  const planted = attacker.cookies();
  const victim = newBrowserless(app.url);
  const callback = await approachCallback(victim, 'oncall');
  const finished = await victim.fetch(callback, {
    headers: { cookie: `halligan-login=${victim.cookies()['halligan-login']}; halligan=${planted['halligan']}` },
  });
  expect(finished.status).toBe(303);
  expect(victim.cookies()['halligan']).not.toBe(planted['halligan']);
  expect(await me(victim)).toMatchObject({ subject: 'oncall' });
  expect(await refusalOf(await attacker.fetch('/api/v1/me'))).toBe('401 session_over');
});

test('an invented session id makes no session', async () => {
  const { sign } = await import('node:crypto').then(({ createHmac }) => ({
    sign: (id: string) => `s:${id}.${createHmac('sha256', 'halligan: the session id is the secret, not this').update(id).digest('base64').replace(/=+$/, '')}`,
  }));
  const cookie = `halligan=${encodeURIComponent(sign('A'.repeat(43)))}`;
  const before = (await app.database.app.query('SELECT count(*)::int AS n FROM session')).rows[0].n;
  expect(await refusalOf(await newBrowserless(app.url).fetch('/api/v1/me', { headers: { cookie } }))).toBe('401 session_over');
  expect((await app.database.app.query('SELECT count(*)::int AS n FROM session')).rows[0].n).toBe(before);
});

test('the cookie of a login under way is no session', async () => {
  const browser = newBrowserless(app.url);
  await browser.submit('/login');
  const value = browser.cookies()['halligan-login'];
  expect(await refusalOf(await browser.fetch('/api/v1/me', { headers: { cookie: `halligan=${value}` } }))).toBe('401 session_over');
});

test('after fifteen minutes without use a session is over, by the database clock', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const { loginId } = await me(browser);
  await move(loginId, 'seen_at', '14 minutes 50 seconds');
  expect((await browser.fetch('/api/v1/me', { headers: { 'sec-fetch-dest': 'empty' } })).status).toBe(200);
  await move(loginId, 'seen_at', '11 seconds');
  expect(await refusalOf(await browser.fetch('/api/v1/me'))).toBe('401 session_over');
});

test('use keeps a session alive, what a page fetches by itself does not', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const { loginId } = await me(browser);
  await move(loginId, 'seen_at', '5 minutes');
  await me(browser, { headers: { 'sec-fetch-dest': 'empty' } });
  expect(Date.now() - ((await row(loginId))?.seen_at.getTime() ?? 0)).toBeGreaterThan(280_000);
  await me(browser);
  expect(Date.now() - ((await row(loginId))?.seen_at.getTime() ?? 0)).toBeLessThan(20_000);
});

test('after twelve hours a session is over, however much it is used', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const { loginId } = await me(browser);
  await move(loginId, 'created_at', '11 hours 59 minutes');
  expect((await browser.fetch('/api/v1/me')).status).toBe(200);
  await move(loginId, 'created_at', '61 seconds');
  expect(await refusalOf(await browser.fetch('/api/v1/me'))).toBe('401 session_over');
  await expect(browser.fetch('/page').then((response) => locationOf(response).pathname)).resolves.toBe('/login');
});

test('a page sends a visitor without a login there and back; a write does not', async () => {
  const browser = newBrowserless(app.url);
  const location = locationOf(await browser.fetch('/page?x=1&y=%2F'));
  expect(location.pathname + location.search).toBe('/login?returnTo=%2Fpage%3Fx%3D1%26y%3D%252F');
  expect(await (await browser.fetch(location)).text()).toContain('value="/page?x=1&amp;y=%2F"');
  expect(await refusalOf(await browser.submit('/logins/end', { id: 'x' }))).toBe('401 not_logged_in');
});

test('a slow request does not revive a session after its logout', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const { loginId } = await me(browser);
  const cookie = header(browser);
  const slow = browser.fetch('/slow', { headers: { cookie } });
  await app.slowStarted();
  expect(locationOf(await browser.submit('/logout')).pathname).toBe('/login');
  app.release();
  expect((await slow).status).toBe(200);
  expect(await row(loginId)).toBeUndefined();
  expect(await refusalOf(await browser.fetch('/api/v1/me', { headers: { cookie } }))).toBe('401 session_over');
});

test('logging out ends the session, removes the cookie and is witnessed', async () => {
  const browser = await loginAs(app.url, 'security');
  const { id, loginId } = await me(browser);
  await browser.submit('/logout');
  expect(browser.cookies()['halligan']).toBeUndefined();
  expect((await app.events('logout.done')).at(-1)).toMatchObject({ actor: { id, via: 'web' }, data: { login: loginId } });
  expect(await (await browser.fetch('/login?out=1')).text()).toContain(`${app.idp.issuer}/session/end?`);
});

test('logging out everywhere ends every session and terminal of the person, and nobody else', async () => {
  const [here, there, other] = [await loginAs(app.url, 'auditor'), await loginAs(app.url, 'auditor'), await loginAs(app.url, 'admin')];
  expect(locationOf(await here.submit('/logins/end-all')).pathname).toBe('/login');
  expect(await refusalOf(await there.fetch('/api/v1/me'))).toBe('401 session_over');
  expect((await other.fetch('/api/v1/me')).status).toBe(200);
});

test('logins are listed, and each can be ended by its owner only', async () => {
  const [here, there, other] = [await loginAs(app.url, 'lead'), await loginAs(app.url, 'lead'), await loginAs(app.url, 'oncall')];
  const { loginId } = await me(there);
  const { logins } = (await (await here.fetch('/api/v1/me/logins')).json()) as { logins: { id: string; kind: string; current: boolean }[] };
  expect(logins).toContainEqual(expect.objectContaining({ id: loginId, kind: 'web', current: false }));
  expect(logins.filter((login) => login.current)).toHaveLength(1);
  const end = (browser: Browserless) =>
    browser.fetch(`/api/v1/me/logins/${loginId}`, { method: 'DELETE', headers: { origin: app.url.origin, 'x-csrf-token': browser.csrf } });
  expect(await refusalOf(await end(other))).toBe('404 not_found');
  expect((await there.fetch('/api/v1/me')).status).toBe(200);
  expect(await (await end(here)).json()).toEqual({ ended: 1 });
  expect(await refusalOf(await there.fetch('/api/v1/me'))).toBe('401 session_over');
});

test('sessions whose time is up are swept away', async () => {
  const browser = await loginAs(app.url, 'oncall');
  const { loginId } = await me(browser);
  await move(loginId, 'seen_at', '16 minutes');
  await sweepLogins(app.ctx);
  expect(await row(loginId)).toBeUndefined();
});

test('the token of the forms is one of this session, and another after the next login', async () => {
  const browser = await loginAs(app.url, 'oncall');
  expect(await csrfOf(browser, '/logins')).toBe(browser.csrf);
  expect((await loginAs(app.url, 'oncall')).csrf).not.toBe(browser.csrf);
});
