/** Many grants that end at one instant, at ten targets of which one hangs: with real logins, and everything measured by SQL of its own. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import type { House } from './house.ts';
import type { ConfigOptions } from './house-config.ts';
import { addLeases } from './many-leases.ts';
import { superUrlOf } from './postgres.ts';
import { type TcpProxyDouble, tcpProxyDouble } from './tcp-proxy-double.ts';

export const lots = Array.from({ length: 10 }, (_, index) => `lot-${index}`);
export const hungLot = 'lot-9';

/** Ten targets on the run's server; the way to the last is a proxy, which `proxy` gives once the config is made. */
export function tenTargets(): { options: Pick<ConfigOptions, 'moreTargets' | 'targetPort'>; proxy(): TcpProxyDouble } {
  let made: TcpProxyDouble | undefined;
  return {
    options: {
      targetPort: async (real) => {
        made = await tcpProxyDouble(real);
        return real;
      },
      moreTargets: (target) =>
        lots
          .map((name) => `  ${name}: ${JSON.stringify({ kind: 'postgres', ...target.config, ...(name === hungLot ? { port: made?.port } : {}) })}`)
          .join('\n'),
    },
    proxy() {
      if (!made) throw new Error('the config is not made yet');
      return made;
    },
  };
}

/** Halligan's own role at a target, and the group whose members logins become. */
interface Roles {
  readonly adminRole: string;
  readonly groupRole: string;
  /** What their comments begin with: Halligan's marker unless set. Under another they are nothing to Halligan, which would end what no lease explains. */
  readonly marker?: string;
}

/**
 * Makes the login of each of these leases as Halligan makes them (PostgreSQL 16 and newer): by its own role there, shared out among
 * its helpers, with the marker, the end, and membership of the group. `target` is the target's database, as its superuser.
 */
export async function makeLogins(
  target: Pick<pg.Client, 'query'>,
  { adminRole, groupRole, marker = 'halligan lease=' }: Roles,
  leases: readonly string[],
  endsAt: Date,
): Promise<void> {
  await target.query(`SET SESSION AUTHORIZATION ${adminRole}`);
  for (let helper = 0; helper < 16; helper++) {
    const name = `${adminRole}_maker_${helper}`;
    if ((await target.query('SELECT FROM pg_roles WHERE rolname = $1', [name])).rowCount) continue;
    await target.query(`CREATE ROLE ${name} NOLOGIN CREATEROLE; GRANT ${name} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;
      GRANT ${groupRole} TO ${name} WITH ADMIN TRUE, INHERIT FALSE, SET FALSE`);
  }
  const end = endsAt.toISOString();
  const one = `EXECUTE format('SET LOCAL ROLE ${adminRole}_maker_%s', n % 16); n := n + 1; name := replace(id, 'lse_', 'hg_');
    EXECUTE format('CREATE ROLE %I LOGIN PASSWORD NULL VALID UNTIL %L', name, '${end}');
    EXECUTE format('COMMENT ON ROLE %I IS %L', name, '${marker}' || id);
    EXECUTE format('GRANT ${groupRole} TO %I WITH INHERIT TRUE, SET FALSE, ADMIN FALSE', name);`;
  for (let from = 0; from < leases.length; from += 500)
    await target.query(`DO $$ DECLARE id text; name text; n int := 0; BEGIN
      FOREACH id IN ARRAY string_to_array('${leases.slice(from, from + 500).join(',')}', ',') LOOP ${one} END LOOP; END $$`);
  await target.query('RESET SESSION AUTHORIZATION');
}

export interface Storm {
  readonly endsAt: Date;
  readonly leases: ReadonlyMap<string, readonly string[]>;
}

/** Live leases with their logins, `count` over all ten targets. When all are made, which takes what it takes, their grants are given one end, `dueInMs` from then. */
export async function gatherStorm(house: House, count: number, dueInMs: number): Promise<Storm> {
  const leases = new Map<string, string[]>();
  const client = new pg.Client({ connectionString: superUrlOf(house.target.database) });
  await client.connect();
  const farAway = new Date(Date.now() + 3_600_000);
  for (const target of lots) {
    const ids = await addLeases(house.database.superuser, { target, count: count / lots.length, state: 'live', endsAt: farAway });
    leases.set(target, ids);
    await makeLogins(client, house.target, ids, farAway);
  }
  await client.end();
  const endsAt = new Date(Date.now() + dueInMs);
  const ids = [...leases.values()].flat();
  await house.database.superuser.query('UPDATE access_grant g SET ends_at = $1 FROM lease l WHERE l.grant_id = g.id AND l.id = ANY ($2)', [endsAt, ids]);
  await house.database.superuser.query('UPDATE lease SET expires_at = $1 WHERE id = ANY ($2)', [endsAt, ids]);
  return { endsAt, leases };
}

export interface Measured {
  /** Milliseconds from due to cut, of each lease. */
  readonly cutMs: readonly number[];
  /** From due until the row says that the lease is being ended. */
  readonly endingMs: readonly number[];
  readonly revoked: number;
  readonly due: number;
}

/** What became of the leases at these targets. */
export async function measure(house: House, { leases, endsAt }: Storm, targets: readonly string[]): Promise<Measured> {
  const ids = targets.flatMap((target) => leases.get(target) ?? []);
  const { rows } = await house.database.superuser.query<{ cut: Date | null; ending: Date | null; state: string }>(
    'SELECT cut_at AS cut, revoking_at AS ending, state FROM lease WHERE id = ANY ($1)',
    [ids],
  );
  return {
    cutMs: rows.flatMap(({ cut }) => (cut ? [cut.getTime() - endsAt.getTime()] : [])),
    endingMs: rows.flatMap(({ ending }) => (ending ? [ending.getTime() - endsAt.getTime()] : [])),
    revoked: rows.filter(({ state }) => state === 'revoked').length,
    due: ids.length,
  };
}

/** Waits until nothing is open at these targets; looks seldom, so that looking is not what is measured. Throws after `withinMs`. */
export async function untilNoneOpen(house: House, targets: readonly string[], withinMs: number): Promise<void> {
  for (const end = Date.now() + withinMs; ; await sleep(250)) {
    const { rows } = await house.database.superuser.query<{ count: number }>(
      `SELECT count(*)::int AS count FROM lease WHERE target = ANY ($1) AND state IN ('issuing', 'live', 'revoking')`,
      [targets],
    );
    if (rows[0]?.count === 0) return;
    if (Date.now() > end) throw new Error(`${rows[0]?.count} leases are still open after ${withinMs} ms`);
  }
}

/** Calls the API every 25 ms until it is told to stop; gives how long each answer took, in milliseconds. */
export async function watchApi(house: House): Promise<() => Promise<number[]>> {
  const api = await house.apiAs('oncall');
  const took: number[] = [];
  let over = false;
  const loop = (async () => {
    for (let round = 0; !over; round++) {
      const began = performance.now();
      const answer = await api.get(round % 2 === 0 ? '/grants?state=active' : '/requests?mine=true');
      if (answer.status !== 200) throw new Error(`${answer.status} ${answer.text}`);
      took.push(performance.now() - began);
      await sleep(25);
    }
  })();
  loop.catch(() => undefined);
  return async () => {
    over = true;
    await loop;
    return took;
  };
}

/** What so large a part of the values does not exceed. */
export const quantile = (values: readonly number[], q: number): number =>
  values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(q * values.length) - 1)] ?? Number.NaN;

/** Names at the target that bear our form, read by SQL that shares nothing with the provider. */
export async function loginsLeft(house: House, leases: Iterable<string>): Promise<number> {
  const client = new pg.Client({ connectionString: house.database.superUrl });
  await client.connect();
  try {
    const names = [...leases].map((id) => id.replace('lse_', 'hg_'));
    return (await client.query('SELECT FROM pg_roles WHERE rolname = ANY ($1)', [names])).rowCount ?? 0;
  } finally {
    await client.end();
  }
}
