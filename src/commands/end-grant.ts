/** A grant ends before or at its time: given back by its holder, ended by somebody else with a reason, with its incident, or because time is up. */
import { lockGrant } from '../db/stores/open-leases.ts';
import { Refusal } from '../domain/errors.ts';
import { isOneOf } from '../domain/policy.ts';
import { commit } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { endGrant } from './end-lease.ts';

type Small = Pick<Ctx, 'db' | 'log' | 'nudge'>;

/** By its holder only. Throws `not_found`, `grant_not_active`. */
export async function returnGrant(ctx: Ctx, actor: PersonActor, grantId: string): Promise<void> {
  await commit(
    ctx,
    actor,
    async (tx) => {
      const grant = await lockGrant(tx.sql, grantId);
      if (!grant || grant.person_id !== actor.id) throw new Refusal('not_found');
      await endGrant(tx, grant, 'return');
    },
    () => ({ type: 'access.refused', grant: grantId, data: { command: 'return-grant' } }),
  );
}

/** By anyone whom the policy lets decide or review it, and by admins. Throws `not_found`, `grant_not_active`. */
export async function revokeGrant(ctx: Ctx, actor: PersonActor, grantId: string, reason: string): Promise<void> {
  await commit(
    ctx,
    actor,
    async (tx) => {
      const grant = await lockGrant(tx.sql, grantId);
      if (!grant || !(await mayRevoke(ctx, tx.sql, actor, grant.request_id))) throw new Refusal('not_found');
      await endGrant(tx, grant, 'revoke', reason);
    },
    () => ({ type: 'access.refused', grant: grantId, data: { command: 'revoke-grant' } }),
  );
}

/** Ends every open grant of an incident that the actor may end; returns their ids. Throws `not_found` when there is none. */
export async function revokeIncident(ctx: Ctx, actor: PersonActor, incident: string, reason: string): Promise<string[]> {
  return commit(
    ctx,
    actor,
    async (tx) => {
      const grants = await tx.sql
        .selectFrom('access_grant')
        .selectAll()
        .where('incident', '=', incident)
        .where('state', 'in', ['scheduled', 'active'])
        .orderBy('id')
        .forUpdate()
        .execute();
      const ended: string[] = [];
      for (const grant of grants) {
        if (!(await mayRevoke(ctx, tx.sql, actor, grant.request_id))) continue;
        await endGrant(tx, grant, 'close-incident', reason);
        ended.push(grant.id);
      }
      if (ended.length === 0) throw new Refusal('not_found', `No open grant of ${incident} is yours to end.`);
      return ended;
    },
    () => ({ type: 'access.refused', incident, data: { command: 'revoke-incident' } }),
  );
}

async function mayRevoke(ctx: Ctx, trx: Parameters<typeof lockGrant>[0], actor: PersonActor, requestId: string): Promise<boolean> {
  if (isOneOf(ctx.policy.admins, actor)) return true;
  const request = await trx
    .selectFrom('request')
    .select(['approver_groups', 'approver_subjects', 'reviewer_groups', 'reviewer_subjects'])
    .where('id', '=', requestId)
    .executeTakeFirstOrThrow();
  return (
    isOneOf({ groups: request.approver_groups, subjects: request.approver_subjects }, actor) ||
    isOneOf({ groups: request.reviewer_groups, subjects: request.reviewer_subjects }, actor)
  );
}

/** Time is up. Does nothing when the grant is no longer open; throws `conflict` when its time is still to come by Postgres' clock. */
export async function expireGrant(ctx: Small, grantId: string): Promise<void> {
  await commit(ctx, { system: 'expire-grants' }, async (tx) => {
    const grant = await lockGrant(tx.sql, grantId);
    if (grant && (grant.state === 'active' || grant.state === 'scheduled')) await endGrant(tx, grant, 'expire');
  });
}
