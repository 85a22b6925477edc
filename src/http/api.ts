/** The router of `/api/v1`, made from the table of routes: actor → parse → handle → answer, or a problem. */
import express, { type Request, type RequestHandler, type Response, Router } from 'express';
import type { Auth } from '../auth/auth.ts';
import { commit } from '../commands/commit.ts';
import type { Ctx, PersonActor } from '../commands/context.ts';
import { parse } from '../commands/inputs.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { problemHandler } from './problem.ts';
import type { Route } from './route.ts';

/** Larger bodies are refused: nothing that Halligan takes comes near it. */
export const bodyLimit = '256kb';

export function apiRouter(ctx: Ctx, auth: Auth, routes: readonly Route[]): Router {
  const router = Router();
  router.use((_request, response, next) => {
    response.setHeader('Cache-Control', 'no-store');
    next();
  });
  router.use(auth.sessionMiddleware, express.json({ limit: bodyLimit, strict: true }), auth.requireCsrf);
  const methods = new Map<string, string[]>();
  for (const route of routes) {
    router[route.method](route.path, handler(ctx, auth, route));
    methods.set(route.path, [...(methods.get(route.path) ?? []), route.method.toUpperCase()]);
  }
  for (const [path, allowed] of methods) router.all(path, refuseMethod(allowed));
  router.use((request) => {
    throw new Refusal('not_found', `There is no ${request.path} here.`, { next: 'GET /openapi.json lists what there is.' });
  });
  router.use(problemHandler(ctx.log));
  return router;
}

function refuseMethod(allowed: readonly string[]): RequestHandler {
  return (request, response) => {
    response.setHeader('Allow', allowed.join(', '));
    throw new Refusal('method_not_allowed', `${request.path} takes ${allowed.join(' and ')}, not ${request.method.slice(0, 20)}.`);
  };
}

const nobody = { id: '', subject: '', groups: [], name: '', via: 'api', loginId: '', authAt: new Date(0) } satisfies PersonActor;

function handler(ctx: Ctx, auth: Auth, route: Route): RequestHandler {
  return async (request: Request, response: Response) => {
    const actor = route.auth === 'person' ? await auth.actorOf(request) : nobody;
    if (route.auth === 'person' && !route.unlimited) await auth.limits.call(actor.loginId);
    const params = parse(route.params, request.params, 'address');
    const query = parse(route.query, { ...request.query }, 'query');
    const body = route.body ? parse(route.body, request.body ?? {}, 'body') : undefined;
    try {
      const answer = await route.handle({ ctx, actor, body, query, params, request, response });
      if (!response.headersSent) response.status(route.status ?? 200).json(answer);
    } catch (error) {
      await witnessRefusedRead(ctx, actor, request, route, error);
      throw error;
    }
  };
}

/** Commands witness their own refusals; a read of something that is not the reader's is witnessed here. */
async function witnessRefusedRead(ctx: Ctx, actor: PersonActor, request: Request, route: Route, error: unknown): Promise<void> {
  if (route.method !== 'get' || !actor.id || !isRefusal(error, 'not_found', 'not_eligible')) return;
  const { code } = error;
  await commit(ctx, actor, async (tx) => tx.witness({ type: 'access.refused', data: { code, method: 'GET', path: request.path.slice(0, 200) } }));
}
