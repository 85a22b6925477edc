/**
 * In quarantine the rows are not believed: they are as old as the backup. What targets hold and what the rows say is compared
 * and written down for people to see, and nothing of it is ended but what is past its own end at the target.
 */
import { sql } from 'kysely';
import type { Ctx } from '../commands/context.ts';
import type { Difference, Differences } from '../db/schema.ts';
import type { LeaseRef, Target } from '../domain/provider.ts';
import { endUnexplained } from './end-unexplained.ts';

type Small = Pick<Ctx, 'db' | 'log' | 'nudge' | 'targets'>;
const deadlineMs = 15_000;
/** So many are listed; the rest is counted. */
const listed = 200;

/** Compares every target, and writes the differences into the quarantine. A target that does not answer is named. */
export async function compareLeases(ctx: Small, quarantineId: string): Promise<void> {
  const found: Difference[] = await unfinished(ctx);
  const unread: { target: string; why: string }[] = [];
  await Promise.all(
    [...ctx.targets.values()].map(async (target) => {
      try {
        found.push(...(await compareTarget(ctx, target)));
      } catch (error) {
        unread.push({ target: target.name, why: (error as Error).message.slice(0, 300) });
      }
    }),
  );
  const order = (one: Difference): string => `${one.target} ${one.kind} ${one.name}`;
  found.sort((one, other) => (order(one) < order(other) ? -1 : 1));
  const differences: Differences = { found: found.slice(0, listed), more: Math.max(0, found.length - listed), unread };
  await ctx.db
    .updateTable('quarantine')
    .set({ differences: JSON.stringify(differences), compared_at: sql<Date>`now()` })
    .where('id', '=', quarantineId)
    .where('lifted_at', 'is', null)
    .execute();
}

async function unfinished({ db }: Small): Promise<Difference[]> {
  const rows = await db.selectFrom('lease').select(['id', 'target', 'external_name', 'expires_at']).where('state', '=', 'issuing').limit(listed).execute();
  return rows.map((row) => ({ kind: 'unfinished', target: row.target, name: row.external_name, lease: row.id, endsAt: row.expires_at.toISOString() }));
}

async function compareTarget(ctx: Small, target: Target): Promise<Difference[]> {
  const open = await ctx.db
    .selectFrom('lease')
    .select(['id', 'external_name', 'expires_at', 'state'])
    .where('target', '=', target.name)
    .where('state', 'in', ['issuing', 'live', 'revoking'])
    .execute();
  const signal = AbortSignal.timeout(deadlineMs);
  const held = await target.sweep(signal);
  const known = new Set(open.map((lease) => lease.external_name));
  const differences: Difference[] = [];
  for (const ref of held) {
    if (known.has(ref.externalName) || (await openElsewhere(ctx, ref))) continue;
    const now = await target.inspect(ref, signal);
    if (now.state === 'absent') continue;
    if (now.expiresAt && now.expiresAt.getTime() <= (await databaseNow(ctx))) await endUnexplained(ctx, target, ref, signal);
    else
      differences.push({ kind: 'unexplained', target: target.name, name: ref.externalName, lease: ref.leaseId, endsAt: now.expiresAt?.toISOString() ?? null });
  }
  if (target.unlisted) return differences;
  const names = new Set(held.map((ref) => ref.externalName));
  for (const lease of open)
    if (lease.state === 'live' && !names.has(lease.external_name))
      differences.push({ kind: 'missing', target: target.name, name: lease.external_name, lease: lease.id, endsAt: lease.expires_at.toISOString() });
  return differences;
}

/** Two targets on one server, seen through one role, hold each other's leases. */
const openElsewhere = async ({ db }: Small, ref: LeaseRef): Promise<boolean> =>
  (await db
    .selectFrom('lease')
    .select('id')
    .where('external_name', '=', ref.externalName)
    .where('state', 'in', ['issuing', 'live', 'revoking'])
    .executeTakeFirst()) !== undefined;

async function databaseNow({ db }: Small): Promise<number> {
  const { rows } = await sql<{ now: Date }>`SELECT now() AS now`.execute(db);
  return rows[0]?.now.getTime() ?? 0;
}
