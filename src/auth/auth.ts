/**
 * Logins, as the surfaces use them: who makes this request, may this write pass, and the verbs behind the login pages
 * and the login API. The routes themselves live in `http/routes/`.
 */
import type { Request, RequestHandler, Response } from 'express';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { type AuthConfig, assertUsable } from './config.ts';
import { type CookieNames, cookiesFor, readCookie } from './cookies.ts';
import { requireCsrf, requireOwnOrigin } from './csrf.ts';
import { type ProviderClient, providerClient } from './identity-provider.ts';
import { type Limits, newLimits } from './limits.ts';
import { logOut, refuseLogin, sweepLogins } from './logins.ts';
import { type LoginStart, type OidcLogin, oidcLogin, silenceTriedMark } from './oidc.ts';
import { logIn } from './people.ts';
import { csrfTokenFor, regenerate, sessionActor, sessionMiddleware } from './sessions.ts';
import { bearerOf, bringsBearer, tokenActor } from './tokens.ts';
import { agentInWords } from './untrusted-text.ts';

export interface Auth {
  readonly ctx: Ctx;
  readonly config: AuthConfig;
  readonly cookies: CookieNames;
  readonly limits: Limits;
  readonly provider: ProviderClient;
  /** Before every route that asks for a person. Calls with a bearer token pass by it. */
  readonly sessionMiddleware: RequestHandler;
  /** Refuses requests whose Host is not that of `server.url`. For everything but health and metrics. */
  readonly requireOwnHost: RequestHandler;
  /** Before every route that changes something, after the body was parsed. */
  readonly requireCsrf: RequestHandler;
  /** The weaker rule for forms that are shown before a login. */
  readonly requireOwnOrigin: RequestHandler;
  /** Who makes this request. Rejects with `not_logged_in` or `session_over`. At most one query. */
  actorOf(req: Request): Promise<PersonActor>;
  /** The same; `undefined` instead of a refusal. */
  optionalActor(req: Request): Promise<PersonActor | undefined>;
  /** For pages: the actor; or, after having answered a GET with the redirect to the login page, `undefined`. */
  pageActor(req: Request, res: Response): Promise<PersonActor | undefined>;
  /** The token for this session's forms; '' without a session. */
  csrfTokenFor(req: Request): string;
  /** Answers with the redirect to the identity provider. */
  startLogin(req: Request, res: Response, start: LoginStart): Promise<void>;
  /**
   * Answers the GET of a page with the redirect to a silent login, once: false when there is nothing to redirect, because
   * it was tried for this address before, the page was fetched by a script, or the provider does not answer now.
   */
  readGroupsAgain(req: Request, res: Response): Promise<boolean>;
  /** Takes the provider's answer: a new session begins. Returns the path to go on to. Rejects with `login_refused`, witnessed. */
  finishLogin(req: Request, res: Response): Promise<string>;
  /** Ends the session of this request and removes its cookie. */
  endSession(req: Request, res: Response): Promise<void>;
}

/** Makes the room. Nothing is contacted before it is needed: an identity provider that is down stops no start. Throws when a URL is unusable. */
export function createAuth(parts: { readonly ctx: Ctx; readonly config: AuthConfig; readonly limits?: Partial<Limits> }): Auth {
  const { ctx, config } = parts;
  assertUsable(config);
  const cookies = cookiesFor(config.serverUrl);
  const provider = providerClient(config);
  const login = oidcLogin({ pool: ctx.pool, config, cookies, provider });
  const { actorOf, optionalActor } = actors(ctx, cookies);
  const limits = newLimits(parts.limits);
  const startLogin: Auth['startLogin'] = async (req, res, start) => {
    await limits.loginStart(req.ip ?? '');
    await sweepLogins(ctx);
    await witnessed(ctx, login.start(req, res, { ...start, subject: sessionActor(req)?.subject }));
  };
  return {
    ctx,
    config,
    cookies,
    limits,
    provider,
    sessionMiddleware: sessionMiddleware(ctx.pool, cookies),
    requireOwnHost: ownHost(config.serverUrl),
    requireCsrf: requireCsrf(ctx, config.serverUrl, cookies),
    requireOwnOrigin: requireOwnOrigin(ctx, config.serverUrl),
    actorOf,
    optionalActor,
    async pageActor(req, res) {
      try {
        return await actorOf(req);
      } catch (error) {
        if (!isRefusal(error, 'not_logged_in', 'session_over') || req.method !== 'GET') throw error;
        res.redirect(303, `/login?returnTo=${encodeURIComponent(req.originalUrl)}`);
        return undefined;
      }
    },
    csrfTokenFor,
    startLogin,
    async readGroupsAgain(req, res) {
      if (req.method !== 'GET' || req.query[silenceTriedMark] !== undefined || !isNavigation(req) || !sessionActor(req)) return false;
      if (!(await provider.answers())) return false;
      try {
        await startLogin(req, res, { returnTo: req.originalUrl, wish: { silent: true }, otherwise: 'go on' });
        return true;
      } catch (error) {
        // Witnessed. The page is still of use; a decision on it says in words what is missing.
        if (isRefusal(error)) return false;
        throw error;
      }
    },
    async finishLogin(req, res) {
      await limits.callback(req.ip ?? '');
      return finishLogin(ctx, login, req, res);
    },
    async endSession(req, res) {
      const actor = sessionActor(req);
      if (actor) await logOut(ctx, actor);
      res.clearCookie(cookies.session, { ...cookies.attributes });
    },
  };
}

/** A new session id at every login, so that one planted before it is worth nothing. */
async function finishLogin(ctx: Ctx, login: OidcLogin, req: Request, res: Response): Promise<string> {
  const finished = await witnessed(ctx, login.finish(req, res));
  if ('goOn' in finished) return finished.goOn;
  const { identity, returnTo } = finished;
  const earlier = sessionActor(req);
  const sessionId = await regenerate(req);
  const before = earlier?.subject === identity.subject ? earlier : undefined;
  await logIn(ctx, identity, { sessionId, agent: agentInWords(req.get('user-agent')), replaces: earlier?.loginId, before });
  return returnTo;
}

/** Somebody opens a page, rather than a script that fetches it. Browsers that do not say are taken at their best. */
const isNavigation = (req: Request): boolean => (req.get('sec-fetch-dest') ?? 'document') === 'document';

/** A login that fails is an event too. */
async function witnessed<T>(ctx: Ctx, step: Promise<T>): Promise<T> {
  try {
    return await step;
  } catch (error) {
    throw isRefusal(error) ? await refuseLogin(ctx, error, { way: 'web' }) : error;
  }
}

/** Resolves each request's actor once. */
function actors(ctx: Ctx, cookies: CookieNames): Pick<Auth, 'actorOf' | 'optionalActor'> {
  const resolved = new WeakMap<Request, Promise<PersonActor | Refusal>>();
  const resolve = async (req: Request): Promise<PersonActor | Refusal> => {
    if (bringsBearer(req)) {
      const bearer = bearerOf(req);
      const actor = bearer === undefined ? undefined : await tokenActor(ctx.pool, bearer);
      return actor ?? new Refusal('not_logged_in', 'The token is unknown, was ended, or is older than 12 hours.', { next: 'Run halligan login.' });
    }
    const actor = sessionActor(req);
    if (actor) return actor;
    if (readCookie(req, cookies.session) === undefined) return new Refusal('not_logged_in', undefined, { next: 'Log in at /login, or run halligan login.' });
    return new Refusal('session_over', undefined, { next: 'Log in again.' });
  };
  const once = (req: Request) => {
    const pending = resolved.get(req) ?? resolve(req);
    resolved.set(req, pending);
    return pending;
  };
  return {
    async actorOf(req) {
      const actor = await once(req);
      if (actor instanceof Refusal) throw actor;
      return actor;
    },
    async optionalActor(req) {
      const actor = await once(req);
      return actor instanceof Refusal ? undefined : actor;
    },
  };
}

/** Links and redirects are made from `server.url`; a request that came by another name is a mistake or an attack. */
const ownHost =
  (serverUrl: URL): RequestHandler =>
  (req, _res, next) => {
    if (req.get('host') === serverUrl.host) return next();
    throw new Refusal('misdirected', `Halligan is reached at ${serverUrl.origin} only.`, { next: `Open ${serverUrl.origin}, or correct server.url.` });
  };
