/** The Express application: headers, health, the API, the pages, and one answer for every error. */
import express, { type ErrorRequestHandler, type Express, type RequestHandler, type Response, type Router } from 'express';
import helmet from 'helmet';
import type { Auth } from '../auth/auth.ts';
import type { Ctx } from '../commands/context.ts';
import { Refusal } from '../domain/errors.ts';
import { apiRouter } from './api.ts';
import { openapi } from './openapi.ts';
import { refusalOf, sendProblem, statusOf } from './problem.ts';
import type { Route } from './route.ts';

export interface Health {
  readonly ready: boolean;
  /** What is wrong, in words; empty when ready. */
  readonly faults: readonly { readonly code: string; readonly message: string }[];
  /** What should be looked at and keeps nobody from using it. */
  readonly warnings: readonly { readonly code: string; readonly message: string }[];
}

export interface AppParts {
  readonly ctx: Ctx;
  readonly auth: Auth;
  readonly routes: readonly Route[];
  readonly pages: Router;
  /** Sends an error as a page. */
  readonly sendErrorPage: (response: Response, refusal: Refusal, status: number) => void;
  readonly health: () => Promise<Health>;
  readonly trustProxy: number;
  readonly version: string;
}

export function createApp(parts: AppParts): Express {
  const { auth } = parts;
  const { log } = parts.ctx;
  const app = express();
  app.disable('x-powered-by');
  app.set('trust proxy', parts.trustProxy);
  app.use(securityHeaders(auth));

  app.get(['/livez', '/healthz'], (_request, response) => void response.json({ status: 'alive', version: parts.version }));
  app.get('/readyz', async (_request, response) => {
    const health = await parts.health();
    response.status(health.ready ? 200 : 503).json({ status: health.ready ? 'ready' : 'not ready', faults: health.faults, warnings: health.warnings });
  });

  app.use(auth.requireOwnHost);
  let description: object | undefined;
  app.get('/openapi.json', (_request, response) => {
    description ??= openapi(parts.routes, parts.version);
    response.json(description);
  });
  app.use('/api/v1', apiRouter(parts.ctx, auth, parts.routes));
  app.use('/api', (request, response) =>
    sendProblem(response, new Refusal('not_found', `There is no ${request.originalUrl.split('?')[0]} here.`, { next: 'The API is at /api/v1.' })),
  );
  app.use(parts.pages);
  app.use(() => {
    throw new Refusal('not_found', 'There is no such page.', { next: 'Start from the first page.' });
  });
  const last: ErrorRequestHandler = (error, request, response, next) => {
    if (response.headersSent) return next(error);
    const refusal = refusalOf(error, log);
    if (request.accepts(['html', 'json']) === 'html') parts.sendErrorPage(response, refusal, statusOf[refusal.code]);
    else sendProblem(response, refusal);
  };
  app.use(last);
  return app;
}

/** Nothing from elsewhere, nothing inline, nobody's frame. Forms may lead to ourselves and, for the login, to the identity provider. */
function securityHeaders(auth: Auth): RequestHandler {
  const https = auth.config.serverUrl.protocol === 'https:';
  return helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
        imgSrc: ["'self'", 'data:'],
        connectSrc: ["'self'"],
        formAction: ["'self'", auth.config.issuer.origin],
        frameAncestors: ["'none'"],
        baseUri: ["'none'"],
      },
    },
    strictTransportSecurity: https ? { maxAge: 63_072_000 } : false,
    referrerPolicy: { policy: 'same-origin' },
    crossOriginOpenerPolicy: { policy: 'same-origin' },
    crossOriginEmbedderPolicy: false,
    xFrameOptions: { action: 'deny' },
  });
}
