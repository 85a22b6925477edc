/** An approver approves or denies exactly what they were shown. */
import { move } from '../db/stores/move.ts';
import { approversOf, memberNow } from '../db/stores/people.ts';
import type { Entitlement } from '../domain/entitlement.ts';
import { Refusal } from '../domain/errors.ts';
import { newId } from '../domain/ids.ts';
import { requestMachine, transition } from '../domain/lifecycle.ts';
import { isOneOf, type Member, mayDecide, mayReview, quorumMet } from '../domain/policy.ts';
import { seenHash } from '../domain/seen.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { assertFreshLogin } from './fresh-login.ts';
import { openGrant } from './open-grant.ts';

export interface DecideRequest {
  readonly decision: 'approve' | 'deny';
  readonly reason: string;
  /** The hash of what was shown. */
  readonly seen: string;
}

export interface Decided {
  readonly state: 'pending' | 'approved' | 'denied';
  readonly grantId: string | null;
}

/**
 * Lateness, groups, quorum and policy are judged here, under the request's lock. A refusal is witnessed.
 * Throws `not_found`, `self_decision`, `device_may_not_decide`, `not_an_approver`, `policy_changed`, `seen_stale`,
 * `decision_repeated`, `request_already_decided`, `request_lapsed`, `step_up_required`, `groups_stale`, `slack_may_not_decide`.
 */
export async function decideRequest(ctx: Ctx, actor: PersonActor, requestId: string, input: DecideRequest): Promise<Decided> {
  return commit(
    ctx,
    actor,
    async (tx) => {
      const request = await tx.sql.selectFrom('request').selectAll().where('id', '=', requestId).forUpdate().executeTakeFirst();
      if (!request) throw new Refusal('not_found');
      const asked = request.policy.map((snapshot) => snapshot.entitlement);
      const current = request.entitlements.map((name) => ctx.policy.entitlements.get(name) ?? null);
      const member = await memberNow(tx.sql, actor.id);
      assertApprover(ctx, request.person_id, asked, current, member, actor);
      if (input.decision === 'approve' && current.includes(null))
        throw new Refusal('policy_changed', 'An entitlement of this request no longer exists.', { next: 'Deny it; it has to be asked for again.' });
      if (request.state === 'pending' && input.seen !== seenHash(await shownTo(tx, request, current))) {
        throw new Refusal('seen_stale', undefined, { next: 'Look at it again, then decide on what you see: reload the page, or halligan status.' });
      }
      await assertFirstDecision(tx, requestId, actor.id, request.state === 'pending');

      const approvers = [...(await approversOf(tx.sql, requestId)), member];
      const met = input.decision === 'approve' && quorumMet(asked, request.person_id, approvers) && quorumMet(known(current), request.person_id, approvers);
      const outcome = transition(requestMachine, request.state, input.decision, { quorumMet: met, lapsesAt: request.lapses_at }, tx.now);
      if ('refuse' in outcome) throw new Refusal(outcome.refuse, outcome.refuse === 'request_already_decided' ? `It was already ${request.state}.` : undefined);
      // Last, so that nobody is sent to prove who they are for a decision that could not be taken anyway.
      assertFreshLogin(ctx, tx, actor, 'decide', [...asked, ...known(current)], member);
      const { decision, reason, seen } = input;
      await tx.sql
        .insertInto('decision')
        .values({
          id: newId('decision', tx.now.getTime()),
          request_id: requestId,
          requester_id: request.person_id,
          person_id: actor.id,
          decision,
          reason,
          seen,
          via: actor.via,
        })
        .execute();
      await move(tx.sql, 'request', request, outcome.to, outcome.to === 'pending' ? {} : { decided_at: tx.now });
      tx.witness({
        type: outcome.auditEvent,
        request: requestId,
        person: request.person_id,
        incident: request.incident ?? undefined,
        entitlements: request.entitlements,
        data: { reason, seen },
      });
      const opened = outcome.effects.includes('open-grant') ? await openGrant(tx, request, [...asked, ...known(current)]) : undefined;
      return { state: outcome.to as Decided['state'], grantId: opened?.grantId ?? null };
    },
    () => ({ type: 'decision.refused', request: requestId, data: { decision: input.decision } }),
  );
}

const known = (current: readonly (Entitlement | null)[]): Entitlement[] => current.filter((entitlement) => entitlement !== null);

/** Both the policy the request carries and the one loaded now must let this person decide; whoever may not even see it is told that it is not there. */
function assertApprover(
  ctx: Ctx,
  requesterId: string,
  asked: readonly Entitlement[],
  current: readonly (Entitlement | null)[],
  member: Member,
  actor: PersonActor,
): void {
  if (member.id === requesterId) {
    throw new Refusal('self_decision', 'You asked for this one yourself. Nobody decides on their own request.', {
      next: 'halligan status shows who can decide.',
    });
  }
  const may = mayDecide(asked, member) && (mayDecide(known(current), member) || current.every((entitlement) => entitlement === null));
  if (may && actor.via === 'device')
    throw new Refusal('device_may_not_decide', undefined, { next: 'Decide on the web page, or log in with a browser: halligan login.' });
  if (may) return;
  const mayLook = mayDecide(asked, member) || mayReview(asked, member) || isOneOf(ctx.policy.auditors, member) || isOneOf(ctx.policy.admins, member);
  throw new Refusal(mayLook ? 'not_an_approver' : 'not_found');
}

async function assertFirstDecision(tx: Tx, requestId: string, personId: string, pending: boolean): Promise<void> {
  if (!pending) return;
  const earlier = await tx.sql.selectFrom('decision').select('id').where('request_id', '=', requestId).where('person_id', '=', personId).executeTakeFirst();
  if (earlier) throw new Refusal('decision_repeated');
}

async function shownTo(tx: Tx, request: ShownRequest, current: readonly (Entitlement | null)[]) {
  const requester = await tx.sql.selectFrom('person').select(['id', 'name']).where('id', '=', request.person_id).executeTakeFirstOrThrow();
  return shownOf(request, requester, current);
}

export interface ShownRequest {
  readonly id: string;
  readonly person_id: string;
  readonly entitlements: readonly string[];
  readonly duration_seconds: number;
  readonly reason: string;
  readonly incident: string | null;
  readonly start_at: Date | null;
  readonly break_glass: boolean;
  readonly policy_hash: string;
}

/** What the Decide page shows of a request, for `seenHash`. */
export const shownOf = (request: ShownRequest, requester: { id: string; name: string }, current: readonly (Entitlement | null)[]) => ({
  requestId: request.id,
  requester,
  entitlements: request.entitlements,
  durationSeconds: request.duration_seconds,
  reason: request.reason,
  incident: request.incident,
  startAt: request.start_at,
  breakGlass: request.break_glass,
  policyHash: request.policy_hash,
  current,
});
