/**
 * Login at the identity provider, as a passport strategy. openid-client brings one of its own, but it sends no nonce
 * for the code flow, sends state only to providers without PKCE, takes the callback's address from the Host header and
 * keeps one attempt per session; this one starts and finishes attempts as `login-attempts.ts` keeps them.
 */
import type { Request, Response } from 'express';
import { Passport, Strategy } from 'passport';
import type pg from 'pg';
import { Refusal } from '../domain/errors.ts';
import type { AuthConfig } from './config.ts';
import { type CookieNames, readCookie } from './cookies.ts';
import { type Identity, identityOf } from './identity.ts';
import { NotSilently, type ProviderClient } from './identity-provider.ts';
import { startAttempt, takeAttempt } from './login-attempts.ts';
import { safeReturnTo } from './untrusted-text.ts';
import { assertKept, type LoginWish, loginAddress } from './wishes.ts';

/** What a login is started for: where to go on to, and what it is wished to be. */
export interface LoginStart {
  /** Checked here: anything but a path of ours becomes `/`. */
  readonly returnTo: unknown;
  readonly wish?: LoginWish;
  /** Who is logged in here now; a silent login is theirs or nobody's. */
  readonly subject?: string | undefined;
  /** Where a silent login leads when the provider would have to ask something; the login page unless set. */
  readonly otherwise?: 'go on' | 'ask';
}

/** A finished attempt: who it is, and the path of ours they came for; or only where to go on, because a silent login was not to be had. */
export type FinishedLogin = { readonly identity: Identity; readonly returnTo: string } | { readonly goOn: string };

type Step = { readonly start: LoginStart; readonly res: Response } | { readonly finish: true };

interface Parts {
  readonly pool: pg.Pool;
  readonly config: AuthConfig;
  readonly cookies: CookieNames;
  readonly provider: ProviderClient;
}

class HalliganStrategy extends Strategy {
  override readonly name = 'oidc';
  // Not a #private field: passport calls an object that merely inherits from this one.
  readonly parts: Parts;

  constructor(parts: Parts) {
    super();
    this.parts = parts;
  }

  override authenticate(req: Request, step: Step): void {
    const failed = (error: unknown) => this.error(error);
    if ('start' in step) void begin(this.parts, req, step.res, step.start).then((url) => this.redirect(url.href, 303), failed);
    else void finish(this.parts, req).then((login) => this.success(login), failed);
  }
}

async function begin(parts: Parts, req: Request, res: Response, start: LoginStart): Promise<URL> {
  const { wish = {}, subject, otherwise } = start;
  const plan = {
    returnTo: safeReturnTo(start.returnTo),
    wish,
    ...(wish.silent && subject !== undefined ? { subject } : {}),
    ...(otherwise ? { otherwise } : {}),
  };
  const { checks, cookie } = await startAttempt(parts.pool, readCookie(req, parts.cookies.attempts), plan);
  const url = await parts.provider.authorizationUrl(checks, wish);
  res.cookie(parts.cookies.attempts, cookie, { ...parts.cookies.attributes, maxAge: 900_000 });
  return url;
}

/** The attempt is taken out before anything is exchanged, so that a replayed callback finds nothing. */
async function finish(parts: Parts, req: Request): Promise<FinishedLogin> {
  const query = new URL(req.originalUrl, parts.config.serverUrl).searchParams;
  const states = query.getAll('state');
  const state = states.length === 1 ? (states[0] as string) : '';
  const attempt = /^[A-Za-z0-9_-]{43}$/.test(state) ? await takeAttempt(parts.pool, readCookie(req, parts.cookies.attempts), state) : undefined;
  if (!attempt) {
    throw new Refusal('login_refused', 'This login was not started in this browser, was finished already, or took longer than 10 minutes.', {
      next: 'Log in again.',
    });
  }
  const { wish, returnTo, subject } = attempt;
  let claims: Record<string, unknown>;
  try {
    claims = await parts.provider.exchange(query, attempt.checks);
  } catch (error) {
    if (!(error instanceof NotSilently)) throw error;
    if (!wish.silent) throw new Refusal('login_refused', `The identity provider refused: ${error.message}.`, { next: 'Log in again.' });
    return { goOn: attempt.otherwise === 'go on' ? silenceTried(returnTo) : loginAddress(returnTo, {}, { again: '1' }) };
  }
  const identity = identityOf(claims, parts.config);
  if (subject !== undefined && identity.subject !== subject)
    throw new Refusal('login_refused', 'The identity provider answered for somebody else than who is logged in here, without anybody being asked.', {
      next: 'Log out here, and log in as yourself.',
    });
  assertKept(wish, identity, attempt.at);
  return { identity, returnTo };
}

/** The mark on an address that a silent login was tried for it, so that it is not tried again and again. */
export const silenceTriedMark = 'login';
function silenceTried(returnTo: string): string {
  const url = new URL(returnTo, 'https://here.invalid');
  url.searchParams.set(silenceTriedMark, 'tried');
  return `${url.pathname}${url.search}`;
}

export interface OidcLogin {
  /** Answers with the redirect to the provider. Rejects with `login_refused` when the provider cannot be reached. */
  start(req: Request, res: Response, start: LoginStart): Promise<void>;
  /** The provider's answer, checked. Rejects with `login_refused`. */
  finish(req: Request, res: Response): Promise<FinishedLogin>;
}

export function oidcLogin(parts: Parts): OidcLogin {
  const passport = new Passport();
  passport.use(new HalliganStrategy(parts));
  const run = <T>(req: Request, res: Response, step: Step): Promise<T> =>
    new Promise((resolve, reject) => {
      // A start ends in the redirect itself, without a callback.
      if ('start' in step) res.once('close', () => resolve(undefined as T));
      passport.authenticate('oidc', step as object, (error: unknown, login: unknown) => (error ? reject(error) : resolve(login as T)))(req, res, reject);
    });
  return {
    start: (req, res, start) => run(req, res, { start, res }),
    finish: (req, res) => run(req, res, { finish: true }),
  };
}
