/**
 * The targets of the cases, and what they say themselves: whether a credential lets anybody in, and what is there that bears our
 * marker. Each server is started once for the run, when the first case needs it; nothing here asks Halligan.
 */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import pg from 'pg';
import { account, openAccount, ownRole } from '../live/aws-account.ts';
import { grants, preparedCluster } from '../live/kubernetes-cluster.ts';
import { startRedis } from '../live/servers/redis.ts';
import { vaultFixture, grant as vaultGrant, targetName as vaultTarget } from '../live/vault-fixture.ts';
import { type House, rolesAt } from '../support/house.ts';

export const kinds = ['postgres', 'vault', 'aws', 'kubernetes'] as const;
export type Kind = (typeof kinds)[number];

/** What a claim is answered, once. */
export interface Claim {
  readonly lease: string;
  readonly grant: string;
  readonly handle: string;
  readonly expiresAt: string;
  readonly connection: Readonly<Record<string, string>>;
  readonly secret: Readonly<Record<string, string>>;
}

/** A target as one case sees it. */
export interface CaseTarget {
  /** The entitlement that opens it, and what the config says of both. */
  readonly entitlement: string;
  readonly target: string;
  readonly block?: object;
  readonly grant: object;
  /** Whether the target lets the holder in, asked now, as the holder. */
  letsIn(claim: Claim): Promise<boolean>;
  /** A session that stays open, where there are sessions; `open` says whether it still is. */
  session(claim: Claim): Promise<{ open(): Promise<boolean>; close(): Promise<void> } | undefined>;
  /** Everything there that bears our marker, or was made for one of these leases and would still let somebody in. */
  residue(house: House, leases: readonly string[]): Promise<string[]>;
  close(): Promise<void>;
}

interface Need {
  readonly there: () => boolean;
  readonly how: string;
}
const command = (name: string, args: readonly string[], how: string): Need => ({ there: () => spawnSync(name, args, { stdio: 'ignore' }).status === 0, how });
const python = command('python3', ['-c', 'import venv, ensurepip'], 'Python 3.11 or newer with venv (Debian: apt-get install python3-venv)');
const go = command('go', ['version'], 'Go 1.24 or newer, which fetches the version it needs by itself (https://go.dev/dl)');
const openssl = command('openssl', ['version'], 'openssl (Debian: apt-get install openssl)');
const needs: Readonly<Record<Kind | 'redis', readonly Need[]>> = {
  postgres: [],
  vault: [python, openssl],
  aws: [python, go],
  kubernetes: [go, openssl],
  redis: [{ there: () => existsSync('/usr/bin/redis-server'), how: 'Redis 7 (Debian 12: apt-get install redis-server; the service need not run)' }],
};

/** What is missing on this machine for a kind of target, with how to get it. */
export const missingFor = (kind: Kind | 'redis'): string[] => needs[kind].filter((need) => !need.there()).map((need) => need.how);

async function login({ connection, secret }: Claim): Promise<pg.Client> {
  const { host = '', port, database = '', user = '' } = connection;
  const client = new pg.Client({
    host,
    port: Number(port),
    database,
    user,
    password: secret['password'],
    connectionTimeoutMillis: 5_000,
    query_timeout: 5_000,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
}

/** Refusals are 28P01 and 28000 (SQLSTATE class 28); 53300 (too many connections of this role) and 42501 (no CONNECT) let nobody in either. */
async function databaseLetsIn(claim: Claim): Promise<boolean> {
  try {
    await (await login(claim)).end();
    return true;
  } catch (error) {
    const { code = '' } = error as { code?: string };
    if (/^28|^53300$|^42501$/.test(code)) return false;
    throw error;
  }
}

async function databaseSession(claim: Claim): ReturnType<CaseTarget['session']> {
  const client = await login(claim);
  const open = () =>
    client.query('SELECT 1').then(
      () => true,
      () => false,
    );
  return { open, close: () => client.end().catch(() => undefined) };
}

const once = <T>(make: () => Promise<T>): (() => Promise<T>) => {
  let made: Promise<T> | undefined;
  return () => (made ??= make());
};

export type Servers = ReturnType<typeof openServers>;

/** Nothing is started yet. `close` stops what was. */
export function openServers() {
  const undo: (() => Promise<unknown>)[] = [];
  const kept = <T>(start: () => Promise<T>, stop: (server: T) => Promise<unknown>) =>
    once(async () => {
      const server = await start();
      undo.push(() => stop(server));
      return server;
    });
  const vault = kept(
    () => vaultFixture(),
    (server) => server.close(),
  );
  const aws = kept(openAccount, (server) => server.close());
  const kubernetes = kept(preparedCluster, (server) => server.close());
  const redis = kept(
    () => startRedis(),
    (server) => server.stop(),
  );
  const makers: Readonly<Record<Kind, () => Promise<CaseTarget>>> = {
    postgres: async () => postgresTarget,
    vault: async () => {
      const server = await vault();
      // Halligan's own proof at Vault lasts ten minutes unless told, and a run may take longer.
      await server.writeJwt({ seconds: 3_600 });
      return vaultCase(server);
    },
    aws: async () => awsCase(await aws()),
    kubernetes: async () => kubernetesCase(await kubernetes()),
  };
  return {
    target: (kind: Kind) => makers[kind](),
    redis,
    async close(): Promise<void> {
      for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => console.error(`stopping a server: ${(error as Error).message}`));
    },
  };
}

const postgresTarget: CaseTarget = {
  entitlement: 'orders-readonly',
  target: 'orders-db',
  grant: {},
  letsIn: databaseLetsIn,
  session: databaseSession,
  residue: async ({ target }) => (await rolesAt(target)).map(({ name }) => `role ${name}`),
  close: async () => undefined,
};

function vaultCase(vault: Awaited<ReturnType<typeof vaultFixture>>): CaseTarget {
  const keysAt = async (path: string): Promise<string[]> =>
    vault.bao.root('LIST', path).then(
      (answer) => (answer as { data: { keys: string[] } }).data.keys,
      (error: Error) => {
        if (/: 404 /.test(error.message)) return [];
        throw error;
      },
    );
  const leaseOfToken = async (accessor: string): Promise<string | undefined> =>
    vault.bao.root('POST', 'auth/token/lookup-accessor', { accessor }).then(
      (answer) => (answer as { data: { meta: Record<string, string> | null } }).data.meta?.['halligan'],
      () => undefined,
    );
  return {
    entitlement: 'orders-vault',
    target: vaultTarget,
    block: { kind: 'vault-database', ...vault.block() },
    grant: vaultGrant,
    letsIn: databaseLetsIn,
    session: databaseSession,
    async residue(_house, leases) {
      const index = await keysAt(`halligan/leases/${vaultTarget}`);
      const tokens = await Promise.all((await keysAt('auth/token/accessors')).map(leaseOfToken));
      return [
        ...(await vault.users()).map((user) => `user ${user}`),
        ...index.map((key) => `index ${key}`),
        ...tokens.flatMap((lease) => (lease !== undefined && leases.includes(lease) ? [`token of ${lease}`] : [])),
      ];
    },
    close: async () => undefined,
  };
}

async function awsCase(aws: Awaited<ReturnType<typeof openAccount>>): Promise<CaseTarget> {
  const role = `orders-${randomBytes(4).toString('hex')}`;
  const arn = await aws.makeRole(role);
  const { gate, holderMay, asked } = await aws.open({ roles: [role] });
  const mayStill = (handle: string, sessionName: string): Promise<boolean> =>
    holderMay({ handle, expiresAt: new Date(), connection: { sessionName, role: arn }, secret: {} });
  return {
    entitlement: 'orders-aws',
    target: 'aws-prod',
    block: {
      kind: 'aws-sts',
      account,
      region: 'eu-central-1',
      propagationSeconds: 1,
      roles: [role],
      webIdentity: { role: ownRole, tokenFile: aws.tokenFile },
      endpoint: gate.url,
      iamEndpoint: gate.url,
    },
    grant: { role },
    letsIn: ({ handle, connection }) => mayStill(handle, connection['sessionName'] ?? ''),
    session: async () => undefined,
    // AWS keeps no list of sessions: each that was ever given, to whomever, is tried.
    async residue() {
      const given = asked('AssumeRole').flatMap(({ keyId, params }) => (keyId === undefined ? [] : [[keyId, params.get('RoleSessionName') ?? ''] as const]));
      const open = await Promise.all(given.map(async ([keyId, name]) => ((await mayStill(keyId, name)) ? [`session ${name} by ${keyId}`] : [])));
      return open.flat();
    },
    close: () => aws.dropRole(role),
  };
}

function kubernetesCase(cluster: Awaited<ReturnType<typeof preparedCluster>>): CaseTarget {
  return {
    entitlement: 'orders-kube',
    target: 'kube-prod',
    block: { kind: 'kubernetes-rbac', ...cluster.config },
    grant: grants.token,
    letsIn: async ({ connection, secret, handle, expiresAt }) => {
      const issued = { handle, expiresAt: new Date(expiresAt), connection, secret };
      return (await cluster.asHolder(issued, 'GET', '/api/v1/namespaces/shop/configmaps')).status === 200;
    },
    session: async () => undefined,
    residue: () => cluster.ours(),
    close: async () => undefined,
  };
}
