/** From due to cut: ours, against a loop that polls an index each second and terminates; and with many grants that are not due. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { type Bench, call, type Figure, figure, ms, quantile, tokensOf } from './support.ts';

export const sessions = 20;
const rounds = 5;

export const targetUrl = (bench: Bench, user: string, password: string): string => {
  const url = new URL(bench.superuserUrl);
  return Object.assign(url, { pathname: '/orders', username: user, password }).href;
};

/** A session that notices its end; `cut` gives the milliseconds from `due` until then. */
export async function openWatched(url: string, due: Date): Promise<{ cut: Promise<number> }> {
  const client = new pg.Client({ connectionString: url });
  const cut = new Promise<number>((resolve) => {
    client.on('error', () => resolve(Date.now() - due.getTime()));
    client.on('end', () => resolve(Date.now() - due.getTime()));
  });
  await client.connect();
  return { cut };
}

/** Milliseconds from due to cut, of a few sessions that end one after the other. */
export async function ours(bench: Bench, token: () => string): Promise<number[]> {
  const watched: { cut: Promise<number> }[] = [];
  for (let i = 0; i < sessions; i++) {
    const seconds = 6;
    const request = await call<{ grant: { id: string; endsAt: string } }>(bench.url, token(), 'POST', '/requests', {
      entitlements: ['orders-readonly'],
      duration: `${seconds}s`,
      reason: 'measuring',
      breakGlass: true,
    });
    const claimed = await call<{ handle: string; secret: { password: string } }>(bench.url, token(), 'POST', `/grants/${request.grant.id}/leases`, {
      entitlement: 'orders-readonly',
    });
    watched.push(await openWatched(targetUrl(bench, claimed.handle, claimed.secret.password), new Date(request.grant.endsAt)));
    await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 60));
  }
  return Promise.all(watched.map(({ cut }) => cut));
}

/** The loop that people write first. */
async function polled(bench: Bench): Promise<number[]> {
  const admin = new pg.Client({ connectionString: targetUrl(bench, 'postgres', new URL(bench.superuserUrl).password) });
  await admin.connect();
  await admin.query('CREATE TEMP TABLE due (role text PRIMARY KEY, ends_at timestamptz NOT NULL)');
  await admin.query('CREATE INDEX ON due (ends_at)');
  const watched: { cut: Promise<number> }[] = [];
  for (let i = 0; i < sessions; i++) {
    const role = `bench_${randomBytes(6).toString('hex')}`;
    const password = randomBytes(12).toString('hex');
    const due = new Date(Date.now() + 6_000);
    await admin.query(`CREATE ROLE ${role} LOGIN PASSWORD '${password}' IN ROLE orders_ro`);
    await admin.query('INSERT INTO due VALUES ($1, $2)', [role, due]);
    watched.push(await openWatched(targetUrl(bench, role, password), due));
    await new Promise((resolve) => setTimeout(resolve, 40 + Math.random() * 60));
  }
  const loop = setInterval(async () => {
    const { rows } = await admin.query<{ role: string }>('DELETE FROM due WHERE ends_at <= now() RETURNING role');
    for (const { role } of rows) {
      await admin.query(`ALTER ROLE ${role} NOLOGIN`);
      await admin.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
      await admin.query(`DROP ROLE ${role}`);
    }
  }, 1_000);
  const cuts = await Promise.all(watched.map(({ cut }) => cut));
  await new Promise((resolve) => setTimeout(resolve, 500));
  clearInterval(loop);
  await admin.end();
  return cuts;
}

/** Fills Halligan's database with active grants that end tomorrow, of one person, under ids that rise as real ones do; returns a function that removes them. */
export async function crowd(bench: Pick<Bench, 'superuserUrl'>, count: number, database = 'halligan'): Promise<() => Promise<void>> {
  const url = new URL(bench.superuserUrl);
  url.pathname = `/${database}`;
  const client = new pg.Client({ connectionString: url.href });
  // A crowd that is not removed ends with its server.
  client.on('error', () => undefined);
  await client.connect();
  await client.query(
    `INSERT INTO person (id, issuer, subject, name, groups, groups_read_at) SELECT 'per_' || repeat('c', 32), 'bench', 'oncall', 'crowd', '{}', now() WHERE NOT EXISTS (SELECT FROM person WHERE subject = 'oncall')`,
  );
  await client.query(
    `INSERT INTO request (id, person_id, state, entitlements, duration_seconds, reason, break_glass, policy, policy_hash, approver_groups, approver_subjects, reviewer_groups, reviewer_subjects, lapses_at, decided_at)
     SELECT 'req_' || lpad(to_hex(n), 32, '0'), (SELECT id FROM person WHERE subject = 'oncall'), 'approved', '{orders-readonly}', 86400, 'crowd', false, '[]', 'x', '{}', '{}', '{}', '{}', now() + interval '1 day', now() FROM generate_series(1, $1::int) n`,
    [count],
  );
  await client.query(
    `INSERT INTO access_grant (id, request_id, person_id, state, break_glass, starts_at, ends_at)
     SELECT 'gnt_' || substr(id, 5), id, person_id, 'active', false, now(), now() + interval '1 day' FROM request WHERE reason = 'crowd' ORDER BY id`,
  );
  await client.query('VACUUM ANALYZE access_grant');
  return async () => {
    await client.query(`DELETE FROM access_grant USING request WHERE request.id = access_grant.request_id AND request.reason = 'crowd'`);
    await client.query(`DELETE FROM request WHERE reason = 'crowd'`);
    await client.query('VACUUM ANALYZE access_grant');
    await client.end();
  };
}

export async function ending(bench: Bench): Promise<Figure[]> {
  const token = await tokensOf(bench.url, 'oncall', 4);
  const against: number[] = [];
  const crowded: number[] = [];
  let last = '';
  for (let round = 0; round < rounds; round++) {
    const few = await crowd(bench, 1_000);
    const mine = await ours(bench, token);
    await few();
    const theirs = await polled(bench);
    const many = await crowd(bench, 100_000);
    const full = await ours(bench, token);
    await many();
    against.push(quantile(mine, 0.99) / quantile(theirs, 0.99));
    crowded.push(quantile(full, 0.99) / quantile(mine, 0.99));
    last = `p50 ${ms(quantile(mine, 0.5))}, p99 ${ms(quantile(mine, 0.99))} against p99 ${ms(quantile(theirs, 0.99))}; with 100,000 active p99 ${ms(quantile(full, 0.99))}`;
  }
  return [
    figure('due → open session cut ÷ a loop that polls each second, p99', against, { most: 1.2 }, last),
    figure('due → open session cut with 100,000 active grants ÷ with 1,000, p99', crowded, { most: 1.5 }, `${sessions} sessions a round`),
  ];
}
