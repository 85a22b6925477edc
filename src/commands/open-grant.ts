/** Opens the grant of an approved request, in the transaction that approved it. */

import type { Entitlement } from '../domain/entitlement.ts';
import { newId } from '../domain/ids.ts';
import { longest } from '../domain/policy.ts';
import type { Tx } from './commit.ts';
import { assertNotQuarantined } from './quarantine.ts';

export interface ToOpen {
  readonly id: string;
  readonly person_id: string;
  readonly entitlements: readonly string[];
  readonly duration_seconds: number;
  readonly incident: string | null;
  readonly start_at: Date | null;
  readonly break_glass: boolean;
}

export interface Opened {
  readonly grantId: string;
  readonly endsAt: Date;
}

/** Throws `quarantined`. The clock starts now, or at the asked start when that is still to come. Puts the end into the outbox, and owes a review for break-glass. */
export async function openGrant(tx: Tx, request: ToOpen, policy: readonly Entitlement[]): Promise<Opened> {
  assertNotQuarantined(tx);
  const startsAt = request.start_at && request.start_at > tx.now ? request.start_at : tx.now;
  const seconds = Math.min(request.duration_seconds, longest(policy, request.break_glass).most);
  const endsAt = new Date(startsAt.getTime() + seconds * 1_000);
  const grantId = newId('grant', tx.now.getTime());
  const about = { request: request.id, grant: grantId, person: request.person_id, incident: request.incident ?? undefined, entitlements: request.entitlements };
  await tx.sql
    .insertInto('access_grant')
    .values({
      id: grantId,
      request_id: request.id,
      person_id: request.person_id,
      state: startsAt > tx.now ? 'scheduled' : 'active',
      break_glass: request.break_glass,
      incident: request.incident,
      starts_at: startsAt,
      ends_at: endsAt,
    })
    .execute();
  tx.witness({ ...about, type: 'grant.opened', data: { startsAt: startsAt.toISOString(), endsAt: endsAt.toISOString(), breakGlass: request.break_glass } });
  tx.send({ topic: 'grant-due', payload: { id: grantId, epoch: 0, dueAt: endsAt.toISOString() } });
  if (request.break_glass) {
    const reviewId = newId('review', tx.now.getTime());
    const within = Math.min(...policy.map((entitlement) => entitlement.review.withinSeconds));
    const dueAt = new Date(endsAt.getTime() + within * 1_000);
    await tx.sql.insertInto('review').values({ id: reviewId, grant_id: grantId, person_id: request.person_id, state: 'due', due_at: dueAt }).execute();
    tx.witness({ ...about, type: 'review.due', data: { review: reviewId, dueAt: dueAt.toISOString() } });
  }
  return { grantId, endsAt };
}
