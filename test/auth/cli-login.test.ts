import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Browserless, cliTokenFor, locationOf, loginAs, newBrowserless } from '../support/browserless-login.ts';
import { refusalOf, startAppWithProvider } from './app.ts';

let app: Awaited<ReturnType<typeof startAppWithProvider>>;
let browser: Browserless;
beforeAll(async () => {
  app = await startAppWithProvider();
  browser = await loginAs(app.url, 'oncall');
});
afterAll(() => app.close());

const verifier = randomBytes(32).toString('base64url');
const goodAsk = {
  redirect_uri: 'http://127.0.0.1:49152/callback',
  state: 'a-state-of-the-terminal',
  code_challenge: createHash('sha256').update(verifier).digest('base64url'),
  code_challenge_method: 'S256',
  label: 'oncall@laptop',
};
const askFor = (ask: Record<string, string>) => `/login/cli?${new URLSearchParams(ask)}`;
const confirm = async (fields: Record<string, string> = {}) => locationOf(await browser.submit('/login/cli', { ...goodAsk, decision: 'confirm', ...fields }));
const exchange = (body: unknown) =>
  newBrowserless(app.url).fetch('/api/v1/login/token', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) });
const goodExchange = (code: string | null) => ({ code, code_verifier: verifier, redirect_uri: goodAsk.redirect_uri });
const withToken = (token: string, path = '/api/v1/me', method = 'GET') =>
  newBrowserless(app.url).fetch(path, { method, headers: { authorization: `Bearer ${token}` } });

test('a terminal is logged in by link, and its token is its person', async () => {
  const page = await browser.fetch(askFor(goodAsk));
  expect(page.headers.get('content-security-policy')).toMatch(/form-action 'self' http:\/\/127\.0\.0\.1:49152/);
  expect(await page.text()).toContain('oncall@laptop');
  const url = await confirm();
  expect(url.origin + url.pathname).toBe(goodAsk.redirect_uri);
  expect(url.searchParams.get('state')).toBe(goodAsk.state);
  const answer = (await (await exchange(goodExchange(url.searchParams.get('code')))).json()) as {
    token: string;
    expiresAt: string;
    person: { id: string; subject: string };
  };
  expect(answer.token).toMatch(/^hgt_[A-Za-z0-9_-]{43}$/);
  expect(Date.parse(answer.expiresAt) - Date.now()).toBeLessThanOrEqual(12 * 3_600_000);
  expect(answer.person.subject).toBe('oncall');
  const actor = (await (await withToken(answer.token)).json()) as { id: string; via: string; loginId: string };
  expect(actor).toMatchObject({ id: answer.person.id, via: 'cli', subject: 'oncall', groups: ['oncall'] });
  expect((await app.events('token.issued')).at(-1)).toMatchObject({
    actor: { id: actor.id, via: 'cli' },
    data: { token: actor.loginId, via: 'cli', label: 'oncall@laptop' },
  });
});

test('without a web login the link leads to the login and back', async () => {
  const location = locationOf(await newBrowserless(app.url).fetch(askFor(goodAsk)));
  expect(location.pathname).toBe('/login');
  expect(location.searchParams.get('returnTo')).toBe(askFor(goodAsk));
});

test('saying no sends the terminal an error and makes no code', async () => {
  const url = await confirm({ decision: 'deny' });
  expect(url.searchParams.get('error')).toBe('access_denied');
  expect(url.searchParams.has('code')).toBe(false);
});

test.each([
  ['PKCE plain', { code_challenge_method: 'plain' }, 'code_challenge_method'],
  ['no PKCE method', { code_challenge_method: '' }, 'code_challenge_method'],
  ['a short challenge', { code_challenge: 'abc' }, 'code_challenge'],
  ['no state', { state: '' }, 'state'],
  ['a redirect to another host', { redirect_uri: 'http://evil.example:8080/callback' }, 'redirect_uri'],
  ['a redirect to a look-alike', { redirect_uri: 'http://127.0.0.1.evil.example:80/' }, 'redirect_uri'],
  ['a redirect with a user part', { redirect_uri: 'http://127.0.0.1:80@evil.example/' }, 'redirect_uri'],
  ['a redirect to localhost, which a resolver could move', { redirect_uri: 'http://localhost:4000/' }, 'redirect_uri'],
  ['a redirect by https', { redirect_uri: 'https://127.0.0.1:4000/' }, 'redirect_uri'],
  ['a redirect by another scheme', { redirect_uri: 'javascript:alert(1)' }, 'redirect_uri'],
  ['a redirect without a port', { redirect_uri: 'http://127.0.0.1/callback' }, 'redirect_uri'],
])('%s is refused at the link and at the confirmation, and witnessed', async (_what, change, fault) => {
  const before = (await app.events('login.refused')).length;
  expect(await refusalOf(await browser.fetch(askFor({ ...goodAsk, ...change })))).toBe('400 bad_input');
  expect(await refusalOf(await browser.submit('/login/cli', { ...goodAsk, ...change, decision: 'confirm' }))).toBe('400 bad_input');
  const events = await app.events('login.refused');
  expect(events).toHaveLength(before + 2);
  expect(events.at(-1)).toMatchObject({ actor: { name: 'oncall' }, data: { way: 'cli', code: 'bad_input', reason: fault } });
});

test('a code works once, also when it is sent three times at once', async () => {
  const code = (await confirm()).searchParams.get('code');
  const answers = await Promise.all([1, 2, 3].map(() => exchange(goodExchange(code))));
  expect(answers.map((answer) => answer.status).sort()).toEqual([200, 400, 400]);
  expect(await refusalOf(await exchange(goodExchange(code)))).toBe('400 login_code_invalid');
  expect((await app.events('login.refused')).at(-1)).toMatchObject({ data: { way: 'cli', code: 'login_code_invalid' } });
});

test.each([
  ['another verifier', { code_verifier: randomBytes(32).toString('base64url') }],
  ['another redirect_uri', { redirect_uri: 'http://127.0.0.1:49153/callback' }],
])('%s is refused, and uses the code up', async (_what, change) => {
  const code = (await confirm()).searchParams.get('code');
  expect(await refusalOf(await exchange({ ...goodExchange(code), ...change }))).toBe('400 login_code_invalid');
  expect(await refusalOf(await exchange(goodExchange(code)))).toBe('400 login_code_invalid');
});

test('a code older than sixty seconds is refused', async () => {
  const code = (await confirm()).searchParams.get('code');
  await app.database.app.query(`UPDATE login_code SET expires_at = expires_at - interval '61 seconds'`);
  expect(await refusalOf(await exchange(goodExchange(code)))).toBe('400 login_code_invalid');
});

test('unknown fields and a missing verifier are refused', async () => {
  expect(await refusalOf(await exchange({ ...goodExchange('x'), extra: 1 }))).toBe('400 bad_input');
  expect(await refusalOf(await exchange({ code: 'x', redirect_uri: goodAsk.redirect_uri }))).toBe('400 bad_input');
});

test('a label is kept as one visible line', async () => {
  const code = (await confirm({ label: `a\u202e<script>\nb${'x'.repeat(200)}` })).searchParams.get('code');
  await exchange(goodExchange(code));
  expect(String((await app.events('token.issued')).at(-1)?.data?.['label'])).toMatch(/^a <script> bx+$/);
  const list = await (await browser.fetch('/logins')).text();
  expect(list).not.toContain('<script> b');
});

test('tokens are kept as hashes, end at twelve hours, and can be ended by their owner only', async () => {
  const { token } = await cliTokenFor(app.url, 'oncall', 'to be ended');
  const { rows } = await app.database.app.query(`SELECT row_to_json(token)::text AS row FROM token`);
  expect(JSON.stringify(rows) + app.logged.join('')).not.toContain(token.slice(4));
  const { loginId } = (await (await withToken(token)).json()) as { loginId: string };

  const { token: foreign } = await cliTokenFor(app.url, 'lead');
  expect(await refusalOf(await withToken(foreign, `/api/v1/me/logins/${loginId}`, 'DELETE'))).toBe('404 not_found');
  await app.database.app.query(`UPDATE token SET created_at = created_at - interval '12 hours', expires_at = expires_at - interval '12 hours' WHERE id = $1`, [
    loginId,
  ]);
  expect(await refusalOf(await withToken(token))).toBe('401 not_logged_in');
});

test('a terminal logs itself out, and the event names the token', async () => {
  const { token } = await cliTokenFor(app.url, 'oncall');
  const { loginId } = (await (await withToken(token)).json()) as { loginId: string };
  expect(await (await withToken(token, '/api/v1/me/login', 'DELETE')).json()).toEqual({ ended: 1 });
  expect(await refusalOf(await withToken(token))).toBe('401 not_logged_in');
  expect((await app.events('token.ended')).at(-1)).toMatchObject({ actor: { via: 'cli' }, data: { token: loginId } });
});

test('logging out everywhere takes the unused codes as well', async () => {
  const code = (await confirm()).searchParams.get('code');
  const { token } = await cliTokenFor(app.url, 'oncall');
  const { ended } = (await (await withToken(token, '/api/v1/me/logins', 'DELETE')).json()) as { ended: number };
  expect(ended).toBeGreaterThanOrEqual(2);
  expect(await refusalOf(await exchange(goodExchange(code)))).toBe('400 login_code_invalid');
  expect(await refusalOf(await browser.fetch('/api/v1/me'))).toBe('401 session_over');
  browser = await loginAs(app.url, 'oncall');
});

test('a token cannot make another token', async () => {
  const { token } = await cliTokenFor(app.url, 'oncall');
  const headers = { authorization: `Bearer ${token}` };
  expect(await refusalOf(await newBrowserless(app.url).fetch(askFor(goodAsk), { headers }))).toBe('401 login_refused');
  const posted = await newBrowserless(app.url).fetch('/login/cli', { method: 'POST', headers, body: new URLSearchParams({ ...goodAsk, decision: 'confirm' }) });
  expect(await refusalOf(posted)).toBe('401 login_refused');
});
