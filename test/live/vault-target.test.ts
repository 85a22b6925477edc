/** A Vault target from its administrator's side: the least rights, what the check finds, what an attacker cannot do, what rests where. */
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Target } from '../../src/domain/provider.ts';
import { targetSchema } from '../../src/providers/vault-database/config.ts';
import { leastRights, vaultDatabase } from '../../src/providers/vault-database.ts';
import { asSuperuser } from '../support/postgres.ts';
import { newLease, refusalOf, within } from '../support/provider-contract.ts';
import { startOpenBao } from './servers/openbao.ts';
import { grant, missingGrant, open, targetName, type VaultFixture, vaultFixture } from './vault-fixture.ts';

let fixture: VaultFixture;
let target: Target;

beforeAll(async () => {
  fixture = await vaultFixture();
  target = fixture.connect();
});
afterAll(() => fixture?.close());

const messages = async (one: Target, grants: unknown[] = [grant]): Promise<string> =>
  (await one.check(grants, within(10))).map((fault) => `${fault.message} → ${fault.next}`).join('\n');
const root: VaultFixture['bao']['root'] = (...call) => fixture.bao.root(...call);

/** A role of the secrets engine like the docs' one but for this. */
async function changedRole(changes: Record<string, unknown>): Promise<() => Promise<unknown>> {
  const { data } = (await root('GET', 'database/roles/orders-ro')) as { data: object };
  await root('POST', 'database/roles/orders-ro', { ...data, ...changes });
  return () => root('POST', 'database/roles/orders-ro', data);
}

describe('least rights', () => {
  test('what is printed is what is needed: with any one path less, the check names it', async () => {
    const config = targetSchema.parse(fixture.block());
    const whole = leastRights(config, [grant, missingGrant], targetName);
    const paths = [...whole.matchAll(/^path ("[^"]+") \{(?:[^{}]|\{[^{}]*\})*\}$/gm)];
    expect(paths.length).toBeGreaterThanOrEqual(13);
    // These are asked for by nothing but the login's own upkeep, which goes on without them until the token ends.
    const upkeep = [
      'auth/token/lookup-self',
      'auth/token/renew-self',
      'auth/token/revoke-self',
      'sys/capabilities-self',
      `database/roles/${missingGrant.role}`,
    ];
    try {
      for (const [block, quoted] of paths) {
        const path = JSON.parse(quoted ?? '') as string;
        await root('PUT', 'sys/policies/acl/halligan-orders-vault', { policy: whole.replace(block, '') });
        if (upkeep.includes(path) || path === 'halligan/leases/orders-vault') continue;
        expect(await messages(fixture.connect()), path).toMatch(/lacks rights|refused while/);
      }
    } finally {
      await root('PUT', 'sys/policies/acl/halligan-orders-vault', { policy: whole });
    }
    expect(await messages(target)).toBe('');
  });

  test('Halligan itself can read no credential, end no lease of another role, and change nothing', async () => {
    const login = (await root('POST', 'auth/jwt/login', { role: 'halligan', jwt: await readFile(fixture.jwtFile, 'utf8') })) as {
      auth: { client_token: string };
    };
    const own = { 'X-Vault-Token': login.auth.client_token };
    await root('POST', 'database/roles/other', { db_name: 'orders', creation_statements: ['SELECT 1'] });
    for (const [method, path, body] of [
      ['GET', 'database/creds/orders-ro', undefined],
      ['PUT', 'sys/leases/revoke', { lease_id: 'database/creds/other/AAAAAAAAAAAAAAAAAAAAAAAA', sync: true }],
      ['PUT', 'sys/leases/renew', { lease_id: 'database/creds/other/AAAAAAAAAAAAAAAAAAAAAAAA' }],
      ['PUT', 'sys/leases/revoke-prefix/database/creds', {}],
      ['LIST', 'auth/token/accessors', undefined],
      ['POST', 'auth/token/create', {}],
      ['POST', 'auth/token/roles/halligan-lease', { orphan: true }],
      ['PUT', 'sys/policies/acl/halligan-orders-vault', { policy: '' }],
      ['GET', 'database/config/orders', undefined],
    ] as const)
      await expect(root(method, path, body, own), path).rejects.toThrow(/: 403 /);
    // Neither for longer than an entitlement allows, nor with a policy of another's.
    await expect(root('POST', 'auth/token/create/halligan-lease', { policies: ['root'] }, own)).rejects.toThrow(/: 400 /);
    const long = (await root('POST', 'auth/token/create/halligan-lease', { policies: ['halligan-lease-orders-ro'], explicit_max_ttl: '100h' }, own)) as {
      auth: { lease_duration: number; accessor: string };
    };
    expect(long.auth.lease_duration).toBeLessThanOrEqual(3_600);
    await root('POST', 'auth/token/revoke-accessor', { accessor: long.auth.accessor });
    await root('DELETE', 'database/roles/other');
  });
});

describe('the check of a target', () => {
  test('finds rights that are more than it needs', async () => {
    const policy = leastRights(targetSchema.parse(fixture.block()), [grant, missingGrant], targetName);
    await root('PUT', 'sys/policies/acl/halligan-orders-vault', {
      policy: `${policy}\npath "database/*" { capabilities = ["read", "update"] }\npath "auth/token/accessors/" { capabilities = ["list", "sudo"] }`,
    });
    expect(await messages(fixture.connect())).toMatch(/more rights at Vault than it needs: .*sudo.*auth\/token\/accessors.*database\/creds\/orders-ro/);
    await root('PUT', 'sys/policies/acl/halligan-orders-vault', { policy });
    const asRoot = fixture.connect({ auth: { method: 'token', tokenEnv: 'HALLIGAN_LIVE_ROOT' } });
    process.env['HALLIGAN_LIVE_ROOT'] = fixture.bao.rootToken;
    try {
      expect(await messages(asRoot)).toContain('logged in to Vault as root');
    } finally {
      delete process.env['HALLIGAN_LIVE_ROOT'];
    }
  });

  test('warns of a stored secret id, which works all the same', async () => {
    await root('POST', 'sys/auth/approle', { type: 'approle' });
    await root('POST', 'auth/approle/role/halligan', { token_policies: 'halligan-orders-vault', token_no_default_policy: true });
    const { data: role } = (await root('GET', 'auth/approle/role/halligan/role-id')) as { data: { role_id: string } };
    const { data: secret } = (await root('POST', 'auth/approle/role/halligan/secret-id', {})) as { data: { secret_id: string } };
    process.env['HALLIGAN_LIVE_SECRET_ID'] = secret.secret_id;
    try {
      const one = fixture.connect({ auth: { method: 'approle', roleId: role.role_id, secretIdEnv: 'HALLIGAN_LIVE_SECRET_ID' } });
      expect(await one.check([grant], within(10))).toEqual([expect.objectContaining({ message: expect.stringContaining('stored secret id'), warning: true })]);
      const lease = newLease(grant, 30);
      await one.issue(lease, within(10));
      await one.revoke(lease, within(10));
    } finally {
      delete process.env['HALLIGAN_LIVE_SECRET_ID'];
    }
  });

  test('finds a role that is not there, a mount that is no database, an index that is not there or keeps versions', async () => {
    expect(await messages(target, [grant, missingGrant])).toMatch(/has no role orders-rw at database\/roles/);
    await root('POST', 'sys/mounts/plain', { type: 'kv', options: { version: '2' } });
    expect(await messages(fixture.connect({ indexMount: 'plain' }))).toMatch(/lacks rights|needs kv version 1/);
    expect(await messages(fixture.connect({ mount: 'plain' }))).toMatch(/lacks rights|not database/);
    expect(await messages(fixture.connect({ mount: 'nowhere' }))).toContain('nowhere');
    await root('DELETE', 'sys/mounts/plain');
  });

  test.each([
    [
      'no end in the database',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' IN ROLE orders_ro`] },
      /without an end in the database/,
    ],
    [
      'a grant on tables to each user',
      {
        creation_statements: [
          `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`,
        ],
      },
      /grants on objects to each user directly.*IN ROLE/,
    ],
    [
      'a superuser',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN SUPERUSER PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE orders_ro`] },
      /users with SUPERUSER/,
    ],
    [
      'a group that is not there',
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE orders_gone`] },
      /orders_gone, which the database does not have/,
    ],
    [
      "the application's own login as the group",
      { creation_statements: [`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE vault_orders`] },
      /vault_orders, which is, or leads to, a login/,
    ],
    ['users that outlive a lost password', { default_ttl: 86_400 }, /default_ttl of 86400 s/],
    ['sessions that nothing ends', { revocation_statements: [`DROP ROLE "{{name}}"`] }, /does not end open sessions/],
  ])('finds %s in the definition of a role', async (_name, changes, wanted) => {
    const back = await changedRole(changes);
    try {
      expect(await messages(target)).toMatch(wanted);
    } finally {
      await back();
    }
    expect(await messages(target)).toBe('');
  });

  test.each([
    ['is not there', { name: 'gone' }, /no token role gone/],
    ['does not allow the policy', { allowed_policies: 'halligan-lease-other' }, /does not allow the policy halligan-lease-orders-ro/],
    ['gives tokens that die with ours', { orphan: false }, /must say orphan=true/],
  ])('finds a token role that %s', async (_name, { name, ...changes }: { name?: string } & Record<string, unknown>, wanted) => {
    const { data } = (await root('GET', 'auth/token/roles/halligan-lease')) as { data: object };
    await root('POST', 'auth/token/roles/halligan-lease', { ...data, ...changes });
    try {
      const text = await messages(name === undefined ? target : fixture.connect({ tokenRole: name }));
      expect(text).toMatch(name === undefined ? wanted : /lacks rights at Vault: update on auth\/token\/create\/gone/);
    } finally {
      await root('POST', 'auth/token/roles/halligan-lease', data);
    }
  });

  test('finds a policy of leases that opens more, or nothing', async () => {
    await root('PUT', 'sys/policies/acl/halligan-lease-orders-ro', { policy: 'path "database/creds/*" { capabilities = ["read"] }' });
    expect(await messages(target)).toContain('lets a lease do more');
    await root('DELETE', 'sys/policies/acl/halligan-lease-orders-ro');
    expect(await messages(target)).toContain('does not let a lease read');
    expect(await refusalOf(target.issue(newLease(grant, 30), within(8)))).toMatchObject({
      code: 'target_forbids',
      nothingMade: true,
      next: expect.stringContaining('halligan-lease-orders-ro'),
    });
    await root('PUT', 'sys/policies/acl/halligan-lease-orders-ro', { policy: 'path "database/creds/orders-ro" { capabilities = ["read"] }' });
    expect(await messages(target)).toBe('');
  });

  test('finds a probe that may not end sessions, or may do more', async () => {
    await asSuperuser('postgres', 'REVOKE pg_signal_backend FROM halligan_probe', 'ALTER ROLE halligan_probe CREATEROLE');
    try {
      const text = await messages(target);
      expect(text).toContain('may not end sessions');
      expect(text).toContain('more rights than it needs');
    } finally {
      await asSuperuser('postgres', 'GRANT pg_signal_backend TO halligan_probe', 'ALTER ROLE halligan_probe NOCREATEROLE');
    }
  });
});

describe('what an approver sees', () => {
  test('is the role and, through the probe, what its group opens; a change to either changes it', async () => {
    const before = await target.describe(grant, within(5));
    expect(before.summary).toBe('a database user of database/roles/orders-ro: a member of orders_ro: SELECT on 1 table of orders');
    expect(before.details.join('\n')).toContain('creation: CREATE ROLE');
    await asSuperuser('orders', 'GRANT DELETE ON orders TO orders_ro');
    expect((await target.describe(grant, within(5))).summary).toContain('DELETE, SELECT');
    await asSuperuser('orders', 'REVOKE DELETE ON orders FROM orders_ro');
    expect(await target.describe(grant, within(5))).toEqual(before);
  });
});

describe('attacks', () => {
  test('an index edited to name somebody else is refused, and that token lives; our credential ends all the same', async () => {
    const stranger = (await root('POST', 'auth/token/create-orphan', { policies: ['default'], ttl: '5m' })) as { auth: { accessor: string } };
    const lease = newLease(grant, 60);
    await target.issue(lease, within(10));
    const path = `halligan/leases/${targetName}/${lease.externalName}/${stranger.auth.accessor}`;
    await root('POST', path, { lease: lease.leaseId, role: 'orders-ro', until: lease.endsAt.toISOString() });
    expect(await refusalOf(target.revoke(lease, within(10)))).toMatchObject({
      code: 'target_forbids',
      message: expect.stringContaining('does not bear its marker'),
    });
    await root('POST', 'auth/token/lookup-accessor', { accessor: stranger.auth.accessor });
    // Ours is ended all the same.
    expect(await fixture.users()).toEqual([]);
    await root('DELETE', path);
    await target.revoke(lease, within(10));
    await root('POST', 'auth/token/revoke-accessor', { accessor: stranger.auth.accessor });
    expect(await fixture.users()).toEqual([]);
  });

  test('an index that was cleared does not make a user look gone', async () => {
    const lease = newLease(grant, 60);
    const issued = await target.issue(lease, within(10));
    const { data } = (await root('LIST', `halligan/leases/${targetName}/${lease.externalName}`)) as { data: { keys: string[] } };
    const path = `halligan/leases/${targetName}/${lease.externalName}/${data.keys[0]}`;
    const kept = (await root('GET', path)) as { data: object };
    await root('DELETE', path);
    const ref = { leaseId: lease.leaseId, externalName: lease.externalName, handle: issued.handle };
    expect(await refusalOf(target.revoke(ref, within(10)))).toMatchObject({
      code: 'target_failed',
      message: expect.stringContaining('still in the database'),
    });
    // By the number in the user's name alone, too.
    expect((await refusalOf(target.revoke(lease, within(10)))).message).toContain(issued.handle);
    await root('POST', path, kept.data);
    expect((await target.revoke(ref, within(10))).cutAt).toBeInstanceOf(Date);
  });

  test('a name that would leave its path is refused before anything is sent', async () => {
    const lease = { ...newLease(grant, 60), externalName: '../../../sys/policies' };
    for (const call of [target.issue(lease, within(5)), target.revoke(lease, within(5)), target.inspect(lease, within(5))])
      expect((await refusalOf(call)).code).toBe('target_forbids');
    for (const role of ['../orders', 'a/b', 'a..b', '.', '', 'a%2fb', 'a?b', 'a*', 'ä'])
      expect(vaultDatabase.grantSchema.safeParse({ role }).success, role).toBe(false);
  });

  test('a holder who makes temporary tables, prepares a transaction and owns objects with hostile names is ended all the same', async () => {
    await asSuperuser('orders', 'GRANT CREATE ON SCHEMA public TO orders_ro, halligan_leftovers');
    const lease = newLease(grant, 60);
    const client = await open(await target.issue(lease, within(10)));
    await client.query(
      `CREATE TEMP TABLE t AS SELECT 1; CREATE TABLE "x""; DROP TABLE orders; --" (id int); CREATE FUNCTION "$$"() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    );
    await target.revoke(lease, within(20));
    await expect(client.query('SELECT 1')).rejects.toThrow();
    await client.end().catch(() => undefined);
    expect(await fixture.users()).toEqual([]);
    expect((await fixture.superuser.query('SELECT count(*)::int AS n FROM orders')).rows).toEqual([{ n: 40 }]);
    await asSuperuser('orders', 'DROP OWNED BY halligan_leftovers', 'REVOKE CREATE ON SCHEMA public FROM orders_ro');
  });
});

describe('what ends when', () => {
  test('invariant 3: where the role ends users earlier than the grant, that end is what is shown', async () => {
    const back = await changedRole({ max_ttl: 20, default_ttl: 10 });
    try {
      const lease = newLease(grant, 60);
      const issued = await target.issue(lease, within(10));
      const seconds = (issued.expiresAt.getTime() - Date.now()) / 1_000;
      expect(seconds).toBeGreaterThan(17);
      expect(seconds).toBeLessThan(21);
      expect(await target.inspect(lease, within(5))).toMatchObject({ expiresAt: issued.expiresAt });
      await target.revoke(lease, within(10));
    } finally {
      await back();
    }
  });

  test("the user's end in the database is the grant's, whatever the role's default says", async () => {
    for (const seconds of [30, 1_200]) {
      const lease = newLease(grant, seconds);
      const issued = await target.issue(lease, within(10));
      const { rows } = await fixture.superuser.query<{ late: number }>(
        'SELECT extract(epoch FROM rolvaliduntil - $2::timestamptz)::float AS late FROM pg_roles WHERE rolname = $1',
        [issued.handle, lease.endsAt],
      );
      expect(rows[0]?.late).toBeGreaterThan(-1);
      expect(rows[0]?.late).toBeLessThanOrEqual(7);
      await target.revoke(lease, within(10));
    }
  });

  test('without a probe, sessions are ended by the statements, and what was not read back is said', async () => {
    const one = fixture.connect({ probe: undefined });
    const lease = newLease(grant, 60);
    const client = await open(await one.issue(lease, within(10)));
    expect(await one.inspect(lease, within(5))).toMatchObject({ usable: true, openSessions: null });
    expect((await one.revoke(lease, within(10))).notes.join()).toContain('read back at Vault only');
    await expect(client.query('SELECT 1')).rejects.toThrow();
    await client.end().catch(() => undefined);
  });

  test('with a probe, sessions are ended also where the statements do not', async () => {
    const back = await changedRole({ revocation_statements: [`DROP ROLE "{{name}}"`] });
    try {
      const one = fixture.connect({ sessionsEndWithUser: false });
      expect(one.limits.openSession.dead).toBeNull();
      const lease = newLease(grant, 60);
      const client = await open(await one.issue(lease, within(10)));
      expect((await one.revoke(lease, within(10))).sessionsCut).toBe(1);
      await expect(client.query('SELECT 1')).rejects.toThrow();
      await client.end().catch(() => undefined);
    } finally {
      await back();
    }
  });
});

test('invariant 22: a credential is in the one answer, and neither in the audit log of Vault nor in the index', async () => {
  const lease = newLease(grant, 60);
  const issued = await target.issue(lease, within(10));
  const { data } = (await root('LIST', `halligan/leases/${targetName}/${lease.externalName}`)) as { data: { keys: string[] } };
  const entry = await root('GET', `halligan/leases/${targetName}/${lease.externalName}/${data.keys[0]}`);
  await target.revoke(lease, within(10));
  const password = issued.secret['password'] ?? '';
  const log = await readFile(fixture.bao.auditFile, 'utf8');
  expect(log).toContain('database/creds/orders-ro');
  const bytes = Buffer.from(password);
  for (const form of [
    password,
    bytes.toString('base64'),
    bytes.toString('base64url'),
    bytes.toString('hex'),
    encodeURIComponent(password),
    JSON.stringify(password).slice(1, -1),
  ]) {
    expect(log).not.toContain(form);
    expect(JSON.stringify(entry)).not.toContain(form);
  }
  expect(log).not.toContain((await readFile(fixture.jwtFile, 'utf8')).trim());
  expect(log).not.toMatch(/"client_token":"(?:s|hvs)\./);
});

test('what a claim costs beside a bare read of the credential, eight clients at once, is measured', async () => {
  const { bao } = fixture;
  const p50 = (all: number[]): number => all.toSorted((a, b) => a - b)[all.length >> 1] ?? Number.NaN;
  const times: { ours: number[]; bare: number[] } = { ours: [], bare: [] };
  const timed = async (into: number[], work: () => Promise<unknown>): Promise<void> => {
    const began = performance.now();
    await work();
    into.push(performance.now() - began);
  };
  const leases = Array.from({ length: 160 }, () => newLease(grant, 60));
  // Eight clients, each asking again as soon as it was answered; the two kinds take turns.
  const eight = async (calls: number, into: number[], work: (index: number) => Promise<unknown>): Promise<void> => {
    let next = 0;
    const client = async (): Promise<void> => {
      for (let mine = next++; mine < calls; mine = next++) await timed(into, () => work(mine));
    };
    await Promise.all(Array.from({ length: 8 }, client));
  };
  for (let round = 0; round < 5; round += 1) {
    await eight(32, times.ours, (index) => target.issue({ ...leases[round * 32 + index]!, first: true }, within(10)));
    await eight(32, times.bare, () => root('GET', 'database/creds/orders-ro'));
  }
  console.log(
    `measured: a claim by the provider p50 ${p50(times.ours).toFixed(1)} ms, bare database/creds p50 ${p50(times.bare).toFixed(1)} ms, 8 at once, ratio ${(p50(times.ours) / p50(times.bare)).toFixed(2)}`,
  );
  expect(p50(times.ours) / p50(times.bare)).toBeLessThan(6);
  await Promise.all(
    [0, 1, 2, 3].map(async (lane) => {
      for (let at = lane; at < leases.length; at += 4) await target.revoke(leases[at]!, within(20));
    }),
  );
  await bao.root('PUT', 'sys/leases/revoke-prefix/database/creds/orders-ro');
  for (let tries = 0; tries < 100 && (await fixture.users()).length > 0; tries += 1) await new Promise((done) => setTimeout(done, 100));
  expect(await fixture.users()).toEqual([]);
});

test('nothing of the environment that is meant for the vault command reaches us, and nothing is logged for it', async () => {
  const said: string[] = [];
  const write = process.stderr.write.bind(process.stderr);
  const meant = {
    VAULT_ADDR: 'http://127.0.0.1:1',
    VAULT_TOKEN: 'wrong',
    VAULT_NAMESPACE: 'nowhere',
    VAULT_PREFIX: '/nowhere',
    HTTP_PROXY: 'http://127.0.0.1:1',
  };
  Object.assign(process.env, meant);
  const { default: debug } = (await import('debug' as string)) as { default: { enable(names: string): void; disable(): string } };
  debug.enable('node-vault');
  process.stderr.write = ((chunk: string) => said.push(String(chunk)) > 0) as typeof process.stderr.write;
  try {
    const one = fixture.connect();
    expect(await messages(one)).toBe('');
    const lease = newLease(grant, 30);
    await one.issue(lease, within(10));
    await one.revoke(lease, within(10));
  } finally {
    process.stderr.write = write;
    debug.disable();
    for (const name of Object.keys(meant)) delete process.env[name];
  }
  expect(said).toEqual([]);
});

test('a server that was started by somebody else is not ours', async () => {
  const other = await startOpenBao();
  try {
    const error = await refusalOf(fixture.connect({ address: other.address }).issue(newLease(grant, 60), within(5)));
    expect(error).toMatchObject({ code: 'target_forbids', nothingMade: true });
  } finally {
    await other.stop();
  }
});
