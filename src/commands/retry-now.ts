/** A target that did not answer is back: what waits there for its next try is tried at once. */
import { sql } from 'kysely';
import { moveAll } from '../db/stores/move.ts';
import { commit } from './commit.ts';
import type { Ctx } from './context.ts';

const batch = 500;

/**
 * Brings forward the next try of every lease that is being ended at this target, whose last try failed, and whose next is
 * still to come; returns how many. A lease that only waits for proof is left alone. No state changes, so nothing is
 * witnessed; the epoch moves on, so that the job for the later time does nothing any more.
 */
export async function retryNow(ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>, target: string): Promise<number> {
  let moved = 0;
  for (;;) {
    const count = await commit(ctx, { system: 'revoke-lease' }, async (tx) => {
      const leases = await tx.sql
        .selectFrom('lease')
        .select(['id', 'state', 'epoch'])
        .where('state', '=', 'revoking')
        .where('target', '=', target)
        .where('next_try_at', '>', sql<Date>`now()`)
        .where('last_error', 'is not', null)
        .orderBy('next_try_at')
        .limit(batch)
        .forUpdate()
        .skipLocked()
        .execute();
      const moves = leases.map((row) => ({ row, to: 'revoking' as const, set: { next_try_at: tx.now } }));
      await moveAll(tx.sql, 'lease', moves);
      return leases.length;
    });
    moved += count;
    if (count < batch) return moved;
  }
}
