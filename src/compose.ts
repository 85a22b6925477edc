/** Puts a process together out of a config: database, targets, workers, web. The only file that knows all the rooms, beside `main.ts`, which calls it. */
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Router } from 'express';
import pino, { type Logger } from 'pino';
import { type Signer, signerFrom } from './audit/checkpoint.ts';
import { createSealer, type Sealer } from './audit/seal.ts';
import { createAuth } from './auth/auth.ts';
import type { Ctx, Policy } from './commands/context.ts';
import { lookAtStore, type Publication } from './commands/quarantine.ts';
import type { Config } from './config/load.ts';
import { readSecret, type SecretRef } from './config/secrets.ts';
import { tellsAnybody } from './config/tell.ts';
import { announcer, type Change, changesChannel } from './db/announce.ts';
import { listen } from './db/listen.ts';
import { connectionOf, openDb, openPool } from './db/pool.ts';
import { awaitDatabase, DatabaseNotReady } from './db/ready.ts';
import type { Target } from './domain/provider.ts';
import { createApp, type Health } from './http/app.ts';
import { drainer } from './http/drain.ts';
import { auditRoutes } from './http/routes/audit.ts';
import { cliLoginRoutes } from './http/routes/cli-login.ts';
import { deliveryRoutes } from './http/routes/deliveries.ts';
import { grantRoutes } from './http/routes/grants.ts';
import { loginRoutes } from './http/routes/login.ts';
import { loginApi } from './http/routes/login-api.ts';
import { meRoutes } from './http/routes/me.ts';
import { quarantineRoutes } from './http/routes/quarantine.ts';
import { requestRoutes } from './http/routes/requests.ts';
import { reviewRoutes } from './http/routes/reviews.ts';
import { systemRoutes } from './http/routes/system.ts';
import type { Channel } from './notify/channel.ts';
import type { Slack } from './slack/slack.ts';
import { sendErrorPage } from './web/error-page.ts';
import * as loginPages from './web/login-pages.ts';
import { createPages } from './web/pages.ts';
import { startDuty } from './workers/duty.ts';
import { readHealth } from './workers/health.ts';
import { openQueue, type QueueMaker } from './workers/open-queue.ts';
import { startWorkers, type Workers } from './workers/start-workers.ts';
import { openWatch } from './workers/watch.ts';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const migrationsDirectory = join(root, 'migrations');
export const version: string = (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version;

/** A start that cannot succeed, in words for the person who started it. */
export class StartFault extends Error {}

export interface ProcessOptions {
  readonly web: boolean;
  readonly worker: boolean;
  readonly log?: Logger;
  /** How long to wait for the database; a minute unless set. */
  readonly databasePatienceMs?: number;
}

export interface Running {
  readonly ctx: Ctx & { policy: Policy };
  readonly sealer: Sealer;
  readonly workers: Workers | undefined;
  readonly server: Server | undefined;
  health(): Promise<Health>;
  /** Ends what runs, at most 25 s. */
  stop(): Promise<void>;
}

/** Logs are for machines; no body, header, cookie or query ever goes into them. */
export const makeLog = (level: string): Logger =>
  pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } },
    pino.destination({ dest: 2, sync: true }),
  );

export const policyOf = (config: Config): Policy => ({
  entitlements: config.entitlements,
  auditors: config.roles.auditors,
  admins: config.roles.admins,
  maxPendingPerPerson: config.limits.pendingPerPerson,
  groupsMaxAgeSeconds: config.login.groupsMaxAge,
});

const secretOf = (ref: SecretRef | undefined) => (ref ? () => readSecret(ref) : undefined);

/** Starts a process. Throws `StartFault` when the database stays away, when its tables are not there, or when the port is taken. */
export async function startProcess(config: Config, options: ProcessOptions): Promise<Running> {
  const log = options.log ?? makeLog(config.log.level);
  const signer = await readSigner(config);
  const password = secretOf(config.database.password);
  const pool = openPool({
    connectionString: config.database.url,
    password,
    max: config.database.maxConnections,
    onError: (error) => log.warn({ code: 'database_lost', why: error.message }, 'a database connection broke'),
  });
  let makeQueue: QueueMaker | undefined;
  try {
    const patienceMs = options.databasePatienceMs ?? 60_000;
    await awaitDatabase(pool, { url: config.database.url, migrationsDirectory, patienceMs, log }).catch((error: Error) =>
      Promise.reject(error instanceof DatabaseNotReady ? new StartFault(error.message) : error),
    );
    if (options.worker) makeQueue = await openQueue(config.redis, log).catch((error: Error) => Promise.reject(new StartFault(`redis: ${error.message}`)));
  } catch (error) {
    await pool.end();
    throw error;
  }
  const targets = connectTargets(config, (target, code, message) => log.warn({ code, target }, message));
  const changed = new Set<(requests: readonly string[]) => void>();
  let workers: Workers | undefined;
  const hear = (change: Change): void => {
    workers?.nudge(change);
    for (const tell of changed) tell(change.requests);
  };
  const announce = announcer(pool, (error) =>
    log.debug({ code: 'announce_failed', why: error.message }, 'other processes were not told of a change; their sweeps find it'),
  );
  const nudge = (change: Change = { outbox: true, requests: [] }): void => {
    hear(change);
    announce(change);
  };
  const db = openDb(pool);
  const watch = await openWatch({ listen: config.metrics?.listen, db, version, targets: [...targets.keys()], config });
  const ctx = { db, pool, targets, policy: policyOf(config), log, nudge, tells: tellsAnybody(config.tell), observe: watch.observe };
  const publication = { signer, directory: config.audit.checkpoints.directory };
  const sealer = createSealer({ pool, ...publication, log });
  // Before anything is opened or compared, and again and again: a backup may be restored under a process that runs.
  await lookAtStore(ctx, publication).catch((error: Error) =>
    log.error({ code: 'store_unread', why: error.message }, 'whether this database was restored could not be seen yet'),
  );
  const store = startDuty(log, 'look-at-store', 5_000, () => lookAtStore(ctx, publication));
  const slack = await openSlack(config, ctx);
  const channels = await openChannels(config, slack);
  const { routes } = config.tell;
  const tell = { channels, routes, workspace: config.tell.slack?.workspace, serverUrl: new URL(config.server.url) };
  const lanes = new Map([...config.targets.values()].map(({ name, lane }) => [name, lane]));
  workers = makeQueue && startWorkers(ctx, sealer, tell, makeQueue, lanes, { requestsSeconds: config.retention.requests });
  const listener = listen({
    connect: () => ({ ...connectionOf(config.database.url, password), application_name: 'halligan-listen' }),
    channel: changesChannel,
    onConnected: () => workers?.nudge(),
    onError: (error) => log.warn({ code: 'listen_lost', why: error.message }, 'the notification connection broke; sweeps go on'),
    onMessage: (payload) => hear(JSON.parse(payload) as Change),
  });
  const health = () => readHealth(pool, sealer, workers, watch);
  const stopAll = async (web: Web | undefined): Promise<void> => {
    await Promise.all([web?.drain(drainMs), workers?.stop(), store.stop()]);
    // What the last calls wrote while the workers were leaving.
    if (workers) await sealer.sealOnce().catch(() => undefined);
    await slack?.close();
    await listener.close();
    await watch.close();
    await sealer.close();
    await Promise.all([...targets.values()].map((target) => target.close()));
    await pool.end();
  };
  try {
    const web = options.web ? await serve(config, { ctx, sealer, health, changed, slack, publication }) : undefined;
    if (options.web) slack?.start();
    await watch.start({ ctx, web: options.web, workers, queue: config.redis ? 'redis' : 'memory', sealer, health });
    void checkTargets(ctx, config);
    return { ctx, sealer, workers, server: web?.server, health, stop: () => stopAll(web) };
  } catch (error) {
    await stopAll(undefined);
    throw error;
  }
}

/** The ways of telling people that the config sets up; each is loaded only then. */
export async function openChannels(config: Config, slack?: Pick<Slack, 'channel'>): Promise<Channel[]> {
  const { email, webhooks } = config.tell;
  const channels: Channel[] = [];
  if (slack) channels.push(slack.channel);
  else if (config.tell.slack) channels.push((await import('./slack/check.ts')).slackToCheck(config.tell.slack));
  if (email) channels.push((await import('./notify/email.ts')).emailChannel(email));
  if (webhooks.size > 0) channels.push((await import('./notify/webhook.ts')).webhookChannel(webhooks));
  return channels;
}

/** The Slack surface, where the config sets Slack up; its libraries are loaded only then. */
async function openSlack({ tell, server }: Config, ctx: Ctx): Promise<Slack | undefined> {
  if (!tell.slack) return undefined;
  return (await import('./slack/slack.ts')).createSlack({ ctx, config: tell.slack, serverUrl: new URL(server.url) });
}

/** The key is read before anything is started, so that a wrong one is said at once. */
async function readSigner(config: Config): Promise<Signer> {
  try {
    return signerFrom(await readSecret({ file: config.audit.signingKeyFile }));
  } catch (error) {
    throw new StartFault(`audit.signingKeyFile: ${(error as Error).message} To make one: halligan audit keygen --name <origin> --out <file>`);
  }
}

/** Every target of the config, connected lazily: nothing is contacted yet. */
export function connectTargets(config: Config, warn: (target: string, code: string, message: string) => void = () => undefined): ReadonlyMap<string, Target> {
  const folder = dirname(config.file);
  const resolveSecret = (ref: SecretRef) => readSecret('file' in ref ? { file: join(ref.file.startsWith('/') ? '' : folder, ref.file) } : ref);
  return new Map(
    [...config.targets.values()].map(({ name, provider, config: block }) => [
      name,
      provider.connect(name, block, { readSecret: resolveSecret, warn: (code, message) => warn(name, code, message) }),
    ]),
  );
}

/** Says at start what a claim would stumble over. A target that is away stops nobody else. */
async function checkTargets(ctx: Ctx, config: Config): Promise<void> {
  await Promise.all(
    [...ctx.targets.values()].map(async (target) => {
      const grants = [...config.entitlements.values()].filter((entitlement) => entitlement.target === target.name).map((entitlement) => entitlement.grant);
      try {
        for (const fault of await target.check(grants, AbortSignal.timeout(10_000)))
          ctx.log[fault.warning ? 'warn' : 'error']({ code: 'target_fault', target: target.name, next: fault.next }, fault.message);
      } catch (error) {
        ctx.log.error({ code: 'target_unreachable', target: target.name, why: (error as Error).message }, `the target ${target.name} could not be checked`);
      }
    }),
  );
}

/** A claim may take eight seconds; its answer must not be lost to a shutdown. */
const drainMs = 15_000;

interface Web {
  readonly server: Server;
  readonly drain: ReturnType<typeof drainer>;
}

interface Surfaces {
  readonly ctx: Ctx;
  readonly sealer: Sealer;
  readonly health: () => Promise<Health>;
  readonly changed: Set<(requests: readonly string[]) => void>;
  readonly slack: Slack | undefined;
  readonly publication: Publication;
}

async function serve(config: Config, { ctx, sealer, health, changed, slack, publication }: Surfaces): Promise<Web> {
  const { server } = config;
  const auth = createAuth({
    ctx,
    config: {
      serverUrl: new URL(server.url),
      issuer: new URL(config.login.issuer),
      clientId: config.login.clientId,
      clientSecret: async () => (config.login.clientSecret ? readSecret(config.login.clientSecret) : undefined),
      groupsClaim: config.login.groupsClaim,
      nameClaim: config.login.nameClaim,
      emailClaim: config.login.emailClaim,
      scopes: config.login.scopes,
    },
  });
  const routes = [
    ...meRoutes,
    ...requestRoutes,
    ...grantRoutes,
    ...reviewRoutes,
    ...deliveryRoutes,
    ...auditRoutes,
    ...systemRoutes,
    ...quarantineRoutes(publication),
    ...loginApi(auth),
  ];
  const login = Router().use(loginRoutes(auth, loginPages), cliLoginRoutes(auth, loginPages));
  const console = createPages({
    ctx,
    auth,
    changed,
    loginRoutes: login,
    slackWorkspace: config.tell.slack?.workspace,
    logState: () => ({ refused: sealer.status().refused?.message ?? null }),
  });
  const pages = slack?.router ? Router().use(slack.router, console) : console;
  const app = createApp({ ctx, auth, routes, pages, sendErrorPage, health, trustProxy: server.trustProxy, version });
  const http = createServer({ requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: 10_000, maxHeaderSize: 32_768 }, app);
  const drain = drainer(http);
  const [host, port] = [
    server.listen.slice(0, server.listen.lastIndexOf(':')).replace(/^\[|\]$/g, ''),
    Number(server.listen.slice(server.listen.lastIndexOf(':') + 1)),
  ];
  await new Promise<void>((resolve, reject) => {
    http.once('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'EADDRINUSE'
          ? `${server.listen} is taken by another process. Stop that one, or set server.listen to a free port in ${config.file}.`
          : `Cannot listen on ${server.listen} (${error.code}). Change server.listen in ${config.file}.`;
      reject(new StartFault(why));
    });
    http.listen(port, host, resolve);
  });
  ctx.log.info({ code: 'listening', url: server.url, listen: server.listen, version }, `halligan is at ${server.url}`);
  return { server: http, drain };
}
