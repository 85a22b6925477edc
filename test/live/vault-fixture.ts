/** A Vault target as docs/providers.md prepares it: the statements and commands of that page, run on a real OpenBao and the run's PostgreSQL. */
import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exportSPKI, generateKeyPair, SignJWT } from 'jose';
import pg from 'pg';
import { inject } from 'vitest';
import { readSecret } from '../../src/config/secrets.ts';
import type { Issued, Target } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/vault-database/config.ts';
import { setupCommands, vaultDatabase } from '../../src/providers/vault-database.ts';
import { asSuperuser, superUrlOf } from '../support/postgres.ts';
import { type OpenBao, startOpenBao } from './servers/openbao.ts';

export const targetName = 'orders-vault';
export const grant = { role: 'orders-ro' };
export const missingGrant = { role: 'orders-rw' };
const database = 'orders';
const subject = 'system:serviceaccount:halligan:halligan';

export interface VaultFixture {
  readonly bao: OpenBao;
  /** The target's block of the config, before the schema; changed by `more`. */
  block(more?: Record<string, unknown>): Record<string, unknown>;
  /** Connects anew, as another process would. What is told through `warn` goes to `warnings`. */
  connect(more?: Record<string, unknown>): Target;
  readonly warnings: string[];
  readonly jwtFile: string;
  /** Writes a new JWT into the file. */
  writeJwt(claims?: { subject?: string; audience?: string; seconds?: number }): Promise<void>;
  readonly superuser: pg.Pool;
  /** The users that Vault made and that are still in the database. */
  users(): Promise<string[]>;
  readonly folder: string;
  /** `leaksExpected`: a test that killed Vault itself leaves its users behind, and they are dropped here. */
  close(leaksExpected?: boolean): Promise<void>;
}

/** The fenced blocks of one language in the docs' section. */
export async function docsBlocks(language: string): Promise<string[]> {
  const text = await readFile('docs/providers.md', 'utf8');
  const section = /\n## vault-database\n([\s\S]*?)\n## /.exec(text)?.[1] ?? '';
  return [...section.matchAll(new RegExp(`\`\`\`${language}\\n([\\s\\S]*?)\`\`\``, 'g'))].map((match) => match[1] ?? '');
}

/** `namespace`: everything is prepared inside it, and Halligan works there. `server`: further blocks of the server's own configuration. */
export async function vaultFixture({ namespace, server: more }: { namespace?: string; server?: string } = {}): Promise<VaultFixture> {
  const server = inject('server');
  const [vaultPassword, probePassword] = [randomBytes(15).toString('base64url'), randomBytes(15).toString('base64url')];
  const folder = await mkdtemp(join(server.folder, 'vault-'));
  const files = { jwt: join(folder, 'jwt'), issuer: join(folder, 'issuer.pem'), probe: join(folder, 'probe') };
  await writeFile(files.probe, `${probePassword}\n`, { mode: 0o600 });
  const keys = await generateKeyPair('ES256', { extractable: true });
  await writeFile(files.issuer, await exportSPKI(keys.publicKey));
  const writeJwt: VaultFixture['writeJwt'] = async (claims = {}) => {
    const now = Math.floor(Date.now() / 1_000);
    const jwt = await new SignJWT({})
      .setProtectedHeader({ alg: 'ES256' })
      .setSubject(claims.subject ?? subject)
      .setAudience(claims.audience ?? 'vault')
      .setIssuedAt(now - 5)
      .setExpirationTime(now + (claims.seconds ?? 600))
      .sign(keys.privateKey);
    await writeFile(files.jwt, jwt, { mode: 0o600 });
  };
  await writeJwt();

  await asSuperuser('postgres', `CREATE DATABASE ${database}`, `REVOKE CONNECT ON DATABASE ${database} FROM PUBLIC`);
  await asSuperuser(database, 'CREATE TABLE orders (id int PRIMARY KEY)', 'INSERT INTO orders SELECT generate_series(1, 40)');
  const fill = (text: string): string =>
    text
      .replaceAll('<vault password>', vaultPassword)
      .replaceAll('<probe password>', probePassword)
      .replaceAll('db.example.com:5432', `127.0.0.1:${server.port}`)
      .replaceAll('sslmode=verify-full', 'sslmode=disable')
      .replaceAll('/etc/vault/issuer.pem', files.issuer);
  for (const block of await docsBlocks('sql')) await asSuperuser(database, fill(block));
  const superuser = new pg.Pool({ connectionString: superUrlOf(database), max: 3 });
  superuser.on('error', () => undefined);

  const bao = await startOpenBao(more);
  const block: VaultFixture['block'] = (more = {}) => ({
    address: bao.address,
    auth: { method: 'jwt', role: 'halligan', jwtFile: files.jwt },
    host: '127.0.0.1',
    port: server.port,
    database,
    tls: 'disable',
    sessionsEndWithUser: true,
    probe: { user: 'halligan_probe', passwordFile: files.probe },
    ...(namespace === undefined ? {} : { namespace }),
    ...more,
  });
  const shell = await docsBlocks('sh');
  if (shell.length < 2) throw new Error('the docs of vault-database lost their commands');
  if (namespace !== undefined) await bao.root('PUT', `sys/namespaces/${namespace}`, {});
  for (const commands of shell) await bao.script(fill(commands), namespace === undefined ? {} : { BAO_NAMESPACE: namespace });
  const setup = setupCommands(targetSchema.parse(block()), [grant, missingGrant], targetName, 3_600);
  await bao.script(setup);
  // Pasted again, as after a change of the config: what is there already is no error, and stays.
  await bao.script(`${setup}${setup}`);

  const opened: Target[] = [];
  const warnings: string[] = [];
  return {
    bao,
    block,
    folder,
    jwtFile: files.jwt,
    writeJwt,
    superuser,
    warnings,
    connect(more) {
      const target = vaultDatabase.connect(targetName, targetSchema.parse(block(more)), {
        readSecret,
        warn: (code, message) => void warnings.push(`${code}: ${message}`),
      });
      opened.push(target);
      return target;
    },
    async users() {
      return (await superuser.query<{ rolname: string }>("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%' ORDER BY 1")).rows.map((row) => row.rolname);
    },
    async close(leaksExpected = false) {
      for (const target of opened) await target.close();
      await bao.stop();
      const { rows } = await superuser.query<{ rolname: string }>("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'");
      await superuser.end();
      await asSuperuser('postgres', `DROP DATABASE ${database} WITH (FORCE)`);
      for (const role of [...rows.map((row) => row.rolname), 'halligan_probe', 'halligan_leftovers', 'vault_orders', 'orders_ro'])
        await asSuperuser('postgres', `DROP ROLE IF EXISTS "${role}"`);
      await rm(folder, { recursive: true, force: true });
      if (rows.length > 0 && !leaksExpected) throw new Error(`users were left in the database: ${rows.map((row) => row.rolname).join(', ')}`);
    },
  };
}

/** Logs in to the database with what was issued. Throws what the database says. */
export async function open(issued: Issued): Promise<pg.Client> {
  const { host, port, database: name, user } = issued.connection;
  const client = new pg.Client({ host, port: Number(port), database: name, user, password: issued.secret['password'], connectionTimeoutMillis: 5_000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => undefined);
    throw error;
  }
  return client;
}
