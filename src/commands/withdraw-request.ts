/** The requester takes a request back before anyone decided; the sweep marks those that nobody decided in time. */
import { move } from '../db/stores/move.ts';
import { Refusal } from '../domain/errors.ts';
import { requestMachine, transition } from '../domain/lifecycle.ts';
import { type Actor, commit } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

/** Throws `not_found` (also for the request of somebody else), `request_already_decided`. */
export const withdrawRequest = (ctx: Ctx, actor: PersonActor, requestId: string): Promise<void> => leavePending(ctx, actor, requestId, 'withdraw', actor.id);

/** Marks one request as lapsed. Throws `conflict` when its time is not up. */
export const lapseRequest = (ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>, requestId: string): Promise<void> =>
  leavePending(ctx, { system: 'expire-grants' }, requestId, 'lapse', undefined);

async function leavePending(
  ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>,
  actor: Actor,
  requestId: string,
  event: 'withdraw' | 'lapse',
  onlyFor: string | undefined,
): Promise<void> {
  const refused = onlyFor ? () => ({ type: 'access.refused' as const, request: requestId, data: { command: 'withdraw-request' } }) : undefined;
  await commit(
    ctx,
    actor,
    async (tx) => {
      const request = await tx.sql.selectFrom('request').selectAll().where('id', '=', requestId).forUpdate().executeTakeFirst();
      if (!request || (onlyFor && request.person_id !== onlyFor)) throw new Refusal('not_found');
      const outcome = transition(requestMachine, request.state, event, { quorumMet: false, lapsesAt: request.lapses_at }, tx.now);
      if ('refuse' in outcome) throw new Refusal(outcome.refuse, `It was already ${request.state}.`);
      await move(tx.sql, 'request', request, outcome.to, { decided_at: tx.now });
      tx.witness({
        type: outcome.auditEvent,
        request: requestId,
        person: request.person_id,
        incident: request.incident ?? undefined,
        entitlements: request.entitlements,
      });
    },
    refused,
  );
}
