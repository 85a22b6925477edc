/** The console: one line for each page and each form. GET shows, POST does and leads on. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import express, { type Request, type RequestHandler, type Response, Router } from 'express';
import type { Auth } from '../auth/auth.ts';
import type { Ctx } from '../commands/context.ts';
import { returnGrant } from '../commands/end-grant.ts';
import { id, parse } from '../commands/inputs.ts';
import { withdrawRequest } from '../commands/withdraw-request.ts';
import type { IdKind } from '../domain/ids.ts';
import { accountsPage, linkCodeSubmit, unlinkSubmit } from './pages/accounts.ts';
import { activePage, revokeIncidentSubmit, revokeSubmit } from './pages/active.ts';
import { askPage, askSubmit } from './pages/ask.ts';
import { auditPage, type LogState } from './pages/audit.ts';
import { decidePage } from './pages/decide.ts';
import { entitlementsPage } from './pages/entitlements.ts';
import { nowPage } from './pages/now.ts';
import { claimSubmit, decideSubmit, requestPage } from './pages/request.ts';
import { closeReviewSubmit, reviewsPage } from './pages/reviews.ts';
import { repeatSubmit } from './pages/told.ts';
import { goTo, type View } from './view.ts';

export interface PagesParts {
  readonly ctx: Ctx;
  readonly auth: Auth;
  /** Those who want to hear of changed requests. */
  readonly changed: Set<(requests: readonly string[]) => void>;
  readonly logState: () => LogState;
  /** Log in, log out, terminals. */
  readonly loginRoutes: Router;
  /** The Slack workspace whose accounts can be linked, where Slack is set up. */
  readonly slackWorkspace?: string | undefined;
}

export function createPages(parts: PagesParts): Router {
  const { ctx, auth } = parts;
  const router = Router();
  router.use('/assets', assets());
  router.use(auth.sessionMiddleware);
  router.use(parts.loginRoutes);
  const shown =
    (show: (view: View) => Promise<void>): RequestHandler =>
    async (request, response) => {
      const actor = await auth.pageActor(request, response);
      if (actor) await show({ ctx, auth, actor, csrf: auth.csrfTokenFor(request), request, response });
    };
  const of = (kind: IdKind, view: View): string => parse(id(kind), view.request.params['id'], 'address');

  router.get('/', shown(nowPage));
  router.get(
    '/ask',
    shown((view) => askPage(view)),
  );
  router.get('/decide', shown(decidePage));
  router.get(
    '/requests/:id',
    shown((view) => requestPage(view, of('request', view))),
  );
  router.get('/active', shown(activePage));
  router.get(
    '/reviews',
    shown((view) => reviewsPage(view)),
  );
  router.get(
    '/audit',
    shown((view) => auditPage(view, parts.logState())),
  );
  router.get('/entitlements', shown(entitlementsPage));
  router.get(
    '/accounts',
    shown((view) => accountsPage(view, parts.slackWorkspace)),
  );
  router.get(
    '/events',
    shown((view) => follow(view, parts.changed)),
  );

  const form = [express.urlencoded({ extended: false, limit: '64kb', parameterLimit: 40 }), auth.requireCsrf];
  router.post('/ask', form, shown(askSubmit));
  router.post(
    '/accounts/link-code',
    form,
    shown((view) => linkCodeSubmit(view, parts.slackWorkspace)),
  );
  router.post('/accounts/unlink', form, shown(unlinkSubmit));
  router.post(
    '/requests/:id/decide',
    form,
    shown((view) => decideSubmit(view, of('request', view))),
  );
  router.post(
    '/requests/:id/withdraw',
    form,
    shown(async (view) => {
      const request = of('request', view);
      await withdrawRequest(ctx, view.actor, request);
      goTo(view, `/requests/${request}`, 'withdrawn');
    }),
  );
  router.post(
    '/grants/:id/claim',
    form,
    shown((view) => claimSubmit(view, of('grant', view))),
  );
  router.post(
    '/grants/:id/return',
    form,
    shown(async (view) => {
      await returnGrant(ctx, view.actor, of('grant', view));
      goTo(view, '/', 'returned');
    }),
  );
  router.post(
    '/grants/:id/revoke',
    form,
    shown((view) => revokeSubmit(view, of('grant', view))),
  );
  router.post('/incidents/revoke', form, shown(revokeIncidentSubmit));
  router.post(
    '/reviews/:id/close',
    form,
    shown((view) => closeReviewSubmit(view, of('review', view))),
  );
  router.post(
    '/deliveries/:id/repeat',
    form,
    shown((view) => repeatSubmit(view, of('delivery', view))),
  );
  return router;
}

/** Tells the page that something changed, never what: the page fetches itself again and shows what its reader may see. Ends after ten minutes; the browser comes back. */
async function follow(view: View, changed: PagesParts['changed']): Promise<void> {
  const { response, request } = view;
  response.status(200).set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store', 'X-Accel-Buffering': 'no' });
  response.flushHeaders();
  response.write('retry: 2000\n\n');
  let waiting: NodeJS.Timeout | undefined;
  const tell = (): void => {
    waiting ??= setTimeout(() => {
      waiting = undefined;
      response.write('event: changed\ndata: -\n\n');
    }, 150);
  };
  const beat = setInterval(() => response.write(': still here\n\n'), 20_000);
  const end = setTimeout(() => response.end(), 600_000);
  changed.add(tell);
  request.on('close', () => {
    changed.delete(tell);
    clearInterval(beat);
    clearTimeout(end);
    clearTimeout(waiting);
  });
}

/** The few files that pages need, read once. */
function assets(): RequestHandler {
  const types = { 'halligan.css': 'text/css', 'live.js': 'text/javascript', 'icon.svg': 'image/svg+xml' } as const;
  const files = new Map(
    Object.entries(types).map(([name, type]) => {
      const body = readFileSync(fileURLToPath(new URL(`assets/${name}`, import.meta.url)));
      return [`/${name}`, { type, body, etag: `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"` }];
    }),
  );
  return (request: Request, response: Response, next) => {
    const file = files.get(request.path);
    if (!file || (request.method !== 'GET' && request.method !== 'HEAD')) return next();
    response.set({ 'Content-Type': `${file.type}; charset=utf-8`, ETag: file.etag, 'Cache-Control': 'no-cache' });
    if (request.fresh) return void response.status(304).end();
    response.end(request.method === 'HEAD' ? undefined : file.body);
  };
}
