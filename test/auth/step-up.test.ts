/** Logins that were asked to be fresh, of a class, or silent: what the provider then says is what counts, and its disobedience is refused and witnessed. */
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { type Browserless, csrfOf, locationOf, newBrowserless } from '../support/browserless-login.ts';
import { clientSecret, refusalOf, startApp, type TestApp } from './app.ts';
import { type IdentityProviderDouble, startIdentityProviderDouble } from './identity-provider-double.ts';

let double: IdentityProviderDouble;
let app: TestApp;
beforeAll(async () => {
  double = await startIdentityProviderDouble(clientSecret);
  app = await startApp({ issuer: double.url });
});
beforeEach(() => {
  double.lie = {};
});
afterAll(async () => {
  await app.close();
  await double.close();
});

const seconds = () => Math.floor(Date.now() / 1_000);
type Me = { id: string; subject: string; authAt: string; acr: string | null; loginId: string };
const me = async (browser: Browserless) => (await (await browser.fetch('/api/v1/me')).json()) as Me;

/** The provider's answer to an authorization request. */
async function answer(browser: Browserless, asked: URL, more: Record<string, string> = { code: 'a code' }): Promise<Response> {
  double.nonce = asked.searchParams.get('nonce') ?? '';
  const url = new URL('/login/callback', app.url);
  url.search = new URLSearchParams({ state: asked.searchParams.get('state') ?? '', iss: double.issuer, ...more }).toString();
  return browser.fetch(url);
}

const start = async (browser: Browserless, fields: Record<string, string> = {}) => locationOf(await browser.submit('/login', fields));

async function loggedIn(claims: Record<string, unknown> = {}): Promise<Browserless> {
  const browser = newBrowserless(app.url);
  double.lie = { claims };
  expect((await answer(browser, await start(browser))).status).toBe(303);
  double.lie = {};
  return browser;
}

async function refusedAndWitnessed(response: Response, words: RegExp): Promise<void> {
  const text = await response.clone().text();
  expect(await refusalOf(response)).toBe('401 login_refused');
  expect(text).toMatch(words);
  expect((await app.events('login.refused')).at(-1)?.data).toMatchObject({ way: 'web', code: 'login_refused', message: expect.stringMatching(words) });
}

test('the request to the provider carries the wish', async () => {
  const browser = await loggedIn();
  const asked = (await start(browser, { returnTo: '/page', max_age: '300', acr_values: 'gold silver' })).searchParams;
  expect([asked.get('max_age'), asked.get('acr_values'), asked.get('prompt')]).toEqual(['300', 'gold silver', null]);
  const silent = locationOf(await browser.fetch('/login?returnTo=/page&prompt=none')).searchParams;
  expect([silent.get('prompt'), silent.get('max_age')]).toEqual(['none', null]);
});

test('a fresh login of the class that was asked for is taken, with its time and class', async () => {
  const browser = await loggedIn({ auth_time: seconds() - 7_200 });
  const before = await me(browser);
  expect(Date.now() - Date.parse(before.authAt)).toBeGreaterThan(7_000_000);
  double.lie = { claims: { acr: 'gold' } };
  const came = await answer(browser, await start(browser, { returnTo: '/page?x=1', max_age: '300', acr_values: 'gold' }));
  expect([came.status, came.headers.get('location')]).toEqual([303, '/page?x=1']);
  const after = await me(browser);
  expect(after).toMatchObject({ id: before.id, acr: 'gold' });
  expect(Date.now() - Date.parse(after.authAt)).toBeLessThan(60_000);
  expect(after.loginId).not.toBe(before.loginId);
});

test.each<[string, Record<string, string>, Record<string, unknown>, RegExp]>([
  ['an auth_time that is too old', { max_age: '300' }, { auth_time: seconds() - 3_600 }, /did not ask you again/],
  ['no auth_time', { max_age: '300' }, { auth_time: undefined }, /did not say when/],
  ['an auth_time that is no number', { max_age: '300' }, { auth_time: 'now' }, /answer was not accepted|did not say when/],
  ['another class', { acr_values: 'gold' }, { acr: 'silver' }, /not of the class gold/],
  ['no class', { acr_values: 'gold' }, { acr: undefined }, /not of the class gold/],
  ['one of two classes', { acr_values: 'gold silver' }, { acr: 'gold' }, /not of the class silver/],
])('attack: at step-up the provider answers with %s: refused, witnessed, and the old login stays as old as it was', async (_, wish, claims, words) => {
  const browser = await loggedIn({ auth_time: seconds() - 7_200 });
  const before = await me(browser);
  double.lie = { claims };
  await refusedAndWitnessed(await answer(browser, await start(browser, wish)), words);
  expect(await me(browser)).toEqual(before);
});

test('attack: the wish cannot be taken off between start and answer: the callback has no say in it', async () => {
  const browser = await loggedIn();
  const asked = await start(browser, { max_age: '60' });
  double.lie = { claims: { auth_time: seconds() - 600 } };
  await refusedAndWitnessed(await answer(browser, asked, { code: 'a code', max_age: '99999', prompt: 'none' }), /did not ask you again/);
});

test('a provider that does not say when: nothing is known, and nothing counts as fresh', async () => {
  expect(Date.parse((await me(await loggedIn({ auth_time: undefined }))).authAt)).toBe(0);
});

test('nobody proves anything in the future: a provider whose clock is ahead counts as now', async () => {
  expect(Date.parse((await me(await loggedIn({ auth_time: seconds() + 900 }))).authAt)).toBeLessThanOrEqual(Date.now() + 1_000);
});

test('a silent login reads groups again and leaves the proof as old and as strong as it was', async () => {
  const at = seconds() - 1_000;
  const browser = await loggedIn({ auth_time: at, acr: 'gold' });
  const before = await me(browser);
  for (const claims of [
    { auth_time: at, acr: undefined },
    { auth_time: undefined, acr: undefined },
  ]) {
    double.lie = { claims: { ...claims, groups: ['leads'] } };
    expect((await answer(browser, locationOf(await browser.fetch('/login?returnTo=/page&prompt=none')))).headers.get('location')).toBe('/page');
    expect(await me(browser)).toMatchObject({ id: before.id, authAt: before.authAt, acr: 'gold', groups: ['leads'] });
  }
});

test('attack: a silent login that is answered for somebody else is refused and witnessed; nobody is changed unasked', async () => {
  const browser = await loggedIn();
  const before = await me(browser);
  const asked = locationOf(await browser.fetch('/login?returnTo=/page&prompt=none'));
  double.lie = { claims: { sub: 'somebody else' } };
  await refusedAndWitnessed(await answer(browser, asked), /for somebody else/);
  expect(await me(browser)).toEqual(before);
});

test.each(['login_required', 'interaction_required', 'consent_required', 'account_selection_required'])(
  'a silent login that ends in %s goes on to the page that asks, and no further by itself',
  async (error) => {
    const browser = await loggedIn();
    const asked = locationOf(await browser.fetch('/login?returnTo=%2Fpage&prompt=none'));
    const came = await answer(browser, asked, { error });
    expect([came.status, came.headers.get('location')]).toEqual([303, '/login?returnTo=%2Fpage&again=1']);
    const page = await browser.fetch(came.headers.get('location') ?? '');
    expect(page.status).toBe(200);
    expect(await page.text()).toContain('Prove once more');
    expect((await start(browser, { returnTo: '/page' })).searchParams.get('prompt')).toBeNull();
  },
);

test('another error of a silent login is a refusal', async () => {
  const browser = await loggedIn();
  const asked = locationOf(await browser.fetch('/login?prompt=none'));
  await refusedAndWitnessed(await answer(browser, asked, { error: 'access_denied' }), /refused: access_denied/);
});

test('attack: login_required in answer to a login that was not silent is a refusal, not a way on', async () => {
  const browser = await loggedIn();
  await refusedAndWitnessed(await answer(browser, await start(browser, { max_age: '300' }), { error: 'login_required' }), /refused: login_required/);
});

test.each([
  ['max_age=-1', 400],
  ['max_age=1e3', 400],
  ['max_age=1&max_age=2', 400],
  ['max_age=', 400],
  ['acr_values=a%22b', 400],
  ['acr_values=%0d%0aSet-Cookie', 400],
  ['acr_values=', 400],
  [`acr_values=${'a%20'.repeat(20)}a`, 400],
  ['prompt=login', 400],
  ['prompt=consent', 400],
  ['prompt=none&prompt=login', 400],
  ['max_age=0', 200],
  ['acr_values=urn:a:b', 200],
])('attack: /login?%s answers %i', async (query, status) => {
  const browser = await loggedIn();
  const answered = await browser.fetch(`/login?returnTo=/page&${query}`);
  expect(answered.status).toBe(status);
  if (status === 400) expect(await refusalOf(answered)).toBe('400 bad_input');
});

test.each(['//evil.example', 'https://evil.example', '/\\evil.example', '/.//evil.example'])(
  'attack: with a wish too, returnTo %j leads to the first page',
  async (returnTo) => {
    const browser = await loggedIn();
    const came = await answer(browser, await start(browser, { returnTo, max_age: '300' }));
    expect(came.headers.get('location')).toBe('/');
    const silent = locationOf(await browser.fetch(`/login?prompt=none&returnTo=${encodeURIComponent(returnTo)}`));
    expect((await answer(browser, silent, { error: 'login_required' })).headers.get('location')).toBe('/login?returnTo=%2F&again=1');
  },
);

test('attack: a silent login cannot be made to lead to another one', async () => {
  const browser = await loggedIn();
  const nested = encodeURIComponent('/login?prompt=none&returnTo=/login?prompt=none');
  expect((await answer(browser, locationOf(await browser.fetch(`/login?prompt=none&returnTo=${nested}`)))).headers.get('location')).toBe('/');
});

test('HEAD starts nothing, and who is not logged in is asked by a page', async () => {
  const browser = await loggedIn();
  expect((await browser.fetch('/login?prompt=none&returnTo=/page', { method: 'HEAD' })).status).toBe(200);
  expect((await newBrowserless(app.url).fetch('/login?prompt=none&returnTo=/page')).status).toBe(200);
});

test.each<[string, Record<string, unknown>, string | null]>([
  ['an address', { email: 'some.one+x@mail.example.com' }, 'some.one+x@mail.example.com'],
  ['a verified one', { email: 'a@b.example', email_verified: true }, 'a@b.example'],
  ['an unverified one', { email: 'a@b.example', email_verified: false }, null],
  ['none', {}, null],
  ['two', { email: 'a@b.example, c@d.example' }, null],
  ['a header', { email: 'a@b.example\r\nBcc: x@y.example' }, null],
  ['no string', { email: ['a@b.example'] }, null],
])('the mail address is written where the provider gives %s', async (_, claims, expected) => {
  const { id } = await me(await loggedIn({ sub: 'mailed', email: undefined, email_verified: undefined, ...claims }));
  const { rows } = await app.database.app.query('SELECT id, email FROM person WHERE subject = $1', ['mailed']);
  expect(rows).toEqual([{ id, email: expected }]);
});

test('attack: the mail address of another person makes nobody that person', async () => {
  const a = await me(await loggedIn({ sub: 'first', email: 'shared@mail.example' }));
  const b = await me(await loggedIn({ sub: 'second', email: 'shared@mail.example' }));
  expect(a.id).not.toBe(b.id);
});

test('the terminal gets the time and the class of the browser that let it in', async () => {
  const at = seconds() - 500;
  const browser = await loggedIn({ sub: 'terminal', auth_time: at, acr: 'gold' });
  const csrf = await csrfOf(browser, '/logins');
  const ask = {
    redirect_uri: 'http://127.0.0.1:1/cb',
    state: 'a-long-enough-state',
    code_challenge: 'w6uP8Tcg6K2QR905Rms8iXTlksL6OD1KOWBxTK7wxPI',
    label: 'tty',
  };
  const came = await browser.submit('/login/cli', { ...ask, code_challenge_method: 'S256', decision: 'confirm', _csrf: csrf });
  expect(came.status).toBe(303);
  const { rows } = await app.database.app.query(`SELECT c.auth_at, c.acr FROM login_code c JOIN person p ON p.id = c.person_id WHERE p.subject = 'terminal'`);
  expect(rows).toEqual([{ auth_at: new Date(at * 1_000), acr: 'gold' }]);
});
