/**
 * Ends what is over on a PostgreSQL server: roles that bear Halligan's marker and whose `VALID UNTIL` is past can no longer
 * log in, and their open sessions, which the server itself would let go on, are cut. Roles that Vault made have no marker
 * of ours; where the target names their pattern they are judged by `VALID UNTIL` alone.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { z } from 'zod';
import { ProviderError, type TargetOptions } from '../domain/provider.ts';
import { leaseIn } from '../providers/postgres/marker.ts';
import { type Door, openDoor, quoteName, sqlOf, type TargetConfig, transaction } from '../providers/postgres/sql.ts';
import type { Reaped } from './reaped.ts';

/** What the reaper's file may say about a PostgreSQL target beyond how to reach it. */
export const reaperSchema = z.strictObject({
  vaultUsers: z
    .string()
    .regex(/^[^%_]{2}/, 'must begin with at least two characters that are no wildcard')
    .optional()
    .describe('a LIKE pattern for roles that Vault makes: v-%'),
  actAs: z.string().min(1).max(63).optional().describe("the role that may disable logins: Halligan's own, or Vault's"),
});
export type ReaperSettings = z.infer<typeof reaperSchema>;

interface Over {
  readonly oid: number;
  readonly name: string;
  readonly canLogin: boolean;
}

/** One round. What cannot be ended is a fault, told in words, and stops nothing else; the server's own clock says what is over. */
export async function reapPostgres(name: string, config: TargetConfig, settings: ReaperSettings, options: TargetOptions, signal: AbortSignal): Promise<Reaped> {
  const door = openDoor(name, config, options);
  try {
    const over = await door.run(signal, 'looking for logins that are over', (client) => findOver(client, settings.vaultUsers));
    const ended: string[] = [];
    const faults: string[] = [];
    let undisabled = 0;
    let sessionsCut = 0;
    for (const role of over) {
      const disabled = role.canLogin ? await tell(faults, () => disable(door, role, settings, signal)) : 'already';
      const cut = await tell(faults, () => door.run(signal, 'cutting open sessions', (client) => cutSessions(client, door, role, settings)));
      if (disabled === 'no right') undisabled += 1;
      sessionsCut += cut ?? 0;
      if (disabled === 'done' || (cut ?? 0) > 0) ended.push(role.name);
    }
    const notes = undisabled > 0 ? [`${undisabled} logins that are over were not disabled: the reaper has no right to. VALID UNTIL refuses them.`] : [];
    return { ended, sessionsCut, notes, faults };
  } catch (error) {
    if (error instanceof ProviderError) return { ended: [], sessionsCut: 0, notes: [], faults: [error.message] };
    throw error;
  } finally {
    await door.close();
  }
}

async function tell<T>(faults: string[], work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    faults.push(error.message);
    return undefined;
  }
}

/** Roles that are over and can still log in, or still have a session. Superusers and ourselves are never among them. */
async function findOver(client: pg.ClientBase, vaultUsers: string | undefined): Promise<Over[]> {
  const { rows } = await client.query<Over & { ours: boolean; comment: string }>(
    `SELECT r.oid::pg_catalog.int8 AS oid, r.rolname AS name, r.rolcanlogin AS "canLogin", r.rolname LIKE 'hg\\_%' AS ours,
            coalesce(pg_catalog.shobj_description(r.oid, 'pg_authid'), '') AS comment
       FROM pg_catalog.pg_roles r
      WHERE pg_catalog.isfinite(r.rolvaliduntil) AND r.rolvaliduntil <= pg_catalog.clock_timestamp() AND NOT r.rolsuper
        AND r.rolname NOT IN (current_user, session_user) AND (r.rolname LIKE 'hg\\_%' OR r.rolname LIKE $1)
        AND (r.rolcanlogin OR EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.usesysid = r.oid))
      ORDER BY r.rolvaliduntil`,
    [vaultUsers ?? null],
  );
  return rows.filter(({ ours, comment }) => !ours || leaseIn(comment) !== null).map((row) => ({ ...row, oid: Number(row.oid) }));
}

/** Refuses logins that are half-way too, which `VALID UNTIL` does not. Without the right to, the end stands as it is. */
async function disable(door: Door, role: Over, { actAs }: ReaperSettings, signal: AbortSignal): Promise<'done' | 'no right' | 'gone'> {
  try {
    await door.run(signal, 'disabling a login', (client) =>
      transaction(client, async () => {
        if (actAs !== undefined) await client.query(`SET LOCAL ROLE ${quoteName(actAs)}`);
        await client.query(`ALTER ROLE ${quoteName(role.name)} NOLOGIN`);
      }),
    );
    return 'done';
  } catch (error) {
    const { code } = sqlOf(error);
    if (code === '42704') return 'gone';
    if (code === '42501' && actAs === undefined) return 'no right';
    throw error;
  }
}

/** Until none is left. As `actAs`, which may give itself the role, and so its sessions; otherwise by `pg_signal_backend`. */
async function cutSessions(client: pg.ClientBase, door: Door, role: Over, { actAs }: ReaperSettings): Promise<number> {
  const ended = new Set<number>();
  let empty = 0;
  for (const deadline = Date.now() + 8_000; Date.now() < deadline; ) {
    const pids = await sessionsOf(client, role.oid);
    empty = pids.length === 0 ? empty + 1 : 0;
    if (empty >= 2) return ended.size;
    if (pids.length > 0) {
      await (actAs === undefined ? terminate(client, role.oid) : transaction(client, () => terminateAs(client, role, actAs)));
      for (const pid of pids) ended.add(pid);
    }
    await sleep(20);
  }
  throw new ProviderError('target_timeout', `${door.name}: sessions of ${role.name} are still open although they were told to end.`);
}

const sessionsOf = async (client: pg.ClientBase, oid: number): Promise<number[]> =>
  (await client.query<{ pid: number }>('SELECT pid FROM pg_catalog.pg_stat_activity WHERE usesysid = $1', [oid])).rows.map(({ pid }) => pid);

const terminate = (client: pg.ClientBase, oid: number): Promise<unknown> =>
  client.query('SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usesysid = $1', [oid]);

async function terminateAs(client: pg.ClientBase, role: Over, actAs: string): Promise<void> {
  await client.query(`SET LOCAL ROLE ${quoteName(actAs)}`);
  const {
    rows: [version],
  } = await client.query<{ modern: boolean }>(`SELECT pg_catalog.current_setting('server_version_num')::int >= 160000 AS modern`);
  await client.query(`GRANT ${quoteName(role.name)} TO CURRENT_USER${version?.modern ? ' WITH INHERIT TRUE' : ''}`);
  await terminate(client, role.oid);
}
