/** Somebody other than the holder says what a break-glass was. */
import { move } from '../db/stores/move.ts';
import { memberNow } from '../db/stores/people.ts';
import { Refusal } from '../domain/errors.ts';
import { reviewMachine, transition, type Verdict } from '../domain/lifecycle.ts';
import { isOneOf } from '../domain/policy.ts';
import { commit } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

/** Throws `not_found`, `reviewer_not_allowed` (the holder), `device_may_not_decide`, `review_not_due` (closed, or the grant still lasts). */
export async function closeReview(ctx: Ctx, actor: PersonActor, reviewId: string, input: { verdict: Verdict; notes: string }): Promise<void> {
  await commit(
    ctx,
    actor,
    async (tx) => {
      const review = await tx.sql.selectFrom('review').selectAll().where('id', '=', reviewId).forUpdate().executeTakeFirst();
      if (!review) throw new Refusal('not_found');
      const grant = await tx.sql.selectFrom('access_grant').selectAll().where('id', '=', review.grant_id).executeTakeFirstOrThrow();
      const request = await tx.sql.selectFrom('request').selectAll().where('id', '=', grant.request_id).executeTakeFirstOrThrow();
      const member = await memberNow(tx.sql, actor.id);
      if (review.person_id === actor.id) throw new Refusal('reviewer_not_allowed', 'Nobody reviews their own use.');
      if (!isOneOf({ groups: request.reviewer_groups, subjects: request.reviewer_subjects }, member) && !isOneOf(ctx.policy.admins, member))
        throw new Refusal('not_found');
      if (actor.via === 'device')
        throw new Refusal('device_may_not_decide', undefined, { next: 'Close it on the web page, or log in with a browser: halligan login.' });
      const grantOver = ['ending', 'ended', 'cancelled'].includes(grant.state);
      const outcome = transition(reviewMachine, review.state, 'close', { grantOver }, tx.now);
      if ('refuse' in outcome) throw new Refusal(outcome.refuse, grantOver ? undefined : 'The grant still lasts; a use is reviewed when it is over.');
      await move(tx.sql, 'review', review, outcome.to, { closed_by: actor.id, closed_at: tx.now, verdict: input.verdict, notes: input.notes });
      tx.witness({
        type: outcome.auditEvent,
        request: request.id,
        grant: grant.id,
        person: review.person_id,
        incident: grant.incident ?? undefined,
        entitlements: request.entitlements,
        data: { review: reviewId, ...input },
      });
    },
    () => ({ type: 'access.refused', data: { command: 'close-review', review: reviewId } }),
  );
}
