/**
 * A person at a browser, without the browser: it keeps cookies, follows redirects and fills in forms over HTTP, through
 * the real login at the development identity provider. The demo and the tests log in this way.
 */
import { createHash, randomBytes } from 'node:crypto';

const deadlineMs = 15_000;

export interface Browserless {
  /** Where Halligan is. */
  readonly base: URL;
  /** Sends the cookies and keeps those that come back; does not follow redirects. A path is one of Halligan's. */
  fetch(target: string | URL, init?: RequestInit): Promise<Response>;
  /** Submits a form of Halligan's as its own page would: Origin and the session's token come by themselves. */
  submit(path: string, fields?: Readonly<Record<string, string>>): Promise<Response>;
  /** The token of this session's forms; '' before a login. */
  readonly csrf: string;
  /** The cookies that are sent to Halligan, by name. */
  cookies(): Record<string, string>;
}

interface Cookie {
  readonly origin: string;
  readonly name: string;
  readonly path: string;
  readonly value: string;
}

/** A fresh browser without cookies. */
export function newBrowserless(baseUrl: string | URL): Browserless & { csrf: string } {
  const base = new URL(baseUrl);
  let jar: Cookie[] = [];
  const sentTo = (url: URL) => jar.filter((cookie) => cookie.origin === url.origin && url.pathname.startsWith(cookie.path));

  function keep(url: URL, line: string): void {
    const [pair = '', ...attributes] = line.split(';').map((part) => part.trim());
    const name = pair.slice(0, pair.indexOf('='));
    const value = pair.slice(pair.indexOf('=') + 1);
    const attribute = (wanted: string) => attributes.find((text) => text.toLowerCase().startsWith(`${wanted}=`))?.slice(wanted.length + 1);
    const path = attribute('path') ?? '/';
    const expires = attribute('expires');
    jar = jar.filter((cookie) => !(cookie.origin === url.origin && cookie.name === name && cookie.path === path));
    if (value !== '' && !(expires && Date.parse(expires) < Date.now())) jar.push({ origin: url.origin, name, path, value });
  }

  const browser = {
    base,
    csrf: '',
    async fetch(target: string | URL, init: RequestInit = {}): Promise<Response> {
      const url = new URL(target, base);
      const headers = new Headers(init.headers);
      const cookies = sentTo(url).map(({ name, value }) => `${name}=${value}`);
      if (cookies.length > 0 && !headers.has('cookie')) headers.set('cookie', cookies.join('; '));
      const response = await fetch(url, { ...init, headers, redirect: 'manual', signal: AbortSignal.timeout(deadlineMs) });
      for (const line of response.headers.getSetCookie()) keep(url, line);
      return response;
    },
    submit: (path: string, fields: Readonly<Record<string, string>> = {}) =>
      browser.fetch(path, {
        method: 'POST',
        headers: { origin: base.origin },
        body: new URLSearchParams({ ...(browser.csrf ? { _csrf: browser.csrf } : {}), ...fields }),
      }),
    cookies: () => Object.fromEntries(sentTo(base).map(({ name, value }) => [name, value])),
  };
  return browser;
}

/** Where a redirect leads. Throws when the answer is none. */
export function locationOf(response: Response): URL {
  const location = response.headers.get('location');
  if (response.status < 300 || response.status > 399 || !location) throw new Error(`no redirect but ${response.status} from ${new URL(response.url).pathname}`);
  return new URL(location, response.url);
}

/** How somebody logs in at the provider, where it is not the plain way. */
export interface Way {
  /** `max_age`, `acr_values`: what the login is wished to be. */
  readonly wish?: Readonly<Record<string, string>>;
  readonly secondFactor?: boolean;
}

/** Starts a login at Halligan and says at the provider who it is. Returns the callback's address, not yet visited. */
export async function approachCallback(browser: Browserless, person: string, returnTo = '/', way: Way = {}): Promise<URL> {
  let url = locationOf(await browser.submit('/login', { returnTo, ...way.wish }));
  let response = await browser.fetch(url);
  if (response.status !== 200) {
    url = locationOf(response);
    response = await browser.fetch(url);
  }
  await response.text();
  let next = locationOf(await browser.fetch(url, { method: 'POST', body: new URLSearchParams({ person, ...(way.secondFactor ? { factor: 'second' } : {}) }) }));
  for (let hop = 0; next.origin === url.origin; hop++) {
    if (hop > 5) throw new Error('the identity provider redirects without end');
    next = locationOf(await browser.fetch(next));
  }
  return next;
}

/** Logs in as a person of the development identity provider. */
export async function loginAs(baseUrl: string | URL, person: string): Promise<Browserless> {
  const browser = newBrowserless(baseUrl);
  const answer = await browser.fetch(await approachCallback(browser, person));
  if (answer.status !== 303) throw new Error(`the login of ${person} was refused: ${answer.status} ${await answer.text()}`);
  browser.csrf = await csrfOf(browser, '/logins');
  return browser;
}

/** Follows redirects from an address until a page answers, as a browser does; at most ten. */
export async function follow(browser: Browserless, target: string | URL): Promise<Response> {
  let response = await browser.fetch(target);
  for (let hop = 0; response.status >= 300 && response.status < 400; hop++) {
    if (hop > 10) throw new Error('redirects without end');
    response = await browser.fetch(locationOf(response));
  }
  return response;
}

/** The token in the first form of a page. */
export async function csrfOf(browser: Browserless, path: string): Promise<string> {
  const text = await (await browser.fetch(path)).text();
  const token = /name="_csrf" value="([^"]+)"/.exec(text)?.[1];
  if (!token) throw new Error(`no form with a token at ${path}`);
  return token;
}

export interface TerminalLogin {
  readonly token: string;
  readonly expiresAt: string;
}

/** Logs a terminal in as `halligan login` does: link, confirmation in the browser, code, exchange with PKCE. */
export async function cliTokenFor(baseUrl: string | URL, person: string, label = 'a terminal'): Promise<TerminalLogin> {
  const browser = await loginAs(baseUrl, person);
  const verifier = randomBytes(32).toString('base64url');
  const ask = {
    redirect_uri: 'http://127.0.0.1:1/callback',
    state: randomBytes(16).toString('base64url'),
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    label,
  };
  const answer = locationOf(await browser.submit('/login/cli', { ...ask, decision: 'confirm' }));
  const code = answer.searchParams.get('code') ?? '';
  const response = await browser.fetch('/api/v1/login/token', {
    method: 'POST',
    headers: { 'content-type': 'application/json', cookie: '' },
    body: JSON.stringify({ code, code_verifier: verifier, redirect_uri: ask.redirect_uri }),
  });
  if (!response.ok) throw new Error(`the terminal's login was refused: ${response.status} ${await response.text()}`);
  return (await response.json()) as TerminalLogin;
}
