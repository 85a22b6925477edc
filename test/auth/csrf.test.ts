import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Browserless, cliTokenFor, loginAs, newBrowserless } from '../support/browserless-login.ts';
import { refusalOf, startAppWithProvider } from './app.ts';

let app: Awaited<ReturnType<typeof startAppWithProvider>>;
let browser: Browserless;
beforeAll(async () => {
  app = await startAppWithProvider();
  browser = await loginAs(app.url, 'oncall');
});
afterAll(() => app.close());

interface Attempt {
  readonly path?: string;
  readonly origin?: string | null;
  readonly site?: string;
  readonly token?: string | null;
  readonly type?: string;
}

function write({ path = '/api/v1/change', origin = app.url.origin, site, token = browser.csrf, type = 'application/json' }: Attempt): Promise<Response> {
  const headers: Record<string, string> = { 'content-type': type };
  if (origin !== null) headers.origin = origin;
  if (site) headers['sec-fetch-site'] = site;
  if (token !== null) headers['x-csrf-token'] = token;
  return browser.fetch(path, { method: 'POST', headers, body: type.includes('form') ? 'a=b' : '{}' });
}

test('our own pages can write', async () => {
  expect((await write({})).status).toBe(200);
  expect((await write({ site: 'same-origin' })).status).toBe(200);
  expect((await write({ origin: 'null', site: 'same-origin' })).status).toBe(200);
  expect((await write({ origin: null, site: 'same-origin' })).status).toBe(200);
});

const forged: [string, () => Attempt][] = [
  ['a foreign origin', () => ({ origin: 'https://evil.example' })],
  ['our host at another port', () => ({ origin: 'http://127.0.0.1:1' })],
  ['a sibling domain: same-site', () => ({ site: 'same-site' })],
  ['cross-site with a forged Origin', () => ({ site: 'cross-site' })],
  ['an opaque origin', () => ({ origin: 'null' })],
  ['no word of where it came from', () => ({ origin: null })],
  ['no token', () => ({ token: null })],
  ['a wrong token', () => ({ token: 'A'.repeat(43) })],
  ['an empty token', () => ({ token: '' })],
];
test.each(forged)('%s is refused with csrf_refused, and witnessed', async (_what, attempt) => {
  const before = (await app.events('access.refused')).length;
  expect(await refusalOf(await write(attempt()))).toBe('403 csrf_refused');
  const events = await app.events('access.refused');
  expect(events).toHaveLength(before + 1);
  expect(events.at(-1)).toMatchObject({
    actor: { name: 'oncall', via: 'web' },
    data: { code: 'csrf_refused', method: 'POST', path: '/api/v1/change' },
  });
});

test('the token of another session is refused', async () => {
  const other = await loginAs(app.url, 'lead');
  expect(await refusalOf(await write({ token: other.csrf }))).toBe('403 csrf_refused');
});

test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/json5', 'multipart/form-data; boundary=x'])(
  'JSON as %s is refused: no form may reach the API',
  async (type) => {
    expect(await refusalOf(await write({ type }))).toBe('415 media_type_unsupported');
  },
);

test.each(['/logout', '/logins/end', '/logins/end-all', '/login/cli', '/device', '/device/decide'])(
  'the form of %s needs our origin and the token',
  async (path) => {
    const post = (headers: Record<string, string>, fields: Record<string, string>) =>
      browser.fetch(path, { method: 'POST', headers, body: new URLSearchParams(fields) });
    expect(await refusalOf(await post({ origin: 'https://evil.example' }, { _csrf: browser.csrf }))).toBe('403 csrf_refused');
    expect(await refusalOf(await post({ origin: app.url.origin }, {}))).toBe('403 csrf_refused');
    expect(
      await refusalOf(await browser.fetch(path, { method: 'POST', headers: { origin: app.url.origin }, body: `_csrf=${browser.csrf}&_csrf=${browser.csrf}` })),
    ).toMatch(/403 csrf_refused/);
    expect((await browser.fetch('/api/v1/me')).status).toBe(200);
  },
);

test('a foreign page cannot start a login', async () => {
  const visitor = newBrowserless(app.url);
  for (const headers of [{ origin: 'https://evil.example' }, { 'sec-fetch-site': 'cross-site', origin: app.url.origin }, {}]) {
    expect(await refusalOf(await visitor.fetch('/login', { method: 'POST', headers: new Headers(headers as Record<string, string>) }))).toBe(
      '403 csrf_refused',
    );
  }
  expect((await app.events('access.refused')).at(-1)).toMatchObject({ actor: { system: 'login' }, data: { path: '/login' } });
});

test('a bearer token needs no token of a form, and counts alone: the cookies beside it do not', async () => {
  const { token } = await cliTokenFor(app.url, 'lead');
  const call = (authorization: string) =>
    browser.fetch('/api/v1/change', { method: 'POST', headers: { authorization, 'content-type': 'application/json' }, body: '{}' });
  expect((await call(`Bearer ${token}`)).status).toBe(200);
  expect(await refusalOf(await call(`Bearer hgt_${'A'.repeat(43)}`))).toBe('401 not_logged_in');
  expect(await refusalOf(await call('Bearer'))).toBe('401 not_logged_in');
  expect(await refusalOf(await call('Basic YTpi'))).toBe('403 csrf_refused');
});

test('without any login a write is refused as such', async () => {
  expect(
    await refusalOf(await newBrowserless(app.url).fetch('/api/v1/change', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{}' })),
  ).toBe('401 not_logged_in');
});
