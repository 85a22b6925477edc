/**
 * Compares what targets hold under our marker with what rows say, both ways. A claim that a crash cut short is ended;
 * an object that no open lease explains is ended at the target; a live lease whose object is gone is witnessed and ended.
 */
import { sql } from 'kysely';
import { issueDeadlineMs } from '../commands/claim-lease.ts';
import type { Ctx } from '../commands/context.ts';
import { quarantineNow } from '../commands/quarantine.ts';
import { endUnfinished, endVanished } from '../commands/record-revocation.ts';
import { failpoint } from '../domain/failpoint.ts';
import type { LeaseRef, Target } from '../domain/provider.ts';
import { compareLeases } from './compare-leases.ts';
import { endUnexplained } from './end-unexplained.ts';

type Small = Pick<Ctx, 'db' | 'log' | 'nudge' | 'targets'>;
const sweepDeadlineMs = 15_000;
const lookUpAtOnce = 1_000;

/** Compares rows with what targets hold, both ways, and ends what no row explains; in quarantine it only tells. A target that does not answer is left for the next time. */
export async function reconcileLeases(ctx: Small): Promise<void> {
  const quarantine = await quarantineNow(ctx.db);
  if (quarantine) return compareLeases(ctx, quarantine);
  const unfinished = await ctx.db
    .selectFrom('lease')
    .select('id')
    .where('state', '=', 'issuing')
    .where('created_at', '<', sql<Date>`now() - ${(issueDeadlineMs + 2_000) / 1_000} * interval '1 second'`)
    .limit(1_000)
    .execute();
  for (const { id } of unfinished) {
    await endUnfinished(ctx, id);
    await failpoint('reconcile.unfinished');
  }
  const results = await Promise.allSettled([...ctx.targets.values()].map((target) => reconcileTarget(ctx, target)));
  for (const result of results)
    if (result.status === 'rejected')
      ctx.log.warn({ code: 'reconcile_failed', why: (result.reason as Error).message }, 'a target could not be compared; it will be again');
}

async function reconcileTarget(ctx: Small, target: Target): Promise<void> {
  // Rows first: a lease whose intent is committed after this reading may have an object, and is then looked up again below.
  const live = await ctx.db.selectFrom('lease').select(['id', 'external_name']).where('target', '=', target.name).where('state', '=', 'live').execute();
  const held = await target.sweep(AbortSignal.timeout(sweepDeadlineMs));
  const names = new Set(held.map((ref) => ref.externalName));
  // By name alone: two targets on one server, seen through one role, hold each other's leases.
  const open = await openAmong(ctx, held);
  for (const ref of held) {
    if (open.has(ref.externalName)) continue;
    await endUnexplained(ctx, target, ref, AbortSignal.timeout(sweepDeadlineMs));
  }
  if (target.unlisted) return;
  for (const lease of live) if (!names.has(lease.external_name)) await endVanished(ctx, lease.id);
}

/** The names of those that an open lease explains. All at once: while thousands end, one that is looked up a minute later has long been ended, and would be asked for in vain. */
async function openAmong(ctx: Small, held: readonly LeaseRef[]): Promise<ReadonlySet<string>> {
  const open = new Set<string>();
  for (let from = 0; from < held.length; from += lookUpAtOnce) {
    const names = held.slice(from, from + lookUpAtOnce).map((ref) => ref.externalName);
    const rows = await ctx.db.selectFrom('lease').select(['external_name', 'state']).where('external_name', 'in', names).execute();
    for (const row of rows) if (row.state !== 'revoked' && row.state !== 'void') open.add(row.external_name);
  }
  return open;
}
