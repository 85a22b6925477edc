import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { readUserCode } from '../../src/auth/device-codes.ts';
import { type Browserless, loginAs, newBrowserless } from '../support/browserless-login.ts';
import { refusalOf, startAppWithProvider } from './app.ts';

let app: Awaited<ReturnType<typeof startAppWithProvider>>;
let browser: Browserless;
beforeAll(async () => {
  app = await startAppWithProvider();
});
beforeEach(async () => {
  // A person's guesses are limited; each test is another person.
  const subject = `person-${Math.random().toString(36).slice(2)}`;
  app.idp.people.set(subject, { subject, name: 'A person', groups: ['leads'] });
  browser = await loginAs(app.url, subject);
});
afterAll(() => app.close());

interface Started {
  readonly device_code: string;
  readonly user_code: string;
  readonly verification_uri: string;
  readonly verification_uri_complete: string;
  readonly interval: number;
  readonly expires_in: number;
}
const post = (path: string, body: unknown) =>
  newBrowserless(app.url).fetch(path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
const start = async (label = 'oncall@bastion') => (await (await post('/api/v1/device/start', { label })).json()) as Started;
const poll = (code: string) => post('/api/v1/device/token', { device_code: code });
/** As if the interval had passed since the last poll. */
const wait = () => app.database.app.query(`UPDATE login_code SET polled_at = polled_at - interval '3 seconds'`);
const decide = (code: string, decision: string) => browser.submit('/device/decide', { user_code: code, decision });

test('a terminal is logged in by code, and its login is marked as one that may not decide', async () => {
  const started = await start();
  expect(started).toMatchObject({ verification_uri: new URL('/device', app.url).href, interval: 2, expires_in: 600 });
  expect(started.user_code).toMatch(/^[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}$/);
  expect(await refusalOf(await poll(started.device_code))).toBe('400 login_pending');

  expect(await (await browser.fetch(started.verification_uri_complete)).text()).toContain(`value="${started.user_code}"`);
  const page = await (await browser.submit('/device', { user_code: started.user_code.toLowerCase().replace('-', ' ') })).text();
  expect(page).toContain('oncall@bastion');
  expect(page).toContain('it is an attack');
  expect((await decide(started.user_code, 'confirm')).status).toBe(200);

  await wait();
  const answer = (await (await poll(started.device_code)).json()) as { token: string };
  const actor = (await (await newBrowserless(app.url).fetch('/api/v1/me', { headers: { authorization: `Bearer ${answer.token}` } })).json()) as {
    id: string;
    loginId: string;
  };
  expect(actor).toMatchObject({ via: 'device', name: 'A person' });
  expect((await app.events('token.issued')).at(-1)).toMatchObject({ actor: { id: actor.id, via: 'device' }, data: { token: actor.loginId, via: 'device' } });
  await wait();
  expect(await refusalOf(await poll(started.device_code))).toBe('400 login_code_invalid');
});

test('both codes rest as hashes', async () => {
  const started = await start();
  const { rows } = await app.database.app.query(
    `SELECT row_to_json(login_code)::text AS row, encode(code_hash, 'escape') AS a, encode(user_code_hash, 'escape') AS b FROM login_code`,
  );
  const dump = JSON.stringify(rows) + app.logged.join('');
  for (const secret of [started.device_code, started.user_code, started.user_code.replace('-', '')]) expect(dump).not.toContain(secret);
});

test('a terminal that polls too fast is slowed down', async () => {
  const { device_code } = await start();
  await poll(device_code);
  expect(await refusalOf(await poll(device_code))).toBe('429 login_slow_down');
});

test('of two polls at once after the confirmation one gets the token', async () => {
  const { device_code, user_code } = await start();
  await decide(user_code, 'confirm');
  const answers = await Promise.all([1, 2, 3].map(() => poll(device_code)));
  expect(answers.filter((answer) => answer.status === 200)).toHaveLength(1);
});

test('a denied code gives nothing, and the denial is witnessed', async () => {
  const { device_code, user_code } = await start('a stranger');
  expect(await (await decide(user_code, 'deny')).text()).toContain('was refused');
  expect((await app.events('login.refused')).at(-1)).toMatchObject({ actor: { name: 'A person' }, data: { way: 'device', label: 'a stranger' } });
  expect(await refusalOf(await poll(device_code))).toBe('401 login_refused');
  await wait();
  expect(await refusalOf(await poll(device_code))).toBe('400 login_code_invalid');
});

test('anything but a clear yes is a no', async () => {
  const { device_code, user_code } = await start();
  await decide(user_code, 'yes');
  expect(await refusalOf(await poll(device_code))).toBe('401 login_refused');
});

test('a code cannot be confirmed twice, nor by a second person', async () => {
  const { device_code, user_code } = await start();
  await decide(user_code, 'confirm');
  expect(await refusalOf(await decide(user_code, 'confirm'))).toBe('400 login_code_invalid');
  const first = browser;
  browser = await loginAs(app.url, 'security');
  expect(await refusalOf(await decide(user_code, 'confirm'))).toBe('400 login_code_invalid');
  const { person } = (await (await poll(device_code)).json()) as { person: { id: string } };
  expect(await (await first.fetch('/api/v1/me')).json()).toMatchObject({ id: person.id });
});

test('after ten minutes a code is over on both sides', async () => {
  const { device_code, user_code } = await start();
  await app.database.app.query(`UPDATE login_code SET expires_at = expires_at - interval '10 minutes'`);
  expect((await browser.submit('/device', { user_code })).status).toBe(400);
  expect(await refusalOf(await decide(user_code, 'confirm'))).toBe('400 login_code_invalid');
  expect(await refusalOf(await poll(device_code))).toBe('400 login_code_invalid');
});

test('guessing codes is cut off', async () => {
  for (let guess = 0; guess < 20; guess++) expect((await browser.submit('/device', { user_code: 'BBBB-BBBB' })).status).toBe(400);
  expect(await refusalOf(await browser.submit('/device', { user_code: 'BBBB-BBBB' }))).toBe('429 rate_limited');
});

test('the page of the code needs a web login; a token will not do', async () => {
  const { user_code } = await start();
  expect((await newBrowserless(app.url).fetch('/device')).headers.get('location')).toBe('/login?returnTo=%2Fdevice');
  const { device_code, user_code: second } = await start();
  await decide(second, 'confirm');
  const { token } = (await (await poll(device_code)).json()) as { token: string };
  const response = await newBrowserless(app.url).fetch('/device/decide', {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: new URLSearchParams({ user_code, decision: 'confirm' }),
  });
  expect(await refusalOf(response)).toBe('401 login_refused');
});

test('logging out everywhere takes back a confirmation that was not fetched', async () => {
  const { device_code, user_code } = await start();
  await decide(user_code, 'confirm');
  await browser.submit('/logins/end-all');
  expect(await refusalOf(await poll(device_code))).toBe('400 login_code_invalid');
});

test('what can be a code', () => {
  expect(readUserCode(' bcdf-ghjk ')).toBe('BCDFGHJK');
  expect(readUserCode('BCDF–GHJK')).toBe('BCDFGHJK');
  for (const typed of ['', 'BCDF', 'AAAA-AAAA', 'BCDF-GHJKL', 7, undefined, 'B'.repeat(1000)]) expect(readUserCode(typed)).toBeUndefined();
});
