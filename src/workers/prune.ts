/**
 * Deletes what is of no more use, a little at a time: requests that are over for longer than the config keeps them, messages that were
 * told long ago, keys of requests that nobody will send again. The audit log keeps what happened; nothing here touches it.
 */
import { sql } from 'kysely';
import { commit } from '../commands/commit.ts';
import type { Ctx } from '../commands/context.ts';
import { assertHeld, type Hold, isHeld } from '../db/stores/duties.ts';
import { pruneTold } from '../notify/delivery-rows.ts';

/** Most requests deleted in one transaction, and how many such transactions one run makes. */
const requestsAtOnce = 200;
const roundsAtOnce = 20;
const oftenMs = 3_600_000;
const keysAtOnce = 5_000;

export interface Retention {
  /** How long what people asked for and got is kept after it is over; undefined: for ever. */
  readonly requestsSeconds?: number | undefined;
}

/** What a batch deleted. */
interface Counts {
  readonly requests: number;
  readonly decisions: number;
  readonly grants: number;
  readonly leases: number;
  readonly reviews: number;
  readonly notices: number;
  readonly deliveries: number;
}

const none: Counts = { requests: 0, decisions: 0, grants: 0, leases: 0, reviews: 0, notices: 0, deliveries: 0 };

/** Deletes one batch of requests that are over for longer than `keepSeconds`, and witnesses how many, in one transaction. The database looks again whether each is over. */
export async function pruneHistory(ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>, keepSeconds: number, hold?: Hold): Promise<Counts> {
  return commit(ctx, { system: 'prune' }, async (tx) => {
    if (hold) await assertHeld(tx.sql, hold);
    // A database that was restored is looked at before anything goes from it.
    if (tx.quarantined) return none;
    const { rows } = await sql<Counts>`SELECT * FROM prune_history(${keepSeconds} * interval '1 second', ${requestsAtOnce})`.execute(tx.sql);
    const counts = rows[0] ?? none;
    if (counts.requests > 0) tx.witness({ type: 'history.pruned', data: { ...counts, keptSeconds: keepSeconds } });
    return counts;
  });
}

/** Deletes keys that came with requests longer than thirty days ago; returns how many. */
async function pruneKeys(ctx: Pick<Ctx, 'db'>): Promise<number> {
  const { numAffectedRows } = await sql`DELETE FROM idempotency WHERE (person_id, key) IN (
    SELECT person_id, key FROM idempotency WHERE created_at < now() - interval '30 days' LIMIT ${keysAtOnce})`.execute(ctx.db);
  return Number(numAffectedRows ?? 0n);
}

/** A run of the duty: in batches while there is more, up to an end; then not for an hour, but for requests, of which there may be new ones. */
export function pruner(ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>, { requestsSeconds }: Retention): (hold: Hold) => Promise<void> {
  let seldomAt = 0;
  return async (hold) => {
    for (let round = 0; requestsSeconds !== undefined && round < roundsAtOnce; round++) {
      const { requests } = await pruneHistory(ctx, requestsSeconds, hold);
      if (requests < requestsAtOnce) break;
    }
    if (performance.now() < seldomAt) return;
    for (let round = 0; round < roundsAtOnce; round++) {
      if (!(await isHeld(ctx.db, hold))) return;
      if ((await pruneTold(ctx.db)) + (await pruneKeys(ctx)) === 0) {
        seldomAt = performance.now() + oftenMs;
        return;
      }
    }
  };
}
