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

/**
 * One round. What cannot be ended is a fault, told in words, and stops nothing else; the server's own clock says what is over.
 * Sessions come first and are looked at all together, so that logins that stay because nobody may disable them delay no cut.
 */
export async function reapPostgres(name: string, config: TargetConfig, settings: ReaperSettings, options: TargetOptions, signal: AbortSignal): Promise<Reaped> {
  const door = openDoor(name, config, options);
  const faults: string[] = [];
  try {
    const { over, disables } = await door.run(signal, 'looking for logins that are over', (client) => findOver(client, settings));
    const cut = new Map<number, number>();
    await cutSessions(door, over, settings, signal, cut, faults);
    const enabled = over.filter(({ canLogin }) => canLogin);
    const disabled = new Set<number>();
    if (disables) for (const role of enabled) if (await tell(faults, () => disable(door, role, settings, signal))) disabled.add(role.oid);
    // One that was half-way when it was looked for first; from now on there can be no other.
    if (disabled.size > 0) await cutSessions(door, over, settings, signal, cut, faults);
    const ended = over.filter(({ oid }) => disabled.has(oid) || cut.has(oid)).map((role) => role.name);
    const sessionsCut = [...cut.values()].reduce((sum, count) => sum + count, 0);
    const notes =
      disables || enabled.length === 0
        ? []
        : [`${enabled.length} logins that are over were not disabled: the reaper has no right to. VALID UNTIL refuses them.`];
    return { ended, sessionsCut, notes, faults };
  } catch (error) {
    if (error instanceof ProviderError) return { ended: [], sessionsCut: 0, notes: [], faults: [...faults, error.message] };
    throw error;
  } finally {
    await door.close();
  }
}

/** Whether it could be done; if not, the words are among the faults. */
async function tell(faults: string[], work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (!(error instanceof ProviderError)) throw error;
    faults.push(error.message);
    return false;
  }
}

/** Roles that are over and can still log in, or still have a session; and whether the reaper may disable any. Superusers and ourselves are never among them. */
async function findOver(client: pg.ClientBase, { vaultUsers, actAs }: ReaperSettings): Promise<{ over: Over[]; disables: boolean }> {
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
  const over = rows.filter(({ ours, comment }) => !ours || leaseIn(comment) !== null).map((row) => ({ ...row, oid: Number(row.oid) }));
  if (actAs !== undefined) return { over, disables: true };
  const { rowCount } = await client.query('SELECT FROM pg_catalog.pg_roles WHERE rolname = current_user AND (rolcreaterole OR rolsuper)');
  return { over, disables: rowCount === 1 };
}

/** Refuses logins that are half-way too, which `VALID UNTIL` does not. What is gone meanwhile is well. */
async function disable(door: Door, role: Over, { actAs }: ReaperSettings, signal: AbortSignal): Promise<void> {
  try {
    await door.run(signal, 'disabling a login', (client) =>
      transaction(client, async () => {
        if (actAs !== undefined) await client.query(`SET LOCAL ROLE ${quoteName(actAs)}`);
        await client.query(`ALTER ROLE ${quoteName(role.name)} NOLOGIN`);
      }),
    );
  } catch (error) {
    if (sqlOf(error).code !== '42704') throw error;
  }
}

/** One role's sessions were told to end so long ago, and are still there: that is a fault. */
const patienceMs = 8_000;

/** Until none of these roles has one. Counts into `cut`, by role. As `actAs`, which may give itself the role, and so its sessions; otherwise by `pg_signal_backend`. */
async function cutSessions(
  door: Door,
  over: readonly Over[],
  { actAs }: ReaperSettings,
  signal: AbortSignal,
  cut: Map<number, number>,
  faults: string[],
): Promise<void> {
  const roles = new Map(over.map((role) => [role.oid, role]));
  const told = new Map<number, { since: number; pids: Set<number> }>();
  // Two empty looks: a login becomes visible a moment after it was let in.
  for (let empty = 0; empty < 2 && roles.size > 0; await sleep(20)) {
    const open = await door.run(signal, 'looking at open sessions', (client) => sessionsOf(client, [...roles.keys()]));
    empty = open.size === 0 ? empty + 1 : 0;
    for (const [oid, pids] of open) {
      const role = roles.get(oid);
      const before = told.get(oid) ?? { since: Date.now(), pids: new Set<number>() };
      told.set(oid, before);
      if (!role) continue;
      const late = Date.now() - before.since > patienceMs;
      if (late) faults.push(`${door.name}: sessions of ${role.name} are still open although they were told to end.`);
      const terminated =
        !late &&
        (await tell(faults, () =>
          door.run(signal, 'cutting open sessions', (client) =>
            actAs === undefined ? terminate(client, oid) : transaction(client, () => terminateAs(client, role, actAs)),
          ),
        ));
      if (!terminated) roles.delete(oid);
      else for (const pid of pids) before.pids.add(pid);
    }
  }
  for (const [oid, { pids }] of told) if (roles.has(oid)) cut.set(oid, (cut.get(oid) ?? 0) + pids.size);
}

/** The sessions of these roles, by role. */
async function sessionsOf(client: pg.ClientBase, oids: readonly number[]): Promise<Map<number, number[]>> {
  const { rows } = await client.query<{ oid: string; pid: number }>(
    'SELECT usesysid::pg_catalog.int8 AS oid, pid FROM pg_catalog.pg_stat_activity WHERE usesysid = ANY($1::pg_catalog.oid[])',
    [oids],
  );
  const found = new Map<number, number[]>();
  for (const { oid, pid } of rows) found.set(Number(oid), [...(found.get(Number(oid)) ?? []), pid]);
  return found;
}

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
