/** A grant ends before or at its time: given back by its holder, ended by somebody else with a reason, with its incident, or because time is up. */
import { lockGrant, lockGrants } from '../db/stores/open-leases.ts';
import { Refusal } from '../domain/errors.ts';
import { isOneOf } from '../domain/policy.ts';
import { commit } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { endGrant, endGrants } from './end-lease.ts';

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
      const mine = [];
      for (const grant of grants) if (await mayRevoke(ctx, tx.sql, actor, grant.request_id)) mine.push(grant);
      if (mine.length === 0) throw new Refusal('not_found', `No open grant of ${incident} is yours to end.`);
      for (const refused of (await endGrants(tx, mine, 'close-incident', reason)).values()) throw refused;
      return mine.map((grant) => grant.id);
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

/**
 * Time is up for these. Does nothing to one that is no longer open; gives back the ids of those whose time is still to come by Postgres'
 * clock. Who asks for the same grant twice gets the same.
 */
export async function expireGrants(ctx: Small, grantIds: readonly string[]): Promise<ReadonlySet<string>> {
  return commit(ctx, { system: 'expire-grants' }, async (tx) => {
    const grants = await lockGrants(tx.sql, grantIds);
    const open = grants.filter((grant) => grant.state === 'active' || grant.state === 'scheduled');
    return new Set((await endGrants(tx, open, 'expire')).keys());
  });
}
