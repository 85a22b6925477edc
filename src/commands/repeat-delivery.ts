/** An admin has a webhook called again with the same message. */
import { sql } from 'kysely';
import { isRepeatable } from '../db/read-models/deliveries.ts';
import { maySee } from '../db/read-models/viewer.ts';
import { memberNow } from '../db/stores/people.ts';
import { Refusal } from '../domain/errors.ts';
import { isOneOf } from '../domain/policy.ts';
import { commit } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

/**
 * Puts the message back among those that wait, with the id that it had, so that its receiver can tell. Gives the request that it is about.
 * Throws `not_found`, `not_eligible` (not an admin), `delivery_not_repeatable`. A refusal is witnessed.
 */
export async function repeatDelivery(ctx: Ctx, actor: PersonActor, deliveryId: string): Promise<{ requestId: string }> {
  return commit(
    ctx,
    actor,
    async (tx) => {
      const delivery = await tx.sql.selectFrom('delivery').selectAll().where('id', '=', deliveryId).forUpdate().executeTakeFirst();
      const member = await memberNow(tx.sql, actor.id);
      const seen =
        delivery &&
        (await tx.sql.selectFrom('request').select('id').where('request.id', '=', delivery.request_id).where(maySee(ctx.policy, member)).executeTakeFirst());
      if (!delivery || !seen) throw new Refusal('not_found', `There is no message ${deliveryId}, or it is not yours to see.`);
      if (!isOneOf(ctx.policy.admins, member)) throw new Refusal('not_eligible', 'Only admins have a message sent again.');
      if (!isRepeatable(delivery))
        throw new Refusal(
          'delivery_not_repeatable',
          delivery.channel === 'webhook' ? 'It still waits, and is tried again by itself.' : 'Only webhooks are called again.',
        );
      await tx.sql
        .updateTable('delivery')
        .set({ state: 'waiting', tries: 0, next_try_at: sql<Date>`now()`, sending_until: null, last_error: null, sent_at: null })
        .where('id', '=', deliveryId)
        .execute();
      tx.witness({
        type: 'delivery.repeated',
        request: delivery.request_id,
        data: { delivery: deliveryId, webhook: delivery.address, before: delivery.state },
      });
      return { requestId: delivery.request_id };
    },
    () => ({ type: 'access.refused', data: { command: 'repeat-delivery', delivery: deliveryId } }),
  );
}
