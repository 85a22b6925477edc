/**
 * A whole Halligan on this machine, for the demo, the screenshots and the browser tests: an embedded PostgreSQL with
 * Halligan's own database and a seeded `orders` database as the target, a development identity provider with five
 * people, and the server. All of it real, all of it on 127.0.0.1. Passwords are made at each start and live in this
 * process only; what rests in the data folder is the data, the audit key and the published checkpoints.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join, resolve } from 'node:path';
import pg from 'pg';
import { generateSigningKey, signerFrom } from '../audit/checkpoint.ts';
import { makeLog, migrationsDirectory, type Running, startProcess } from '../compose.ts';
import { parseConfig } from '../config/load.ts';
import { migrate } from '../db/migrate.ts';
import { providerOf } from '../providers/registry.ts';
import { type EmbeddedPostgres, startPostgres } from './embedded-postgres.ts';
import { type IdentityProvider, startIdentityProvider } from './identity-provider.ts';
import { type DevOpenBao, startDevOpenBao } from './openbao.ts';
import { ordersDatabase } from './orders-database.ts';
import { prepareVault, vaultConfig } from './orders-vault.ts';
import type { DemoSlack } from './slack-demo.ts';

export interface HouseOptions {
  readonly dataDirectory: string;
  /** Told what is being started. */
  readonly log: (line: string) => void;
  /** Ports that are tried first; a free one is taken when they are in use. */
  readonly port?: number;
  readonly providerPort?: number;
  /** The OpenBao program, for a second target behind it; left out: none. */
  readonly bao?: string | undefined;
  /** A double of Slack beside it, with two people linked. */
  readonly slack?: boolean;
  /** For measurements: further parts of the config, indented for their places, once PostgreSQL is up and its databases are there. */
  readonly more?: (superuserUrl: string) => Promise<{ target: string; entitlement: string }>;
}

export interface House {
  readonly url: string;
  readonly provider: IdentityProvider;
  readonly postgres: EmbeddedPostgres;
  readonly running: Running;
  readonly dataDirectory: string;
  /** The C2SP verifier key, also in `halligan.pub`. */
  readonly verifierKey: string;
  /** A connection string for the superuser in the target database, for looking from outside. */
  readonly targetUrl: string;
  /** When `bao` was given: a Vault of our own, in front of the same database. */
  readonly bao?: DevOpenBao | undefined;
  /** When `slack` was asked for. */
  readonly slack?: DemoSlack['double'] | undefined;
  stop(): Promise<void>;
}

/** The demo's config. It is written into the data folder, and is what a real one looks like. */
const configOf = (parts: {
  url: string;
  listen: string;
  issuer: string;
  postgres: EmbeddedPostgres;
  more: readonly { target: string; entitlement: string }[];
  slack: DemoSlack | undefined;
}): string => `# The demo's config. Passwords are made at each start and come by the environment.
server: { url: '${parts.url}', listen: '${parts.listen}' }
database: { url: 'postgres://halligan_app@127.0.0.1:${parts.postgres.port}/halligan', passwordEnv: HALLIGAN_DEMO_APP_PASSWORD }
login: { issuer: '${parts.issuer}', clientId: halligan, clientSecretEnv: HALLIGAN_DEMO_CLIENT_SECRET, scopes: [openid, profile, groups] }
audit: { signingKeyFile: audit.key, checkpoints: { directory: checkpoints } }
roles: { auditors: { groups: [auditors] }, admins: { groups: [admins] } }
log: { level: error }
${parts.slack?.tell ?? ''}targets:
  orders-db:
    kind: postgres
    host: 127.0.0.1
    port: ${parts.postgres.port}
    database: orders
    user: halligan_target
    passwordEnv: HALLIGAN_DEMO_TARGET_PASSWORD
    tls: disable
${parts.more.map((one) => one.target).join('')}entitlements:
  orders-readonly:
    opens: read the orders database
    target: orders-db
    grant: { role: orders_ro }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads, security] }, count: 1 } ]
    maxDuration: 4h
${parts.slack ? '    slackDecision: allow\n' : ''}    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 15m }
  orders-write:
    opens: change the orders database
    target: orders-db
    grant: { role: orders_rw }
    owner: the orders team
    eligible: { groups: [oncall, leads] }
    approval:
      - { of: { groups: [leads] }, count: 1 }
      - { of: { groups: [security] }, count: 1 }
    maxDuration: 1h
    stepUp: { maxAge: 5m }
    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 10m }
${parts.more.map((one) => one.entitlement).join('')}`;

const secret = (): string => randomBytes(24).toString('base64url');

/** Starts everything; whatever was started is stopped again when a later part fails. */
export async function startHouse(options: HouseOptions): Promise<House> {
  const folder = resolve(options.dataDirectory);
  await mkdir(folder, { recursive: true, mode: 0o755 });
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async (): Promise<void> => {
    for (const undo of stops.splice(0).reverse()) await undo();
  };
  try {
    options.log('starting PostgreSQL (the first time takes a few seconds more)');
    const postgres = await startPostgres({ dataDirectory: join(folder, 'postgres'), superuserPassword: secret(), log: options.log });
    stops.push(() => postgres.stop());
    const passwords = { owner: secret(), app: secret(), target: secret() };
    const { verifierKey, isNew } = await signingKey(folder);
    await prepareDatabases(postgres, passwords, isNew);
    const targetUrl = new URL(postgres.superuserUrl);
    targetUrl.pathname = '/orders';

    if (options.bao) options.log('starting OpenBao');
    const bao = options.bao === undefined ? undefined : await startDevOpenBao(options.bao);
    if (bao) stops.push(() => bao.stop());

    options.log('starting a development identity provider');
    const url = `http://127.0.0.1:${await freePort(options.port ?? 8300)}`;
    const clientSecret = secret();
    const provider = await startIdentityProvider({
      port: await freePort(options.providerPort ?? 8310),
      clients: [{ clientId: 'halligan', clientSecret, redirectUris: [`${url}/login/callback`] }],
    });
    stops.push(() => provider.close());

    const slack = options.slack ? await (await import('./slack-demo.ts')).startDemoSlack(await freePort(8320), provider.issuer) : undefined;
    if (slack) stops.push(() => slack.double.close());

    const more = [...(bao ? [vaultConfig({ bao, postgresPort: postgres.port })] : []), ...(options.more ? [await options.more(postgres.superuserUrl)] : [])];
    const text = configOf({ url, listen: new URL(url).host, issuer: provider.issuer, postgres, more, slack });
    const file = join(folder, 'halligan.yaml');
    await writeFile(file, text);
    Object.assign(process.env, {
      HALLIGAN_DEMO_APP_PASSWORD: passwords.app,
      HALLIGAN_DEMO_TARGET_PASSWORD: passwords.target,
      HALLIGAN_DEMO_CLIENT_SECRET: clientSecret,
      ...slack?.environment,
    });
    const config = await parseConfig(file, text, providerOf);
    if (bao) process.env['HALLIGAN_DEMO_PROBE_PASSWORD'] = await prepareVault(bao, config, { folder, targetUrl: targetUrl.href });
    options.log('starting Halligan');
    const running = await startProcess(config, { web: true, worker: true, log: makeLog('error') });
    stops.push(() => running.stop());
    if (slack) await (await import('./slack-demo.ts')).linkPeople(slack.double, url);
    return { url, provider, postgres, running, dataDirectory: folder, verifierKey, targetUrl: targetUrl.href, bao, slack: slack?.double, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Halligan's database and the target, made once; the roles' passwords are new at each start. `afresh`: what an earlier demo left here is not gone on with. */
async function prepareDatabases(postgres: EmbeddedPostgres, passwords: { owner: string; app: string; target: string }, afresh: boolean): Promise<void> {
  const client = new pg.Client({ connectionString: postgres.superuserUrl, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    for (const [role, password, rights] of [
      ['halligan_owner', passwords.owner, ''],
      ['halligan_app', passwords.app, ''],
      ['halligan_target', passwords.target, 'CREATEROLE'],
    ] as const) {
      const known = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [role]);
      await client.query(`${known.rowCount ? 'ALTER' : 'CREATE'} ROLE ${role} LOGIN ${rights} PASSWORD ${pg.escapeLiteral(password)}`);
    }
    // The log of another key is not ours to go on with: its data folder was deleted, and this database was kept elsewhere.
    if (afresh) await client.query('DROP DATABASE IF EXISTS halligan WITH (FORCE)');
    for (const [database, owner] of [
      ['halligan', 'halligan_owner'],
      ['orders', 'postgres'],
    ] as const) {
      const known = await client.query('SELECT FROM pg_database WHERE datname = $1', [database]);
      if (!known.rowCount) await client.query(`CREATE DATABASE ${database} OWNER ${owner}`);
    }
  } finally {
    await client.end();
  }
  const orders = new URL(postgres.superuserUrl);
  orders.pathname = '/orders';
  await ordersDatabase(orders.href);
  const owner = new URL(postgres.superuserUrl);
  Object.assign(owner, { username: 'halligan_owner', password: passwords.owner, pathname: '/halligan' });
  await migrate({ url: owner.href, directory: migrationsDirectory });
}

/** The audit key of this data folder, made once; gives the key to verify with. */
async function signingKey(folder: string): Promise<{ verifierKey: string; isNew: boolean }> {
  const file = join(folder, 'audit.key');
  const known = await readFile(file, 'utf8').catch(() => undefined);
  if (known) return { verifierKey: signerFrom(known).verifierKey, isNew: false };
  const { signingKey: text, verifierKey } = generateSigningKey('halligan-demo');
  await writeFile(file, `${text}\n`, { mode: 0o600 });
  await writeFile(join(folder, 'halligan.pub'), `${verifierKey}\n`);
  return { verifierKey, isNew: true };
}

/** This port, or any free one when it is taken. */
async function freePort(wanted: number): Promise<number> {
  const tryPort = (port: number) =>
    new Promise<number | undefined>((done) => {
      const probe = createServer();
      probe.once('error', () => done(undefined));
      probe.listen(port, '127.0.0.1', () => {
        const address = probe.address();
        probe.close(() => done(typeof address === 'object' && address ? address.port : undefined));
      });
    });
  const port = (await tryPort(wanted)) ?? (await tryPort(0));
  if (port === undefined) throw new Error('no port is free on 127.0.0.1');
  return port;
}
