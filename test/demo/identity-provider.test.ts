import { createHash, randomBytes } from 'node:crypto';
import { createRemoteJWKSet, decodeJwt, jwtVerify } from 'jose';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { locationOf, newBrowserless } from '../../src/demo/browserless.ts';
import { type IdentityProvider, startIdentityProvider } from '../../src/demo/identity-provider.ts';

const client = {
  clientId: 'halligan',
  clientSecret: 'a secret',
  redirectUris: ['http://127.0.0.1:9/login/callback'],
  postLogoutRedirectUris: ['http://127.0.0.1:9/login'],
};
const printed = vi.fn();
let idp: IdentityProvider;
beforeAll(async () => {
  for (const method of ['log', 'info', 'warn', 'error'] as const) vi.spyOn(console, method).mockImplementation(printed);
  idp = await startIdentityProvider({ clients: [client] });
});
afterAll(async () => {
  await idp.close();
  vi.restoreAllMocks();
});
let browser: ReturnType<typeof newBrowserless>;
beforeEach(() => {
  browser = newBrowserless(idp.url);
});
afterEach(() => expect(printed).not.toHaveBeenCalled());

const verifier = randomBytes(32).toString('base64url');
function ask(change: Record<string, string> = {}): URL {
  const url = new URL('/auth', idp.url);
  const challenge = createHash('sha256').update(verifier).digest('base64url');
  const parameters = {
    client_id: 'halligan',
    response_type: 'code',
    scope: 'openid profile groups',
    redirect_uri: client.redirectUris[0] as string,
    state: 's',
    nonce: 'n',
    code_challenge: challenge,
    code_challenge_method: 'S256',
  };
  url.search = new URLSearchParams({ ...parameters, ...change }).toString();
  return url;
}

async function logIn(person: string, change: Record<string, string> = {}): Promise<URL> {
  const page = locationOf(await browser.fetch(ask(change)));
  let next = locationOf(await browser.fetch(page, { method: 'POST', body: new URLSearchParams({ person }) }));
  while (next.origin === idp.issuer) next = locationOf(await browser.fetch(next));
  return next;
}

const exchange = (code: string | null, codeVerifier: string | undefined = verifier) =>
  fetch(new URL('/token', idp.url), {
    method: 'POST',
    headers: { authorization: `Basic ${btoa('halligan:a+secret')}` },
    body: new URLSearchParams({
      grant_type: 'authorization_code',
      code: code ?? '',
      redirect_uri: client.redirectUris[0] as string,
      ...(codeVerifier ? { code_verifier: codeVerifier } : {}),
    }),
  });

const tokenOf = async (url: URL) => ((await (await exchange(url.searchParams.get('code'))).json()) as { id_token: string }).id_token;

test('a login gives a signed ID token with name, groups, nonce and auth_time', async () => {
  const url = await logIn('lead', { max_age: '60' });
  expect(url.searchParams.get('state')).toBe('s');
  expect(url.searchParams.get('iss')).toBe(idp.issuer);
  const { payload, protectedHeader } = await jwtVerify(await tokenOf(url), createRemoteJWKSet(new URL('/jwks', idp.url)), {
    issuer: idp.issuer,
    audience: 'halligan',
    algorithms: ['RS256'],
  });
  expect(payload).toMatchObject({ sub: 'lead', name: 'lead', groups: ['leads'], nonce: 'n' });
  expect(Math.abs(Number(payload['auth_time']) - Date.now() / 1000)).toBeLessThan(10);
  expect(protectedHeader.kid).toMatch(/^[0-9a-f]{16}$/);
});

test.each([
  ['without PKCE', { code_challenge: '', code_challenge_method: '' }],
  ['with PKCE plain', { code_challenge_method: 'plain' }],
])('a login %s is refused', async (_how, change) => {
  const url = ask(change);
  for (const [name, value] of Object.entries(change)) if (value === '') url.searchParams.delete(name);
  expect(locationOf(await browser.fetch(url)).searchParams.get('error')).toBe('invalid_request');
});

test('a redirect that is not registered, and a client that is not, get a page and no redirect', async () => {
  for (const change of [{ redirect_uri: 'https://evil.example/' }, { client_id: 'other' }] as Record<string, string>[]) {
    const response = await browser.fetch(ask(change));
    expect(response.status).toBe(400);
    expect(await response.text()).toContain('This login cannot go on');
  }
});

test('another verifier gets no token', async () => {
  const url = await logIn('oncall');
  const response = await exchange(url.searchParams.get('code'), randomBytes(32).toString('base64url'));
  expect(await response.json()).toMatchObject({ error: 'invalid_grant' });
});

test('the page of people needs no script and allows none, and says what it is', async () => {
  const response = await browser.fetch(locationOf(await browser.fetch(ask())));
  const text = await response.text();
  for (const person of ['oncall', 'lead', 'security', 'auditor', 'admin']) expect(text).toContain(`value="${person}"`);
  expect(text).toContain('It has no passwords');
  expect(text).not.toMatch(/<script|style=|onclick/);
  expect(response.headers.get('content-security-policy')).toMatch(
    /^default-src 'none'; style-src 'sha256-[^']+'; form-action 'self' http:\/\/127\.0\.0\.1:9; /,
  );
});

test('it asks each time who it is, also in the same browser', async () => {
  expect(decodeJwt(await tokenOf(await logIn('oncall'))).sub).toBe('oncall');
  expect(decodeJwt(await tokenOf(await logIn('lead'))).sub).toBe('lead');
});

test('nobody can log in who is not one of the people', async () => {
  const page = locationOf(await browser.fetch(ask()));
  expect((await browser.fetch(page, { method: 'POST', body: new URLSearchParams({ person: 'nobody' }) })).status).toBe(400);
  expect((await newBrowserless(idp.url).fetch(page)).status).toBe(400);
});

test('people can be added, and their groups changed', async () => {
  idp.people.set('new', { subject: 'new', name: 'New person', groups: ['a'] });
  expect(decodeJwt(await tokenOf(await logIn('new')))).toMatchObject({ sub: 'new', groups: ['a'] });
  idp.setGroups('new', ['b', 'c']);
  expect(decodeJwt(await tokenOf(await logIn('new')))['groups']).toEqual(['b', 'c']);
  expect(() => idp.setGroups('nobody', [])).toThrow('no such person: nobody');
});

test('after a change of keys the old ones are gone and the new one signs', async () => {
  const kids = async () => ((await (await fetch(new URL('/jwks', idp.url))).json()) as { keys: { kid: string }[] }).keys.map((key) => key.kid);
  const before = await kids();
  idp.rotateKeys();
  const after = await kids();
  expect(after).toHaveLength(1);
  expect(after).not.toEqual(before);
  await jwtVerify(await tokenOf(await logIn('oncall')), createRemoteJWKSet(new URL('/jwks', idp.url)), { algorithms: ['RS256'] });
});

test('a logout leads back to the client', async () => {
  await logIn('oncall');
  const end = new URL('/session/end', idp.url);
  end.search = new URLSearchParams({ client_id: 'halligan', post_logout_redirect_uri: 'http://127.0.0.1:9/login' }).toString();
  const text = await (await browser.fetch(end)).text();
  expect(text).toContain('Log out?');
  const xsrf = /name="xsrf" value="([^"]+)"/.exec(text)?.[1] ?? '';
  const response = await browser.fetch('/session/end/confirm', { method: 'POST', body: new URLSearchParams({ xsrf, logout: 'yes' }) });
  expect(locationOf(response).href).toBe('http://127.0.0.1:9/login');
});

test('it listens on loopback, and a taken port is an error', async () => {
  expect(idp.url.hostname).toBe('127.0.0.1');
  await expect(startIdentityProvider({ port: Number(idp.url.port), clients: [client] })).rejects.toMatchObject({ code: 'EADDRINUSE' });
});
