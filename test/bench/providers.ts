/** What the targets cost: a claim through Vault beside a bare read of the same secrets engine; one target that hangs beside nine that do not; many logins that are active at once. */
import { Agent, request as httpRequest } from 'node:http';
import pg from 'pg';
import { newId } from '../../src/domain/ids.ts';
import type { LeaseSpec, Target } from '../../src/domain/provider.ts';
import { postgres } from '../../src/providers/postgres.ts';
import { targetCount, targetOf } from './many-targets.ts';
import { type Bench, call, type Figure, figure, median, ms, quantile, timed, tokensOf } from './support.ts';

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** All three. The first needs OpenBao, and is left out without it. */
export async function providers(bench: Bench): Promise<Figure[]> {
  return [...(await oneHung(bench)), ...(await manyActive(bench)), ...(bench.bao ? await throughVault(bench, bench.bao) : [])];
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** One bare call to Vault as root, over a kept connection. */
const bareCall = <T>(bao: NonNullable<Bench['bao']>, method: string, path: string, body?: object): Promise<T> =>
  new Promise((resolve, reject) => {
    const payload = body && JSON.stringify(body);
    const headers = { 'x-vault-token': bao.rootToken, ...(payload ? { 'content-length': Buffer.byteLength(payload) } : {}) };
    const sent = httpRequest(`${bao.address}/v1/${path}`, { method, agent, headers, timeout: 30_000 }, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if ((answer.statusCode ?? 500) >= 300) reject(new Error(`${method} ${path}: ${answer.statusCode} ${text}`));
        else resolve((text === '' ? null : JSON.parse(text)) as T);
      });
    });
    sent.on('error', reject);
    sent.end(payload);
  });

const clients = 8;

/** Each client does its share, one after the other; gives how long each took. */
async function byClients(count: number, work: (index: number) => Promise<unknown>): Promise<number[]> {
  const took: number[] = [];
  let next = 0;
  const client = async (): Promise<void> => {
    for (let index = next++; index < count; index = next++) took.push(await timed(() => work(index)));
  };
  await Promise.all(Array.from({ length: clients }, client));
  return took;
}

async function throughVault({ url }: Bench, bao: NonNullable<Bench['bao']>): Promise<Figure[]> {
  const [oncall, lead] = [await tokensOf(url, 'oncall', 8), await tokensOf(url, 'lead', 4)];
  const entitlement = 'orders-vault';
  const opened = async (): Promise<string> => {
    const asked = await call<{ id: string; seen: string }>(url, oncall(), 'POST', '/requests', {
      entitlements: [entitlement],
      duration: '1h',
      reason: 'measuring',
    });
    const decision = { decision: 'approve', reason: 'measuring', seen: asked.seen };
    return (await call<{ grant: { id: string } }>(url, lead(), 'POST', `/requests/${asked.id}/decisions`, decision)).grant.id;
  };
  const perRound = 160;
  const [p50, p99]: [number[], number[]] = [[], []];
  let last = '';
  for (let round = 0; round < 6; round++) {
    const grants: string[] = [];
    const leases: string[] = [];
    for (let i = 0; i < perRound; i++) grants.push(await opened());
    const ours = await byClients(perRound, (i) => call(url, oncall(), 'POST', `/grants/${grants[i]}/leases`, { entitlement }));
    const bare = await byClients(perRound, async () => leases.push((await bareCall<{ lease_id: string }>(bao, 'GET', 'database/creds/orders-ro')).lease_id));
    for (const grant of grants) await call(url, oncall(), 'POST', `/grants/${grant}/return`);
    for (const lease of leases) await bareCall(bao, 'POST', 'sys/leases/revoke', { lease_id: lease, sync: true });
    await untilNone(() => bareCall<{ data: { keys: string[] } }>(bao, 'GET', 'halligan/leases/orders-vault?list=true').then((list) => list.data.keys.length));
    if (round === 0) continue; // the first one warms up
    p50.push(median(ours) / median(bare));
    p99.push(quantile(ours, 0.99) / quantile(bare, 0.99));
    last = `p50 ${ms(median(ours))} against ${ms(median(bare))}, p99 ${ms(quantile(ours, 0.99))} against ${ms(quantile(bare, 0.99))}, ${clients} clients`;
  }
  return [
    figure('claim over HTTP from Vault ÷ a bare read of database/creds, p50', p50, { most: 1.5 }, last),
    figure('claim over HTTP from Vault ÷ a bare read of database/creds, p99', p99, { most: 1.6 }, last),
  ];
}

/** Waits until `count` gives 0, or fails as an empty list does. */
async function untilNone(count: () => Promise<number>): Promise<void> {
  for (const until = Date.now() + 60_000; (await count().catch(() => 0)) > 0; await sleep(200))
    if (Date.now() > until) throw new Error('what was given back does not go away');
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
      await leaveOnly(admin, 10);
      const few = await timed(() => issueMany(target, batch));
      await leaveOnly(admin, 10);
      await fill(admin, 2_000 - 10);
      const many = await timed(() => issueMany(target, batch));
      rates.push({ ratio: few / many, note: `${((batch / many) * 1_000).toFixed(0)} a second against ${((batch / few) * 1_000).toFixed(0)}` });
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

/** Many logins as the provider makes them, in one transaction. */
async function fill(admin: pg.Client, count: number): Promise<void> {
  await admin.query(`SET ROLE bench_target`);
  await admin.query(`DO $$ DECLARE name text; BEGIN
    FOR n IN 1..${count} LOOP
      name := 'hg_lse_' || md5(random()::text || n);
      EXECUTE format('CREATE ROLE %I LOGIN VALID UNTIL %L CONNECTION LIMIT 10 IN ROLE orders_ro', name, now() + interval '1 hour');
      EXECUTE format('COMMENT ON ROLE %I IS %L', name, 'halligan ' || name);
    END LOOP; END $$`);
  await admin.query('RESET ROLE');
  await admin.query('ANALYZE pg_authid');
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
