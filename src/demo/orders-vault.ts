/**
 * The demo's second target: the orders database again, by users that OpenBao makes. What an administrator would do once is
 * done here with docs/providers.md's statements, and with the very commands that `halligan print vault-setup` prints.
 */
import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exportSPKI, generateKeyPair, SignJWT } from 'jose';
import pg from 'pg';
import type { Config } from '../config/load.ts';
import type { PrintTarget } from '../domain/provider.ts';
import type { DevOpenBao } from './openbao.ts';

export const vaultTarget = 'orders-vault';
const role = 'orders-ro';
const jwtName = 'vault.jwt';
const secret = (): string => randomBytes(24).toString('base64url');

/** The target's and the entitlement's part of the demo's config; both are indented for their places. */
export const vaultConfig = (parts: { bao: DevOpenBao; postgresPort: number }): { target: string; entitlement: string } => ({
  target: `  ${vaultTarget}:
    kind: vault-database
    address: '${parts.bao.address}'
    auth: { method: jwt, role: halligan, jwtFile: ${jwtName} }
    host: 127.0.0.1
    port: ${parts.postgresPort}
    database: orders
    tls: disable
    sessionsEndWithUser: true
    probe: { user: halligan_probe, passwordEnv: HALLIGAN_DEMO_PROBE_PASSWORD }
`,
  entitlement: `  ${vaultTarget}:
    opens: read the orders database, by a user that Vault makes
    target: ${vaultTarget}
    grant: { role: ${role} }
    owner: the orders team
    eligible: { groups: [oncall] }
    approval: [ { of: { groups: [leads, security] }, count: 1 } ]
    maxDuration: 4h
`,
});

/**
 * Vault's and the probe's roles in the database, with new passwords. Users that an earlier demo's Vault made go first:
 * that Vault was killed with what it remembered.
 */
async function prepareOrders(url: string, passwords: { vault: string; probe: string }): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  await client.connect();
  try {
    const { rows } = await client.query<{ name: string }>("SELECT rolname AS name FROM pg_roles WHERE rolname LIKE 'v-%hg-lse-%'");
    for (const { name } of rows) {
      await client.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [name]);
      await client.query(`DROP OWNED BY ${pg.escapeIdentifier(name)}`);
      await client.query(`DROP ROLE ${pg.escapeIdentifier(name)}`);
    }
    for (const [login, password, rights] of [
      ['vault_orders', passwords.vault, 'CREATEROLE'],
      ['halligan_probe', passwords.probe, 'CONNECTION LIMIT 40'],
    ] as const) {
      const known = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [login]);
      await client.query(`${known.rowCount ? 'ALTER' : 'CREATE'} ROLE ${login} LOGIN ${rights} PASSWORD ${pg.escapeLiteral(password)}`);
    }
    await client.query('GRANT CONNECT ON DATABASE orders TO vault_orders, halligan_probe');
    await client.query('GRANT orders_ro TO vault_orders WITH ADMIN TRUE, INHERIT FALSE, SET FALSE');
    await client.query('GRANT pg_signal_backend TO halligan_probe');
  } finally {
    await client.end();
  }
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/**
 * Prepares the database and Vault: Halligan's login by a JWT of a key that is made here, and the printed rights. `config`: as it was
 * loaded, with the target in it; `targetUrl`: as the superuser, to the orders database. Gives the probe's password.
 */
export async function prepareVault(bao: DevOpenBao, config: Config, { folder, targetUrl }: { folder: string; targetUrl: string }): Promise<string> {
  const passwords = { vault: secret(), probe: secret() };
  await prepareOrders(targetUrl, passwords);
  const { publicKey, privateKey } = await generateKeyPair('ES256', { extractable: true });
  const now = Math.floor(Date.now() / 1_000);
  const jwt = await new SignJWT({})
    .setProtectedHeader({ alg: 'ES256' })
    .setSubject('halligan-demo')
    .setAudience('vault')
    .setIssuedAt(now - 5)
    .setExpirationTime(now + 86_400)
    .sign(privateKey);
  await writeFile(join(folder, jwtName), `${jwt}\n`, { mode: 0o600 });
  await bao.script(`bao secrets enable database
bao write database/config/orders - <<'JSON'
${JSON.stringify({
  plugin_name: 'postgresql-database-plugin',
  allowed_roles: role,
  connection_url: `postgresql://{{username}}:{{password}}@127.0.0.1:${new URL(targetUrl).port}/orders?sslmode=disable`,
  username: 'vault_orders',
  password: passwords.vault,
  password_authentication: 'scram-sha-256',
  username_template: 'v-{{.DisplayName}}-{{random 8}}',
})}
JSON
bao write database/roles/${role} - <<'JSON'
${JSON.stringify({
  db_name: 'orders',
  default_ttl: '2m',
  max_ttl: '8h',
  creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' CONNECTION LIMIT 10 IN ROLE orders_ro`],
  revocation_statements: [
    'ALTER ROLE "{{name}}" NOLOGIN',
    'GRANT "{{name}}" TO CURRENT_USER WITH INHERIT TRUE, SET TRUE',
    "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE usename = '{{name}}'",
    'DROP OWNED BY "{{name}}"',
    'DROP ROLE "{{name}}"',
  ],
})}
JSON
bao auth enable jwt
bao write auth/jwt/config jwt_validation_pubkeys=${quoted(await exportSPKI(publicKey))}
bao write auth/jwt/role/halligan role_type=jwt user_claim=sub bound_audiences=vault bound_subject=halligan-demo \\
  token_policies=halligan-${vaultTarget} token_no_default_policy=true token_ttl=1h
${printedSetup(config)}`);
  return passwords.probe;
}

/** The same text that `halligan print vault-setup` gives for this config. */
function printedSetup(config: Config): string {
  const target = config.targets.get(vaultTarget);
  const print = target?.provider.prints?.['vault-setup'];
  if (!target || !print) throw new Error(`the config has no target ${vaultTarget}`);
  const part: PrintTarget = {
    name: vaultTarget,
    config: target.config,
    grants: [...config.entitlements.values()]
      .filter((entitlement) => entitlement.target === vaultTarget)
      .map(({ name, grant, maxDurationSeconds }) => ({ entitlement: name, grant, maxDurationSeconds })),
  };
  return print([part]);
}
