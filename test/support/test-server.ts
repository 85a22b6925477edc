/** A whole Halligan for tests: the real server with its workers, a database of its own, a real target and a real identity provider, on free ports of 127.0.0.1. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { inject } from 'vitest';
import { generateSigningKey } from '../../src/audit/checkpoint.ts';
import { makeLog, type Running, startProcess } from '../../src/compose.ts';
import { parseConfig } from '../../src/config/load.ts';
import { type Browserless, cliTokenFor, loginAs } from '../../src/demo/browserless.ts';
import { type IdentityProvider, startIdentityProvider } from '../../src/demo/identity-provider.ts';
import { providerOf } from '../../src/providers/registry.ts';
import { type TestDatabase, type TestTarget, testDatabase, testTarget } from './postgres.ts';

export interface TestServerOptions {
  /** More text at the end of `entitlements:`, indented by two spaces. `TARGET_ROLE` stands for the target's group role. */
  readonly entitlements?: string;
  /** False: web and API without workers, for tests that move time's work by hand. */
  readonly worker?: boolean;
}

export interface TestHalligan {
  /** The server's origin. */
  readonly url: string;
  readonly running: Running;
  readonly database: TestDatabase;
  readonly target: TestTarget;
  readonly provider: IdentityProvider;
  /** The config as it would stand in a file; the file itself is at `configFile`. */
  readonly configFile: string;
  /** The folder of the config, the audit key and the published checkpoints. */
  readonly folder: string;
  /** The C2SP verifier key of the log. */
  readonly verifierKey: string;
  /** A person of the identity provider, logged in at the web. */
  loginAs(person: string): Promise<Browserless>;
  /** A terminal's token of a person; made once, then given again. */
  tokenOf(person: string): Promise<string>;
  /** Ends everything that was started, waits until no lease is left at the target, and drops the databases. */
  close(): Promise<void>;
}

/**
 * Starts it. People: `oncall`, `lead`, `security`, `auditor`, `admin`. Entitlements: `orders-readonly` (one of leads or
 * security approves, break-glass for oncall) and `two-person` (one of leads and one of security).
 */
export async function startTestServer(options: TestServerOptions = {}): Promise<TestHalligan> {
  const undo: (() => Promise<unknown>)[] = [];
  const close = async (): Promise<void> => {
    const faults: unknown[] = [];
    for (const step of undo.splice(0).reverse()) await step().catch((error: unknown) => faults.push(error));
    if (faults.length > 0) throw faults[0];
  };
  try {
    const folder = await mkdtemp(join(inject('server').folder, 'halligan-'));
    undo.push(() => rm(folder, { recursive: true, force: true }));
    const database = await testDatabase();
    undo.push(() => database.close());
    const target = await testTarget();
    undo.push(() => target.close());
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const clientSecret = 'the secret of the test client';
    const provider = await startIdentityProvider({ clients: [{ clientId: 'halligan', clientSecret, redirectUris: [`${url}/login/callback`] }] });
    undo.push(() => provider.close());
    const { signingKey, verifierKey } = generateSigningKey('halligan.test/audit');
    await writeFile(join(folder, 'audit.key'), `${signingKey}\n`, { mode: 0o600 });
    await writeFile(join(folder, 'audit.key.pub'), `${verifierKey}\n`);
    await writeFile(join(folder, 'client-secret'), clientSecret, { mode: 0o600 });
    await writeFile(join(folder, 'database-password'), inject('server').appPassword, { mode: 0o600 });
    const text = configText({ url, database, target, issuer: provider.issuer, more: options.entitlements ?? '' });
    const configFile = join(folder, 'halligan.yaml');
    await writeFile(configFile, text);
    const running = await startProcess(await parseConfig(configFile, text, providerOf), { web: true, worker: options.worker ?? true, log: makeLog('error') });
    undo.push(() => running.stop());
    undo.push(() => (options.worker === false ? Promise.resolve() : endEverything(database, running)));
    const tokens = new Map<string, Promise<string>>();
    const tokenOf = (person: string): Promise<string> => {
      const known = tokens.get(person) ?? cliTokenFor(url, person).then((login) => login.token);
      tokens.set(person, known);
      return known;
    };
    return { url, running, database, target, provider, configFile, folder, verifierKey, loginAs: (person) => loginAs(url, person), tokenOf, close };
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

interface ConfigParts {
  readonly url: string;
  readonly database: TestDatabase;
  readonly target: TestTarget;
  readonly issuer: string;
  readonly more: string;
}

function configText({ url, database, target, issuer, more }: ConfigParts): string {
  const app = new URL(database.appUrl);
  app.password = '';
  return `server: { url: '${url}', listen: '${new URL(url).host}' }
database: { url: '${app.href}', passwordFile: database-password, maxConnections: 8 }
login: { issuer: '${issuer}', clientId: halligan, clientSecretFile: client-secret, scopes: [openid, profile, groups] }
audit: { signingKeyFile: audit.key, checkpoints: { directory: checkpoints } }
roles: { auditors: { groups: [auditors] }, admins: { groups: [admins] } }
log: { level: error }
targets:
  orders-db: ${JSON.stringify({ kind: 'postgres', ...target.config })}
entitlements:
  orders-readonly:
    opens: read the orders database
    target: orders-db
    grant: { role: ${target.groupRole} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads, security] }, count: 1 } ]
    maxDuration: 4h
    breakGlass: { eligible: { groups: [oncall] }, maxDuration: 15m }
  two-person:
    opens: read the orders database, with two approvals
    target: orders-db
    grant: { role: ${target.groupRole} }
    owner: the orders team
    eligible: { groups: [oncall, leads] }
    approval:
      - { of: { groups: [leads] }, count: 1 }
      - { of: { groups: [security] }, count: 1 }
    maxDuration: 1h
${more.replaceAll('TARGET_ROLE', target.groupRole)}`;
}

const freePort = (): Promise<number> =>
  new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => (typeof address === 'object' && address ? resolve(address.port) : reject(new Error('no free port'))));
    });
  });

/** A grant that a test left open would leave a role at the target: time is moved to its end, and the workers do the rest. */
async function endEverything(database: TestDatabase, running: Running): Promise<void> {
  await database.superuser.query(
    "UPDATE access_grant SET ends_at = greatest(now(), starts_at + interval '1 millisecond') WHERE state IN ('scheduled', 'active') AND ends_at > now()",
  );
  running.ctx.nudge();
  const until = Date.now() + 15_000;
  for (;;) {
    const { rows } = await database.superuser.query<{ left: number }>("SELECT count(*)::int AS left FROM lease WHERE state NOT IN ('revoked', 'void')");
    if (rows[0]?.left === 0) return;
    if (Date.now() > until) throw new Error(`${rows[0]?.left} leases were not ended within 15 s`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
