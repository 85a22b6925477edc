/** The routes of logging in and out at the web, and of the list of one's logins. The pages themselves are handed in: `http` and `web` never import each other. */
import express, { type Request, type Response, Router } from 'express';
import type { Auth } from '../../auth/auth.ts';
import { endAllLogins, endLogin, type Login, listLogins } from '../../auth/logins.ts';
import { safeReturnTo } from '../../auth/untrusted-text.ts';
import { type LoginWish, readWish, wishesProof, wishParameters } from '../../auth/wishes.ts';
import { durationInWords } from '../../domain/duration.ts';
import { Refusal } from '../../domain/errors.ts';

export interface Viewer {
  readonly actor: { readonly name: string };
  readonly csrf: string;
}

/** What `web/login-pages.ts` offers. */
export interface LoginPages {
  loginPage(view: {
    returnTo: string;
    provider: string;
    loggedOut?: { providerLogout: string | undefined } | undefined;
    /** The wish, which goes through the form unchanged. */
    wish?: Readonly<Record<string, string>>;
    /** Set when somebody is logged in already, and is to prove it again: why. */
    again?: { name: string; csrf: string; why: string } | undefined;
  }): string;
  cliLoginPage(viewer: Viewer, view: { label: string; port: string; fields: Readonly<Record<string, string>> }): string;
  deviceCodePage(viewer: Viewer, view: { userCode: string; fault?: string | undefined }): string;
  deviceConfirmPage(viewer: Viewer, view: { userCode: string; label: string }): string;
  deviceDonePage(viewer: Viewer, decision: 'confirm' | 'deny'): string;
  loginsPage(viewer: Viewer, logins: readonly Login[], now: Date): string;
}

/** Forms of these pages are small. */
export const readForm = express.urlencoded({ extended: false, limit: '16kb', parameterLimit: 20 });

/** One field of a parsed form; '' when it is missing or came twice. */
export function field(req: Request, name: string): string {
  const body: unknown = req.body;
  const value = typeof body === 'object' && body !== null ? (body as Record<string, unknown>)[name] : undefined;
  return typeof value === 'string' ? value : '';
}

/** Sends a page that no cache may keep. */
export const send = (res: Response, text: string): void => void res.setHeader('cache-control', 'no-store').type('html').send(text);

/** Browsers apply `form-action` to the redirects after a form as well, so the page whose form leads elsewhere must name where. */
export function allowFormTo(res: Response, ...sources: string[]): void {
  const name = 'content-security-policy';
  const policy = String(res.getHeader(name) ?? "default-src 'self'; base-uri 'none'; frame-ancestors 'none'");
  const others = policy.split(';').filter((directive) => !directive.trim().startsWith('form-action'));
  res.setHeader(name, [...others, ` form-action 'self' ${sources.join(' ')}`].join(';'));
}

/** A silent login never leads to another login, so that no address can send a browser in circles. */
const withoutLogin = (returnTo: string): string => (/^\/login(\?|$)/.test(returnTo) ? '/' : returnTo);

function whyAgain({ maxAge, acrValues }: LoginWish): string {
  const wants = [
    ...(maxAge === undefined ? [] : [`at most ${durationInWords(maxAge)} old`]),
    ...(acrValues === undefined ? [] : [`of the class ${acrValues.join(' ')}`]),
  ];
  return wants.length > 0 ? `What you are about to do needs a login that is ${wants.join(' and ')}.` : 'Your groups have to be read there again.';
}

export function loginRoutes(auth: Auth, pages: LoginPages): Router {
  const { config, provider } = auth;
  const router = Router();

  router.get('/login', async (req, res) => {
    const returnTo = safeReturnTo(req.query.returnTo);
    const wish = readWish(req.query);
    const actor = await auth.optionalActor(req);
    if (actor && !wishesProof(wish) && !wish.silent && req.query.again === undefined) return res.redirect(303, returnTo);
    // Only for who is logged in: without them there is nobody whose groups could be read in silence.
    if (actor && wish.silent && req.method === 'GET') return auth.startLogin(req, res, { returnTo: withoutLogin(returnTo), wish });
    // A provider may send the browser on to others before it asks anything; all of them are https.
    allowFormTo(res, 'https:', ...(config.issuer.protocol === 'http:' ? [config.issuer.origin] : []));
    const loggedOut = req.query.out === undefined ? undefined : { providerLogout: provider.logoutUrl()?.href };
    const { silent: _, ...proof } = wish;
    const again = actor && { name: actor.name, csrf: auth.csrfTokenFor(req), why: whyAgain(wish) };
    send(res, pages.loginPage({ returnTo, provider: config.issuer.host, loggedOut, wish: wishParameters(proof), again }));
  });

  router.post('/login', readForm, auth.requireOwnOrigin, (req, res) =>
    auth.startLogin(req, res, { returnTo: field(req, 'returnTo'), wish: readWish((req.body ?? {}) as Record<string, unknown>) }),
  );

  router.get('/login/callback', async (req, res) => {
    if (req.method !== 'GET') throw new Refusal('method_not_allowed');
    res.setHeader('cache-control', 'no-store');
    res.redirect(303, await auth.finishLogin(req, res));
  });

  router.post('/logout', readForm, auth.requireCsrf, async (req, res) => {
    await auth.endSession(req, res);
    res.redirect(303, '/login?out=1');
  });

  ownLogins(router, auth, pages);
  return router;
}

function ownLogins(router: Router, auth: Auth, pages: LoginPages): void {
  router.get('/logins', async (req, res) => {
    const actor = await auth.pageActor(req, res);
    if (!actor) return;
    send(res, pages.loginsPage({ actor, csrf: auth.csrfTokenFor(req) }, await listLogins(auth.ctx, actor), new Date()));
  });

  router.post('/logins/end', readForm, auth.requireCsrf, async (req, res) => {
    const actor = await auth.actorOf(req);
    const id = field(req, 'id');
    if (id === actor.loginId) {
      await auth.endSession(req, res);
      return res.redirect(303, '/login?out=1');
    }
    await endLogin(auth.ctx, actor, id);
    res.redirect(303, '/logins');
  });

  router.post('/logins/end-all', readForm, auth.requireCsrf, async (req, res) => {
    await endAllLogins(auth.ctx, await auth.actorOf(req));
    res.clearCookie(auth.cookies.session, { ...auth.cookies.attributes });
    res.redirect(303, '/login?out=1');
  });
}
