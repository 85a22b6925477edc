/**
 * Makes every secret that docker-compose.yml needs, once, and writes for each service what that service alone may read: a
 * volume each. What was made is kept in a volume of the setup's own, so that the next start changes nothing; only the two
 * JWTs for OpenBao are signed anew each time. `setup passwords` shows a person what to log in with; nothing is ever logged.
 */
import { execFile } from 'node:child_process';
import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, randomInt, sign } from 'node:crypto';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const folder = process.env['SETUP_FOLDER'] ?? '/setup';
const halligan = process.env['HALLIGAN'] ?? '/app/bin/halligan.js';
const own = join(folder, 'own');

/** Who can log in at Keycloak, and the groups that halligan.yaml names. */
const people: Readonly<Record<string, { name: string; groups: readonly string[] }>> = {
  oncall: { name: 'On-call', groups: ['oncall'] },
  lead: { name: 'Lead', groups: ['leads'] },
  security: { name: 'Security', groups: ['security'] },
  auditor: { name: 'Auditor', groups: ['auditors'] },
  admin: { name: 'Admin', groups: ['admins'] },
};

interface Made {
  /** Passwords that only programs use, by where they are used. */
  readonly secrets: Readonly<Record<'superuser' | 'owner' | 'app' | 'target' | 'vault' | 'probe' | 'redis' | 'oidcClient', string>>;
  /** Passwords that people type, by their names at Keycloak. */
  readonly people: Readonly<Record<string, string>>;
  readonly keycloakAdmin: string;
  /** PEM: signs the JWTs by which Halligan and the setup of OpenBao log in there. */
  readonly issuerKey: string;
  /** Base64, 32 bytes: unseals OpenBao. */
  readonly sealKey: string;
}

const secret = (): string => randomBytes(24).toString('base64url');
const letters = 'abcdefghjkmnpqrstuvwxyz23456789';
/** Four groups of five: 99 bits. */
const typed = (): string => Array.from({ length: 4 }, () => Array.from({ length: 5 }, () => letters[randomInt(letters.length)]).join('')).join('-');

/** A file that is there whole or not at all. What a killed setup left half-written goes first: this root may not write over what is read-only. */
async function put(file: string, content: string | Buffer, mode = 0o444): Promise<void> {
  await rm(`${file}.new`, { force: true });
  await writeFile(`${file}.new`, content, { mode });
  await rename(`${file}.new`, file);
}

async function readMade(): Promise<Made | undefined> {
  const text = await readFile(join(own, 'made.json'), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  return text === undefined ? undefined : (JSON.parse(text) as Made);
}

async function make(): Promise<Made> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const made: Made = {
    secrets: {
      superuser: secret(),
      owner: secret(),
      app: secret(),
      target: secret(),
      vault: secret(),
      probe: secret(),
      redis: secret(),
      oidcClient: secret(),
    },
    people: Object.fromEntries(Object.keys(people).map((name) => [name, typed()])),
    keycloakAdmin: typed(),
    issuerKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    sealKey: randomBytes(32).toString('base64'),
  };
  await put(join(own, 'made.json'), `${JSON.stringify(made)}\n`, 0o600);
  return made;
}

const run = async (...args: string[]): Promise<string> => (await promisify(execFile)(process.execPath, [halligan, ...args], { timeout: 60_000 })).stdout;

/** The key that signs the audit log. It is made by Halligan itself, which never writes over one. */
async function auditKey(): Promise<string> {
  const file = join(own, 'audit.key');
  const there = await readFile(file, 'utf8').catch(() => undefined);
  if (there !== undefined) return there;
  await run('audit', 'keygen', '--name', 'localhost/halligan-compose', '--out', file);
  return readFile(file, 'utf8');
}

const jwtDays = 90;

/** A JWT of ours for OpenBao, good for ninety days: each `docker compose up` signs it anew. */
function jwtFor(subject: string, key: string): string {
  const now = Math.floor(Date.now() / 1_000);
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const text = `${part({ alg: 'ES256', typ: 'JWT' })}.${part({ sub: subject, aud: 'openbao', iat: now - 5, exp: now + jwtDays * 86_400 })}`;
  return `${text}.${sign('sha256', Buffer.from(text), { key: createPrivateKey(key), dsaEncoding: 'ieee-p1363' }).toString('base64url')}`;
}

/** What OpenBao does once, when its storage is empty: it comes to trust our JWTs. Its root token is revoked by itself at the end. */
function initialization(issuerKey: string): string {
  const pem = createPublicKey(createPrivateKey(issuerKey)).export({ type: 'spki', format: 'pem' }).toString();
  const hcl = (value: unknown): string => JSON.stringify(value);
  const request = (name: string, path: string, data: Readonly<Record<string, unknown>>): string => {
    const pairs = Object.entries(data).map(([key, value]) => `      ${key} = ${hcl(value)}`);
    return `  request "${name}" {\n    operation = "update"\n    path = ${hcl(path)}\n    data = {\n${pairs.join('\n')}\n    }\n  }\n`;
  };
  const requests = [
    request('jwt', 'sys/auth/jwt', { type: 'jwt' }),
    request('issuer', 'auth/jwt/config', { jwt_validation_pubkeys: [pem] }),
    request('policy', 'sys/policies/acl/setup', { policy: 'path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }' }),
    request('role', 'auth/jwt/role/setup', {
      role_type: 'jwt',
      user_claim: 'sub',
      bound_audiences: ['openbao'],
      bound_subject: 'setup',
      token_policies: ['setup'],
      token_ttl: '10m',
    }),
  ];
  return `initialize "compose" {\n${requests.join('')}}\n`;
}

/** The realm that Keycloak imports when it has none of this name. */
const realm = (made: Made): object => ({
  realm: 'halligan',
  enabled: true,
  sslRequired: 'external',
  groups: [...new Set(Object.values(people).flatMap(({ groups }) => groups))].map((name) => ({ name })),
  clients: [
    {
      clientId: 'halligan',
      secret: made.secrets.oidcClient,
      redirectUris: ['http://localhost:8300/login/callback'],
      standardFlowEnabled: true,
      directAccessGrantsEnabled: false,
      attributes: { 'pkce.code.challenge.method': 'S256' },
      protocolMappers: [
        {
          name: 'groups',
          protocol: 'openid-connect',
          protocolMapper: 'oidc-group-membership-mapper',
          config: { 'claim.name': 'groups', 'full.path': 'false', 'id.token.claim': 'true', 'access.token.claim': 'false', 'userinfo.token.claim': 'false' },
        },
      ],
    },
  ],
  users: Object.entries(people).map(([username, { name, groups }]) => ({
    username,
    firstName: name,
    lastName: 'Example',
    email: `${username}@example.com`,
    emailVerified: true,
    enabled: true,
    groups: groups.map((group) => `/${group}`),
    credentials: [{ type: 'password', value: made.people[username], temporary: false }],
  })),
});

/** What OpenBao is told of the orders database. */
const connection = (made: Made): object => ({
  plugin_name: 'postgresql-database-plugin',
  allowed_roles: 'orders-ro',
  connection_url: 'postgresql://{{username}}:{{password}}@postgres:5432/orders?sslmode=disable',
  username: 'vault_orders',
  password: made.secrets.vault,
  password_authentication: 'scram-sha-256',
  username_template: 'v-{{.DisplayName}}-{{random 8}}',
});

/** By volume and file: what each service finds below /run/generated. */
async function files(made: Made): Promise<Record<string, Record<string, string | Buffer>>> {
  const { secrets, issuerKey } = made;
  return {
    halligan: {
      database: secrets.app,
      redis: secrets.redis,
      'oidc-client': secrets.oidcClient,
      'orders-db': secrets.target,
      'orders-probe': secrets.probe,
      'audit.key': await auditKey(),
      'openbao.jwt': jwtFor('halligan', issuerKey),
    },
    owner: { database: secrets.owner },
    postgres: {
      superuser: secrets.superuser,
      halligan_owner: secrets.owner,
      halligan_app: secrets.app,
      halligan_target: secrets.target,
      vault_orders: secrets.vault,
      halligan_probe: secrets.probe,
    },
    redis: { 'redis.conf': `requirepass ${secrets.redis}\n`, password: secrets.redis },
    openbao: { 'seal.key': Buffer.from(made.sealKey, 'base64'), 'initialize.hcl': initialization(issuerKey) },
    'openbao-setup': {
      'setup.jwt': jwtFor('setup', issuerKey),
      'orders.json': JSON.stringify(connection(made)),
      'rights.sh': await run('print', 'vault-setup'),
    },
    keycloak: {
      'halligan-realm.json': JSON.stringify(realm(made), null, 2),
      'keycloak.conf': `bootstrap-admin-username=keycloak-admin\nbootstrap-admin-password=${made.keycloakAdmin}\n`,
    },
  };
}

async function prepare(): Promise<void> {
  await mkdir(own, { recursive: true });
  const known = await readMade();
  const made = known ?? (await make());
  for (const [volume, content] of Object.entries(await files(made))) {
    await mkdir(join(folder, volume), { recursive: true });
    for (const [name, text] of Object.entries(content)) await put(join(folder, volume, name), text);
  }
  console.log(`${known ? 'The secrets of before are kept.' : 'Every secret was made.'} What to log in with: docker compose run --rm setup passwords`);
}

async function showPasswords(): Promise<void> {
  const made = await readMade();
  if (!made) throw new Error('Nothing was made yet. First: docker compose up -d');
  const lines = Object.entries(made.people).map(([name, password]) => `  ${name.padEnd(14)} ${password}   ${people[name]?.groups.join(', ') ?? ''}`);
  console.log(
    ['Halligan, http://localhost:8300', ...lines, '', 'Keycloak, http://keycloak.localhost:8380', `  keycloak-admin ${made.keycloakAdmin}`].join('\n'),
  );
}

const [verb, ...more] = process.argv.slice(2);
try {
  if (verb === undefined) await prepare();
  else if (verb === 'passwords' && more.length === 0) await showPasswords();
  else throw new Error('It takes nothing, or: passwords');
} catch (error) {
  console.error((error as Error).message);
  process.exitCode = 1;
}
