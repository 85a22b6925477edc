/** The pages on which a person lets a terminal in: by the link it opened (`/login/cli`) or by the code it shows (`/device`). */
import { type Request, type Response, Router } from 'express';
import type { Auth } from '../../auth/auth.ts';
import { type CliLoginAsk, cliLoginDenied, confirmCliLogin, readCliAsk } from '../../auth/cli-codes.ts';
import { decideDeviceLogin, readUserCode, waitingDevice } from '../../auth/device-codes.ts';
import { refuseLogin } from '../../auth/logins.ts';
import { silenceTriedMark } from '../../auth/oidc.ts';
import { loginAddress, readNeed, wishFor } from '../../auth/wishes.ts';
import type { PersonActor } from '../../commands/context.ts';
import { loginLacks } from '../../commands/fresh-login.ts';
import { isRefusal, Refusal } from '../../domain/errors.ts';
import { allowFormTo, field, type LoginPages, readForm, send } from './login.ts';

export function cliLoginRoutes(auth: Auth, pages: LoginPages): Router {
  const router = Router();
  byLink(router, auth, pages);
  byCode(router, auth, pages);
  return router;
}

/** Only a browser's session may let a terminal in: a token must not be able to make another. */
function webOnly(actor: PersonActor): PersonActor {
  if (actor.via === 'web') return actor;
  throw new Refusal('login_refused', 'A terminal is logged in from a browser only.');
}

/**
 * A terminal that comes back for a fresher login says what it needs, in the page's own address. True when the answer
 * was to send the person to prove it first; they come back to the same address. What a terminal may then do is judged
 * when it does it, not here.
 */
async function provesFirst(auth: Auth, req: Request, res: Response, actor: PersonActor): Promise<boolean> {
  const need = readNeed(req.query);
  const lack = await loginLacks(auth.ctx, actor, need);
  if (lack === undefined) return false;
  if (lack === 'proof') {
    res.redirect(303, loginAddress(req.originalUrl, wishFor(need, 'step_up_required')));
    return true;
  }
  if (req.method !== 'GET' || req.query[silenceTriedMark] !== undefined) return false;
  const returnTo = new URL(req.originalUrl, auth.config.serverUrl);
  returnTo.searchParams.set(silenceTriedMark, 'tried');
  await auth.startLogin(req, res, { returnTo: `${returnTo.pathname}${returnTo.search}`, wish: { silent: true } });
  return true;
}

function byLink(router: Router, auth: Auth, pages: LoginPages): void {
  const { ctx } = auth;

  async function askOf(values: Readonly<Record<string, unknown>>, actor: PersonActor): Promise<CliLoginAsk> {
    try {
      return readCliAsk(values);
    } catch (error) {
      if (!isRefusal(error)) throw error;
      throw await refuseLogin(ctx, error, { way: 'cli', reason: (error.faults ?? []).map((fault) => fault.path).join(', ') }, actor);
    }
  }

  router.get('/login/cli', async (req, res) => {
    const actor = await auth.pageActor(req, res);
    if (!actor) return;
    const ask = await askOf(req.query, webOnly(actor));
    if (await provesFirst(auth, req, res, actor)) return;
    const redirect = new URL(ask.redirectUri);
    // CSP has no way to write an IPv6 address.
    allowFormTo(res, redirect.hostname === '[::1]' ? 'http:' : redirect.origin);
    const fields = { redirect_uri: ask.redirectUri, state: ask.state, code_challenge: ask.challenge, code_challenge_method: 'S256', label: ask.label };
    send(res, pages.cliLoginPage({ actor, csrf: auth.csrfTokenFor(req) }, { label: ask.label, port: redirect.port, fields }));
  });

  router.post('/login/cli', readForm, auth.requireCsrf, async (req, res) => {
    const actor = webOnly(await auth.actorOf(req));
    const ask = await askOf(req.body as Record<string, unknown>, actor);
    res.setHeader('cache-control', 'no-store');
    const url = field(req, 'decision') === 'confirm' ? await confirmCliLogin(ctx, actor, ask) : cliLoginDenied(ask);
    res.redirect(303, url.href);
  });
}

function byCode(router: Router, auth: Auth, pages: LoginPages): void {
  const { ctx, limits } = auth;
  const viewer = (req: Request, actor: PersonActor) => ({ actor, csrf: auth.csrfTokenFor(req) });
  const shown = (code: string) => `${code.slice(0, 4)}-${code.slice(4)}`;

  router.get('/device', async (req, res) => {
    const actor = await auth.pageActor(req, res);
    if (!actor || (await provesFirst(auth, req, res, webOnly(actor)))) return;
    const code = readUserCode(req.query.user_code);
    send(res, pages.deviceCodePage(viewer(req, actor), { userCode: code ? shown(code) : '' }));
  });

  router.post('/device', readForm, auth.requireCsrf, async (req, res) => {
    const actor = webOnly(await auth.actorOf(req));
    await limits.userCode(actor.id);
    const code = readUserCode(field(req, 'user_code'));
    if (!code) return again(req, res, actor, 'That is not a code: it has eight letters, like BCDF-GHJK.');
    try {
      const { label } = await waitingDevice(ctx, code);
      send(res, pages.deviceConfirmPage(viewer(req, actor), { userCode: shown(code), label }));
    } catch (error) {
      if (!isRefusal(error, 'login_code_invalid')) throw error;
      again(req, res, actor, `${error.message} ${error.next ?? ''}`);
    }
  });

  function again(req: Request, res: Response, actor: PersonActor, fault: string): void {
    res.status(400);
    send(res, pages.deviceCodePage(viewer(req, actor), { userCode: '', fault }));
  }

  router.post('/device/decide', readForm, auth.requireCsrf, async (req, res) => {
    const actor = webOnly(await auth.actorOf(req));
    await limits.userCode(actor.id);
    const code = readUserCode(field(req, 'user_code'));
    const decision = field(req, 'decision') === 'confirm' ? 'confirm' : 'deny';
    if (!code) throw new Refusal('login_code_invalid');
    await decideDeviceLogin(ctx, actor, code, decision);
    send(res, pages.deviceDonePage(viewer(req, actor), decision));
  });
}
