import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { assertUsable } from '../../src/auth/config.ts';
import { type Browserless, locationOf, newBrowserless } from '../support/browserless-login.ts';
import { clientSecret, refusalOf, startApp, type TestApp } from './app.ts';
import { type IdentityProviderDouble, type Lie, startIdentityProviderDouble } from './identity-provider-double.ts';

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

/** Starts a login and comes back with the provider's answer, as told. */
async function comeBack(browser: Browserless, answer: Record<string, string | undefined> = {}, at: TestApp = app): Promise<Response> {
  const asked = locationOf(await browser.submit('/login')).searchParams;
  double.nonce = asked.get('nonce') ?? '';
  const url = new URL('/login/callback', at.url);
  const parameters = { code: 'a code', state: asked.get('state') ?? '', iss: double.issuer, ...answer };
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) url.searchParams.set(name, value);
  return browser.fetch(url);
}

async function expectRefused(response: Response, browser: Browserless, events: number): Promise<void> {
  expect(await refusalOf(response)).toBe('401 login_refused');
  expect(await refusalOf(await browser.fetch('/api/v1/me'))).toBe('401 not_logged_in');
  const refused = await app.events('login.refused');
  expect(refused).toHaveLength(events + 1);
  expect(refused.at(-1)?.data).toMatchObject({ way: 'web', code: 'login_refused' });
}

const refusedSoFar = async () => (await app.events('login.refused')).length;

test('the double, when it does not lie, is believed', async () => {
  const browser = newBrowserless(app.url);
  expect((await comeBack(browser)).status).toBe(303);
  expect(await (await browser.fetch('/api/v1/me')).json()).toMatchObject({ subject: 'someone', groups: ['oncall'] });
  expect(double.exchanges.at(-1)?.get('code_verifier')).toMatch(/^[A-Za-z0-9_-]{43}$/);
});

const now = () => Math.floor(Date.now() / 1000);
const lies: [string, Lie][] = [
  ['a missing nonce', { claims: { nonce: undefined } }],
  ['the nonce of another login', { claims: { nonce: 'another' } }],
  ['a token for another audience', { claims: { aud: 'another-client' } }],
  ['a token for us and others without azp', { claims: { aud: ['halligan', 'other'], azp: 'other' } }],
  ['a token of another issuer', { claims: { iss: 'https://other.example' } }],
  ['an expired token', { claims: { iat: now() - 900, exp: now() - 600 } }],
  ['a token without a subject', { claims: { sub: undefined } }],
  ['a token without an end', { claims: { exp: undefined } }],
  ['HS256 with the public key', { signed: 'HS256 with the public key' }],
  ['HS256 with the client secret', { signed: 'HS256 with the client secret' }],
  ['alg none', { signed: 'not at all' }],
  ['a signature by a key that is not published', { signed: 'by another key' }],
  ['an unknown kid', { header: { kid: 'unpublished' } }],
  ['changed claims under a good signature', { signed: 'with a bit changed' }],
  ['an answer without an ID token', { answer: { id_token: undefined } }],
  ['no groups claim', { claims: { groups: undefined } }],
  ['groups that are one string', { claims: { groups: 'oncall' } }],
  ['groups that are not all strings', { claims: { groups: ['oncall', 7] } }],
  [
    'groups left out for size',
    { claims: { groups: undefined, _claim_names: { groups: 'src1' }, _claim_sources: { src1: { endpoint: 'https://graph.example' } } } },
  ],
  ['groups left out for size beside some groups', { claims: { groups: ['oncall'], _claim_names: { groups: 'src1' } } }],
  ['an error of the token endpoint', { status: 400, answer: { error: 'invalid_grant', error_description: 'a\nsecret <script>' } }],
  ['a broken token endpoint', { status: 500 }],
];
test.each(lies)('%s is refused', async (_what, lie) => {
  const browser = newBrowserless(app.url);
  const events = await refusedSoFar();
  double.lie = lie;
  const response = await comeBack(browser);
  const text = await response.clone().text();
  expect(text).not.toMatch(/script|a code|eyJ/);
  await expectRefused(response, browser, events);
});

test.each([
  ['issuer mix-up: iss of another provider', { iss: 'https://other.example' }],
  ['issuer mix-up: iss left out although announced', { iss: undefined }],
  ['an error answer', { code: undefined, error: 'access_denied' }],
  ['neither code nor error', { code: undefined }],
])('%s is refused, and the code is not sent anywhere', async (_what, answer) => {
  const browser = newBrowserless(app.url);
  const events = await refusedSoFar();
  const exchanges = double.exchanges.length;
  await expectRefused(await comeBack(browser, answer), browser, events);
  expect(double.exchanges).toHaveLength(exchanges);
});

test('a refused answer uses its attempt up', async () => {
  const browser = newBrowserless(app.url);
  double.lie = { claims: { groups: undefined } };
  const refused = await comeBack(browser);
  double.lie = {};
  expect(refused.status).toBe(401);
  expect(await refusalOf(await browser.fetch(refused.url))).toBe('401 login_refused');
});

test('somebody whose groups the provider no longer tells is refused, and has none from then on, also in a session that goes on', async () => {
  const browser = newBrowserless(app.url);
  double.lie = { claims: { sub: 'left-all' } };
  await comeBack(browser);
  const groups = async () => ((await (await browser.fetch('/api/v1/me')).json()) as { groups: string[] }).groups;
  expect(await groups()).toEqual(['oncall']);
  double.lie = { claims: { sub: 'left-all', groups: undefined } };
  expect((await comeBack(newBrowserless(app.url))).status).toBe(401);
  expect(await groups()).toEqual([]);
  const { rows } = await app.database.superuser.query<{ line: string }>(
    `SELECT line FROM audit_event WHERE type = 'login.refused' ORDER BY position DESC LIMIT 1`,
  );
  expect(JSON.parse(rows[0]!.line).data).toMatchObject({ code: 'login_refused', groupsForgotten: true });
});

test('an e-mail address in the token changes nothing about who it is', async () => {
  const subjects = new Set<string>();
  for (const [sub, email] of [
    ['s-1', 'boss@example.com'],
    ['s-1', 'other@example.com'],
    ['s-2', 'boss@example.com'],
  ] as const) {
    const browser = newBrowserless(app.url);
    double.lie = { claims: { sub, email, email_verified: true } };
    await comeBack(browser);
    subjects.add(((await (await browser.fetch('/api/v1/me')).json()) as { id: string }).id);
  }
  expect(subjects.size).toBe(2);
});

test('a name with hidden and control characters is kept without them', async () => {
  const browser = newBrowserless(app.url);
  double.lie = { claims: { sub: 'odd', name: 'A\u202e\u0000\nB'.padEnd(500, 'x') } };
  await comeBack(browser);
  const { name } = (await (await browser.fetch('/api/v1/me')).json()) as { name: string };
  expect(name).toMatch(/^A B?x+$/);
  expect(name).toHaveLength(120);
});

test('an identity provider that is down stops a login in words, not the start, and is tried again', async () => {
  const late = createServer();
  await new Promise<void>((resolve) => late.listen(0, '127.0.0.1', resolve));
  const { port } = late.address() as AddressInfo;
  await new Promise((resolve) => late.close(resolve));
  const other = await startApp({ issuer: new URL(`http://127.0.0.1:${port}`) });
  try {
    const browser = newBrowserless(other.url);
    const refused = await browser.submit('/login');
    expect(await refused.clone().json()).toMatchObject({ detail: 'The identity provider could not be reached.' });
    expect(await refusalOf(refused)).toBe('401 login_refused');
    const { startIdentityProvider } = await import('../../src/demo/identity-provider.ts');
    const idp = await startIdentityProvider({
      port,
      clients: [{ clientId: 'halligan', clientSecret, redirectUris: [new URL('/login/callback', other.url).href] }],
    });
    expect((await browser.submit('/login')).status).toBe(303);
    await idp.close();
  } finally {
    await other.close();
  }
});

test('a provider that signs by HS256 only is refused before anybody is sent there', async () => {
  const hs = await startIdentityProviderDouble(clientSecret);
  hs.announced.id_token_signing_alg_values_supported = ['HS256'];
  const other = await startApp({ issuer: hs.url });
  try {
    expect(await refusalOf(await newBrowserless(other.url).submit('/login'))).toBe('401 login_refused');
  } finally {
    await other.close();
    await hs.close();
  }
});

test('a description that names another issuer is refused', async () => {
  const mixed = await startIdentityProviderDouble(clientSecret);
  mixed.announced.issuer = 'https://other.example';
  const other = await startApp({ issuer: mixed.url });
  try {
    expect(await refusalOf(await newBrowserless(other.url).submit('/login'))).toBe('401 login_refused');
  } finally {
    await other.close();
    await mixed.close();
  }
});

test('plain http is for loopback only', () => {
  const config = { clientId: 'x', clientSecret: async () => undefined, groupsClaim: 'groups' };
  const check = (serverUrl: string, issuer: string) => () => assertUsable({ ...config, serverUrl: new URL(serverUrl), issuer: new URL(issuer) });
  expect(check('https://h.example', 'http://id.example')).toThrow('login.issuer must be https');
  expect(check('http://h.example', 'https://id.example')).toThrow('server.url must be https');
  expect(check('http://127.0.0.1:8300', 'http://127.0.0.1:8400')).not.toThrow();
});
