/**
 * Writes through a cookie must come from our own pages: the browser says where the page was (Origin, Sec-Fetch-Site)
 * and the page proves that it could read the session's token. Calls with a bearer token carry nothing that a foreign
 * page could make a browser add, and are exempt.
 */
import type { Request, RequestHandler } from 'express';
import { commit } from '../commands/commit.ts';
import type { Ctx } from '../commands/context.ts';
import { Refusal } from '../domain/errors.ts';
import { type CookieNames, readCookie } from './cookies.ts';
import { sameSecret } from './secrets.ts';
import { csrfTokenFor, sessionActor } from './sessions.ts';
import { bringsBearer } from './tokens.ts';

const readMethods = new Set(['GET', 'HEAD', 'OPTIONS']);

/** Whether the browser says that this comes from our own origin. Silence counts as no. */
export function fromOurOrigin(req: Request, serverUrl: URL): boolean {
  const site = req.get('sec-fetch-site');
  if (site !== undefined && site !== 'same-origin') return false;
  const origin = req.get('origin');
  // Pages with `Referrer-Policy: no-referrer` send `Origin: null`; then the browser's own word must do.
  if (origin === undefined || origin === 'null') return site === 'same-origin';
  return origin === serverUrl.origin;
}

/** Refuses with `csrf_refused`, and witnesses it, unless the write comes from our own origin. For forms before a login. */
export function requireOwnOrigin(ctx: Ctx, serverUrl: URL): RequestHandler {
  return async (req, _res, next) => {
    if (!readMethods.has(req.method) && !fromOurOrigin(req, serverUrl)) throw await refused(ctx, req, 'the page was not ours');
    next();
  };
}

/**
 * For every route that changes something, after the body was parsed: own origin, and the session's token in the field
 * `_csrf` or the header `x-csrf-token`. Bodies under `/api/` must be `application/json`, which no form can send.
 */
export function requireCsrf(ctx: Ctx, serverUrl: URL, cookies: CookieNames): RequestHandler {
  return async (req, _res, next) => {
    if (readMethods.has(req.method)) return next();
    const api = req.originalUrl.startsWith('/api/');
    if (api && hasBody(req) && !req.is('application/json'))
      throw new Refusal('media_type_unsupported', undefined, { next: 'Send Content-Type: application/json.' });
    // Without our cookie there is no login that a foreign page could borrow.
    if (bringsBearer(req) || readCookie(req, cookies.session) === undefined) return next();
    if (!fromOurOrigin(req, serverUrl)) throw await refused(ctx, req, 'the page was not ours');
    if (sessionActor(req) && !sameSecret(tokenOf(req), csrfTokenFor(req))) throw await refused(ctx, req, 'the token was missing or wrong');
    next();
  };
}

const hasBody = (req: Request): boolean => req.get('transfer-encoding') !== undefined || Number(req.get('content-length') ?? 0) > 0;

function tokenOf(req: Request): string {
  const body: unknown = req.body;
  const field = typeof body === 'object' && body !== null && '_csrf' in body ? body._csrf : undefined;
  return typeof field === 'string' ? field : (req.get('x-csrf-token') ?? '');
}

async function refused(ctx: Ctx, req: Request, why: string): Promise<Refusal> {
  const refusal = new Refusal('csrf_refused', `This was refused: ${why}.`, { next: 'Load the page again and repeat what you did.' });
  const path = req.originalUrl.split('?', 1)[0] ?? '';
  await commit(ctx, sessionActor(req) ?? { system: 'login' }, async (tx) => {
    tx.witness({
      type: 'access.refused',
      data: { code: refusal.code, method: req.method, path: path.slice(0, 200), reason: why, site: req.get('sec-fetch-site')?.slice(0, 20) },
    });
  });
  return refusal;
}
