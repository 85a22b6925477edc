/** What the targets cost: a claim through Vault beside a bare read of the same secrets engine; one target that hangs beside nine that do not; many logins that are active at once. */
import pg from 'pg';
import { newId } from '../../src/domain/ids.ts';
import type { LeaseSpec, Target } from '../../src/domain/provider.ts';
import { postgres } from '../../src/providers/postgres.ts';
import { targetCount, targetOf } from './many-targets.ts';
import { type Bench, byClients, call, clients, type Figure, figure, ms, quantile, timed, tokensOf, untilNone } from './support.ts';
import { throughVault } from './through-vault.ts';

/** All three. The first needs OpenBao, and is left out without it. */
export async function providers(bench: Bench): Promise<Figure[]> {
  return [...(await oneHung(bench)), ...(await manyActive(bench)), ...(bench.bao ? await throughVault(bench, bench.bao) : [])];
}

/** Four sessions on each healthy target, all due within seconds, while leases at the last target are due as well. */
async function oneHung(bench: Bench): Promise<Figure[]> {
  const token = await tokensOf(bench.url, 'oncall', 4);
  const port = new URL(bench.superuserUrl).port;
  const claimed = async (index: number, duration: string) => {
    const body = { entitlements: [targetOf(index)], duration, reason: 'measuring', breakGlass: true };
    const { grant } = await call<{ grant: { id: string; endsAt: string } }>(bench.url, token(), 'POST', '/requests', body);
    const path = `/grants/${grant.id}/leases`;
    const lease = await call<{ handle: string; secret: { password: string } }>(bench.url, token(), 'POST', path, { entitlement: targetOf(index) });
    return { ...lease, due: Date.parse(grant.endsAt) };
  };
  const watched = async (index: number): Promise<{ cut: Promise<number> }> => {
    const { handle, secret, due } = await claimed(index, '8s');
    const client = new pg.Client({ host: '127.0.0.1', port: Number(port), database: `lot_${index}`, user: handle, password: secret.password });
    const cut = new Promise<number>((resolve) => {
      client.on('error', () => resolve(Date.now() - due));
      client.on('end', () => resolve(Date.now() - due));
    });
    await client.connect();
    return { cut };
  };
  const round = async (hung: boolean): Promise<number> => {
    for (let i = 0; i < 8; i++) await claimed(targetCount - 1, '8s');
    if (hung) bench.lastTarget('hang');
    const cuts: Promise<number>[] = [];
    for (let i = 0; i < 36; i++) cuts.push((await watched(i % (targetCount - 1))).cut);
    const worst = quantile(await Promise.all(cuts), 0.99);
    bench.lastTarget('pass');
    return worst;
  };
  const ratios: number[] = [];
  let last = '';
  await round(false);
  for (let i = 0; i < 5; i++) {
    const without = await round(false);
    const withOne = await round(true);
    await untilRevoked(bench);
    ratios.push(withOne / without);
    last = `p99 ${ms(withOne)} against ${ms(without)}; 36 sessions on nine targets, 8 logins at the tenth`;
  }
  return [figure('due → open session cut with one of ten targets hung ÷ with none hung, p99', ratios, { most: 1.5 }, last)];
}

/** Waits until no lease is left that is still being ended. */
async function untilRevoked(bench: Bench): Promise<void> {
  const client = new pg.Client({ connectionString: databaseOf(bench, 'halligan') });
  await client.connect();
  await untilNone(async () => (await client.query<{ n: number }>("SELECT count(*)::int AS n FROM lease WHERE state = 'revoking'")).rows[0]?.n ?? 0);
  await client.end();
}

const databaseOf = (bench: Bench, database: string): string => Object.assign(new URL(bench.superuserUrl), { pathname: `/${database}` }).href;

const batch = 120;

/** Logins made by the provider itself while 10 and while 2,000 others are active, then up to 5,000; and the way that does not scale, beside it. */
async function manyActive(bench: Bench): Promise<Figure[]> {
  const admin = new pg.Client({ connectionString: databaseOf(bench, 'orders') });
  await admin.connect();
  await admin.query("CREATE ROLE bench_target LOGIN CREATEROLE PASSWORD 'bench-only'");
  await admin.query('GRANT CONNECT ON DATABASE orders TO bench_target');
  await admin.query('GRANT orders_ro TO bench_target WITH ADMIN TRUE, INHERIT FALSE, SET FALSE');
  const block = {
    host: '127.0.0.1',
    port: Number(new URL(bench.superuserUrl).port),
    database: 'orders',
    user: 'bench_target',
    passwordEnv: 'BENCH',
    tls: 'disable',
  };
  const target = postgres.connect('bench', postgres.targetSchema.parse(block), { readSecret: async () => 'bench-only' });
  try {
    const rates = [];
    await issueMany(target, batch);
    for (let round = 0; round < 5; round++) {
      const few = await rateAt(admin, target, 10);
      await leaveOnly(admin, 10);
      await issueMany(target, 2_000 - 10);
      const many = await rateAt(admin, target, 2_000);
      rates.push({ ratio: many / few, note: `${many.toFixed(0)} a second against ${few.toFixed(0)}` });
    }
    const { rows } = await admin.query<{ n: number }>("SELECT count(*)::int AS n FROM pg_roles WHERE rolname LIKE 'hg\\_lse\\_%'");
    const active = rows[0]?.n ?? 0;
    await issueMany(target, 5_000 - active);
    await leaveOnly(admin, 0);
    const direct = await directGrants(admin);
    const bound = { least: 0.8 };
    const note = `${rates.at(-1)?.note}, ${clients} at once; 5,000 active were made`;
    return [
      figure(
        'logins made a second with 2,000 active ÷ with 10 active',
        rates.map((one) => one.ratio),
        bound,
        note,
      ),
      figure(
        'logins that can be active, by a group ÷ by grants on tables to each',
        [5_000 / direct.users],
        { least: 1.5 },
        `grants to each end at ${direct.users} users: ${direct.said}`,
      ),
    ];
  } finally {
    await target.close();
    await leaveOnly(admin, 0);
    await admin.query('DROP OWNED BY bench_target CASCADE').catch(() => undefined);
    await admin.end();
  }
}

/** Logins made a second while so many are active; from two batches, because one is over in a blink. */
async function rateAt(admin: pg.Client, target: Target, active: number): Promise<number> {
  let took = 0;
  for (let half = 0; half < 2; half++) {
    await leaveOnly(admin, active);
    await admin.query('ANALYZE pg_authid, pg_auth_members');
    took += await timed(() => issueMany(target, batch));
  }
  return (2 * batch * 1_000) / took;
}

async function issueMany(target: Target, count: number): Promise<void> {
  await byClients(count, () => target.issue(newSpec(), AbortSignal.timeout(8_000)));
}

function newSpec(): LeaseSpec {
  const leaseId = newId('lease', Date.now());
  return {
    leaseId,
    externalName: `hg_${leaseId}`,
    grantId: newId('grant', Date.now()),
    first: true,
    person: 'the bench',
    endsAt: new Date(Date.now() + 3_600_000),
    grant: { role: 'orders_ro' },
  };
}

/** Drops logins until this many are left, as the superuser, and clears what they left in the catalogs, so that each round finds the same. */
async function leaveOnly(admin: pg.Client, count: number): Promise<void> {
  await admin.query(`DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'hg\\_lse\\_%' ORDER BY oid OFFSET ${count} LOOP EXECUTE format('DROP ROLE %I', name); END LOOP; END $$`);
  await admin.query('VACUUM pg_authid, pg_auth_members, pg_shdescription, pg_shdepend');
}

/** Users that get their rights on the table itself, each of them, until PostgreSQL refuses. */
async function directGrants(admin: pg.Client): Promise<{ users: number; said: string }> {
  await admin.query('CREATE TABLE bench_direct (id int)');
  let [users, said] = [0, ''];
  while (said === '' && users < 5_000) {
    const name = `bench_direct_${users}`;
    await admin.query(`CREATE ROLE ${name} LOGIN`);
    await admin.query(`GRANT SELECT ON bench_direct TO ${name}`).then(
      () => {
        users += 1;
      },
      (error: Error) => {
        said = error.message;
      },
    );
  }
  await admin.query('DROP TABLE bench_direct');
  await admin.query(
    "DO $$ DECLARE name text; BEGIN FOR name IN SELECT rolname FROM pg_roles WHERE rolname LIKE 'bench\\_direct\\_%' LOOP EXECUTE format('DROP ROLE %I', name); END LOOP; END $$",
  );
  return { users, said };
}
