/**
 * A storm: many grants that end at one instant, with real logins at ten targets of one PostgreSQL. Ours, which witnesses each step
 * and reads each login back, beside the best loop over a pool that we could write by hand, and beside a worker that takes one after
 * the other and opens a connection for each.
 */
import pg from 'pg';
import { addLeases } from '../support/many-leases.ts';
import { makeLogins } from '../support/storm.ts';
import { targetCount, targetOf } from './many-targets.ts';
import { type Bench, type Figure, figure, median, timed, tokensOf } from './support.ts';

const rounds = 5;
const each = 2_000;
/** The serial worker is so slow that it gets a fifth, from the middle of a storm: while there are as many logins as there are on average. Its time is counted for all. */
const serialShare = 5;
const roles = { adminRole: 'halligan_target', groupRole: 'orders_ro' };

export async function clientOf(bench: Bench, database: string): Promise<pg.Client> {
  const url = new URL(bench.superuserUrl);
  Object.assign(url, { pathname: `/${database}` });
  const client = new pg.Client({ connectionString: url.href });
  client.on('error', () => undefined);
  await client.connect();
  return client;
}
const lotsOf = (bench: Bench): Promise<pg.Client[]> => Promise.all(Array.from({ length: targetCount }, (_, index) => clientOf(bench, `lot_${index}`)));
const closeAll = (clients: readonly pg.Client[]): Promise<unknown> => Promise.all(clients.map((client) => client.end()));
const farAway = (): Date => new Date(Date.now() + 3_600_000);
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Whose storm it is: a database of Halligan, and its role at the targets. */
interface Place {
  readonly database: string;
  readonly adminRole: string;
}

/** Milliseconds from the instant at which `count` grants are due until all of them are read back as gone. Somebody named oncall must be there. */
export async function ourStorm(
  bench: Bench,
  count: number,
  { database, adminRole }: Place = { database: 'halligan', adminRole: roles.adminRole },
): Promise<number> {
  const house = await clientOf(bench, database);
  const lots = await lotsOf(bench);
  const ids: string[] = [];
  for (const [index, lot] of lots.entries()) {
    const some = await addLeases(house, { target: targetOf(index), count: count / targetCount, state: 'live', endsAt: farAway() });
    await makeLogins(lot, { ...roles, adminRole }, some, farAway());
    ids.push(...some);
  }
  const due = Date.now() + 2_000;
  await house.query('UPDATE access_grant g SET ends_at = $1 FROM lease l WHERE l.grant_id = g.id AND l.id = ANY ($2)', [new Date(due), ids]);
  const left = async (): Promise<number> => (await house.query(`SELECT FROM lease WHERE id = ANY ($1) AND state <> 'revoked'`, [ids])).rowCount ?? 0;
  while ((await left()) > 0) {
    if (Date.now() - due > 1_000 * (60 + count)) throw new Error(`${await left()} of ${count} leases are not revoked`);
    await pause(20);
  }
  const took = Date.now() - due;
  await closeAll([house, ...lots]);
  return took;
}

interface DueRow {
  readonly role: string;
  readonly lot: number;
}

/** What a careful person's loop knows: a table of its own in a database of its own, and the logins. */
async function gatherByHand(bench: Bench, count: number): Promise<pg.Client> {
  const admin = await clientOf(bench, 'postgres');
  if (!(await admin.query(`SELECT FROM pg_database WHERE datname = 'by_hand'`)).rowCount) await admin.query('CREATE DATABASE by_hand');
  await admin.end();
  const own = await clientOf(bench, 'by_hand');
  await own.query(
    'CREATE TABLE IF NOT EXISTS due (role text PRIMARY KEY, lot int NOT NULL, ends_at timestamptz NOT NULL, taken_at timestamptz, ended_at timestamptz)',
  );
  await own.query('TRUNCATE due; CREATE INDEX IF NOT EXISTS due_next ON due (ends_at) WHERE taken_at IS NULL');
  const lots = await lotsOf(bench);
  for (const [lot, client] of lots.entries()) {
    const ids = Array.from({ length: count / targetCount }, () => `lse_${crypto.randomUUID().replaceAll('-', '')}`);
    await makeLogins(client, { ...roles, marker: 'by hand ' }, ids, farAway());
    await own.query(`INSERT INTO due SELECT 'hg_' || substr(id, 5), $2, now() FROM unnest($1::text[]) id`, [ids, lot]);
  }
  await closeAll(lots);
  return own;
}

/** Several at once write the same rows of the catalogue, which a careful loop tries again. */
async function endByHand(target: pg.Client, role: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await endOnce(target, role);
    } catch (error) {
      if (tries >= 6 || !/tuple concurrently|deadlock/.test((error as Error).message)) throw error;
      await pause(10 * tries);
    }
  }
}

/** Ends one login and reads back that it is gone, with no more statements than that needs. */
async function endOnce(target: pg.Client, role: string): Promise<void> {
  await target.query(`ALTER ROLE ${role} NOLOGIN; GRANT ${role} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE`);
  await target.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
  await target.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`);
  if ((await target.query('SELECT FROM pg_roles WHERE rolname = $1', [role])).rowCount) throw new Error(`${role} is still there`);
}
const asHalligan = (client: pg.Client) => client.query(`SET SESSION AUTHORIZATION ${roles.adminRole}`);

/** Workers that take what is due in small batches, each with a kept connection to every target. */
async function pooled(bench: Bench, count: number, workers: number): Promise<number> {
  const own = await gatherByHand(bench, count);
  const hands = await Promise.all(
    Array.from({ length: workers }, async () => {
      const lots = await lotsOf(bench);
      for (const lot of lots) await asHalligan(lot);
      return { own: await clientOf(bench, 'by_hand'), lots };
    }),
  );
  const work = async ({ own: mine, lots }: (typeof hands)[number]): Promise<void> => {
    for (;;) {
      const { rows } = await mine.query<DueRow>(
        'UPDATE due SET taken_at = now() WHERE role IN (SELECT role FROM due WHERE taken_at IS NULL AND ends_at <= now() ORDER BY ends_at LIMIT 5 FOR UPDATE SKIP LOCKED) RETURNING role, lot',
      );
      if (rows.length === 0) return;
      for (const { role, lot } of rows) {
        await endByHand(lots[lot] as pg.Client, role);
        await mine.query('UPDATE due SET ended_at = now() WHERE role = $1', [role]);
      }
    }
  };
  const took = await timed(() => Promise.all(hands.map(work)));
  await closeAll([own, ...hands.flatMap((hand) => [hand.own, ...hand.lots])]);
  return took;
}

/** One after the other, with a connection of its own for each login: `count` of `there`. */
async function serial(bench: Bench, count: number, there: number): Promise<number> {
  const own = await gatherByHand(bench, there);
  const took = await timed(async () => {
    const { rows } = await own.query<DueRow>('SELECT role, lot FROM due WHERE ended_at IS NULL AND ends_at <= now() ORDER BY md5(role) LIMIT $1', [count]);
    for (const { role, lot } of rows) {
      const target = await clientOf(bench, `lot_${lot}`);
      await asHalligan(target);
      await endByHand(target, role);
      await target.end();
      await own.query('UPDATE due SET ended_at = now() WHERE role = $1', [role]);
    }
  });
  const rest = await own.query<DueRow>('SELECT role, lot FROM due WHERE ended_at IS NULL');
  const admin = await clientOf(bench, 'postgres');
  for (let from = 0; from < rest.rows.length; from += 200)
    await admin.query(
      `DROP ROLE ${rest.rows
        .slice(from, from + 200)
        .map(({ role }) => role)
        .join(', ')}`,
    );
  await closeAll([own, admin]);
  return took;
}

/** The storm, `each` grants a round. */
export async function storm(bench: Bench): Promise<Figure[]> {
  await tokensOf(bench.url, 'oncall', 1);
  await ourStorm(bench, 50);
  const tried: [number, number][] = [];
  for (const workers of [2, 4, 8]) tried.push([workers, await pooled(bench, 200, workers)]);
  const best = tried.toSorted((a, b) => a[1] - b[1])[0]?.[0] ?? 4;
  const [againstPool, againstSerial, speeds]: [number[], number[], number[]] = [[], [], []];
  let last = '';
  for (let round = 0; round < rounds; round++) {
    const mine = await ourStorm(bench, each);
    const pool = await pooled(bench, each, best);
    const one = (await serial(bench, each / serialShare, each / 2 + each / serialShare / 2)) * serialShare;
    againstPool.push(pool / mine);
    againstSerial.push(one / mine);
    speeds.push((each / mine) * 1_000);
    last = `${each} due at once: ours ${speedOf(each, mine)}, a pool of ${best} ${speedOf(each, pool)}, one after the other ${speedOf(each, one)}`;
  }
  const note = `${last}; ours in the median ${median(speeds).toFixed(0)} a second, PostgreSQL and targets on the same two cores`;
  return [
    figure('a storm at ten targets: ours ÷ the best loop by hand over a pool, in ends per second', againstPool, { least: 0.8 }, note),
    figure('the same ÷ one after the other with a connection for each', againstSerial, { least: 5 }, note),
  ];
}

const speedOf = (count: number, tookMs: number): string => `${((count / tookMs) * 1_000).toFixed(0)}/s`;
