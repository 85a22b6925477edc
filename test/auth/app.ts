/** A small Halligan for the tests of logins: the real room, routes, pages, provider and database, and a few routes to act on. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import express, { type NextFunction, type Request, type Response } from 'express';
import { pino } from 'pino';
import { type Auth, createAuth } from '../../src/auth/auth.ts';
import type { Ctx } from '../../src/commands/context.ts';
import { parse } from '../../src/commands/inputs.ts';
import { openDb } from '../../src/db/pool.ts';
import { type IdentityProvider, startIdentityProvider } from '../../src/demo/identity-provider.ts';
import { problemHandler } from '../../src/http/problem.ts';
import { cliLoginRoutes } from '../../src/http/routes/cli-login.ts';
import { loginRoutes } from '../../src/http/routes/login.ts';
import { loginApi } from '../../src/http/routes/login-api.ts';
import * as pages from '../../src/web/login-pages.ts';
import { type TestDatabase, testDatabase } from '../support/postgres.ts';

export interface TestApp {
  readonly url: URL;
  readonly auth: Auth;
  readonly ctx: Ctx;
  readonly database: TestDatabase;
  /** Everything the app logged. */
  readonly logged: string[];
  /** Lets the requests to `/slow` go on. */
  release(): void;
  /** Resolves when a request to `/slow` has read its session. */
  readonly slowStarted: () => Promise<void>;
  /** The audit events of a type, oldest first. */
  events(type: string): Promise<AuditLine[]>;
  close(): Promise<void>;
}

export interface AuditLine {
  readonly type: string;
  readonly actor: { id?: string; name?: string; via?: string; system?: string };
  readonly person?: string;
  readonly data?: Record<string, unknown>;
}

export interface TestAppOptions {
  readonly issuer: URL;
  /** Replaces the app's own address as `server.url`, to see what https changes. */
  readonly serverUrl?: URL;
  readonly clientSecret?: string;
}

export const clientSecret = 'the secret of the test client';

/** The app with a development identity provider of its own. */
export async function startAppWithProvider(options: { serverUrl?: URL } = {}): Promise<TestApp & { idp: IdentityProvider }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const idp = await startIdentityProvider({
    clients: [{ clientId: 'halligan', clientSecret, redirectUris: [new URL('/login/callback', options.serverUrl ?? url).href] }],
  });
  const app = await startApp({ issuer: idp.url, ...options }, server);
  return {
    ...app,
    idp,
    async close() {
      await app.close();
      await idp.close();
    },
  };
}

export async function startApp(options: TestAppOptions, server = createServer()): Promise<TestApp> {
  if (!server.listening) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const database = await testDatabase();
  const logged: string[] = [];
  const ctx: Ctx = {
    db: openDb(database.app),
    pool: database.app,
    targets: new Map(),
    policy: {
      entitlements: new Map(),
      auditors: { groups: [], subjects: [] },
      admins: { groups: [], subjects: [] },
      maxPendingPerPerson: 10,
      groupsMaxAgeSeconds: 900,
    },
    log: pino({ level: 'debug' }, { write: (line: string) => void logged.push(line) }),
    nudge: () => undefined,
  };
  const serverUrl = options.serverUrl ?? url;
  const auth = createAuth({
    ctx,
    config: { serverUrl, issuer: options.issuer, clientId: 'halligan', clientSecret: async () => options.clientSecret ?? clientSecret, groupsClaim: 'groups' },
  });
  const slow = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  const app = express();
  app.use(auth.requireOwnHost, auth.sessionMiddleware, express.json({ limit: '16kb' }));
  app.use(loginRoutes(auth, pages), cliLoginRoutes(auth, pages));
  app.use(auth.requireCsrf);
  app.get('/slow', async (req, res) => {
    await auth.actorOf(req);
    Object.assign(req.session, { touchedBy: 'a slow request' });
    started.resolve();
    await slow.promise;
    res.send('done');
  });
  app.get('/page', async (req, res) => void ((await auth.pageActor(req, res)) && res.send('a page')));
  app.get('/api/v1/me', async (req, res) => void res.json(await auth.actorOf(req)));
  app.post('/api/v1/change', async (req, res) => void res.json({ by: (await auth.actorOf(req)).id }));
  mountApi(app, auth);
  app.use((error: unknown, req: Request, res: Response, next: NextFunction) => problemHandler(ctx.log)(error, req, res, next));
  server.on('request', app);
  return {
    url,
    auth,
    ctx,
    database,
    logged,
    release: () => slow.resolve(),
    slowStarted: () => started.promise,
    async events(type) {
      const { rows } = await database.app.query<{ line: string }>('SELECT line FROM audit_event WHERE type = $1 ORDER BY position', [type]);
      return rows.map((row) => JSON.parse(row.line) as AuditLine);
    },
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await database.close();
    },
  };
}

/** The routes of the login API, as the real application mounts its table. */
function mountApi(app: express.Express, auth: Auth): void {
  for (const route of loginApi(auth)) {
    app[route.method](`/api/v1${route.path}`, async (request, response) => {
      const actor = await (route.auth === 'person' ? auth.actorOf(request) : auth.optionalActor(request));
      const body = parse(route.body, request.body ?? {}, 'body');
      const params = parse(route.params, request.params, 'address');
      response.json(await route.handle({ ctx: auth.ctx, actor: actor as NonNullable<typeof actor>, body, query: {}, params, request, response }));
    });
  }
}

/** The status and the code of a refusal, as `401 login_refused`. */
export async function refusalOf(response: Response | globalThis.Response): Promise<string> {
  const answer = response as globalThis.Response;
  const text = await answer.text();
  const problem = text.startsWith('{') ? (JSON.parse(text) as { code?: string }) : {};
  return `${answer.status} ${problem.code ?? '(no code)'}`;
}
