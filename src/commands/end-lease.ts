/** Ends leases, or grants with all of theirs: the rows move to `revoking` and the work at the target is put into the outbox. Nothing here waits for a target. */
import { type Move, moveAll } from '../db/stores/move.ts';
import { type GrantRow, type LeaseRow, openLeases } from '../db/stores/open-leases.ts';
import { Refusal } from '../domain/errors.ts';
import { type EndReason, type GrantEvent, grantMachine, type LeaseEndReason, leaseMachine, transition } from '../domain/lifecycle.ts';
import type { Tx } from './commit.ts';

/** Everything an event about this lease names. */
export const aboutLease = (lease: Pick<LeaseRow, 'id' | 'grant_id' | 'entitlement'>, grant: Pick<GrantRow, 'request_id' | 'person_id' | 'incident'>) => ({
  request: grant.request_id,
  grant: lease.grant_id,
  lease: lease.id,
  person: grant.person_id,
  incident: grant.incident ?? undefined,
  entitlements: [lease.entitlement],
});

/** Moves an issuing or live lease to `revoking`; one that is already on its way is left alone. */
export const endLease = (tx: Tx, lease: LeaseRow, grant: GrantRow, reason: LeaseEndReason): Promise<void> => endLeases(tx, [{ lease, grant, reason }]);

async function endLeases(tx: Tx, ends: readonly { lease: LeaseRow; grant: GrantRow; reason: LeaseEndReason }[]): Promise<void> {
  const moves: Move<'lease'>[] = [];
  for (const { lease, grant, reason } of ends) {
    const outcome = transition(leaseMachine, lease.state, 'end', {}, tx.now);
    if ('refuse' in outcome) continue;
    moves.push({ row: lease, to: outcome.to, set: { end_reason: reason, revoking_at: tx.now, next_try_at: tx.now } });
    tx.witness({ ...aboutLease(lease, grant), type: outcome.auditEvent, data: { reason, handle: lease.handle ?? lease.external_name } });
    tx.send({ topic: 'revoke-lease', payload: { id: lease.id, epoch: lease.epoch + 1, dueAt: tx.now.toISOString(), target: lease.target } });
  }
  await moveAll(tx.sql, 'lease', moves);
}

const reasons: Partial<Record<GrantEvent, EndReason>> = {
  expire: 'expired',
  return: 'returned',
  revoke: 'revoked',
  offboard: 'offboarded',
  'close-incident': 'incident-closed',
};

/** Ends a locked grant by this event: its leases with it, and, when none is open, the grant at once. Throws `grant_not_active`, or `conflict` before its time. */
export async function endGrant(tx: Tx, grant: GrantRow, event: keyof typeof reasons & GrantEvent, note?: string): Promise<void> {
  const refused = (await endGrants(tx, [grant], event, note)).get(grant.id);
  if (refused) throw refused;
}

/** The same for many. Of those that cannot be ended nothing is written; they are given back with what `endGrant` would throw, by id. */
export async function endGrants(tx: Tx, grants: readonly GrantRow[], event: keyof typeof reasons & GrantEvent, note?: string): Promise<Map<string, Refusal>> {
  const refused = new Map<string, Refusal>();
  const open = await openLeasesOf(tx, grants);
  const reason = reasons[event] ?? 'revoked';
  const moves: Move<'access_grant'>[] = [];
  const ends: { lease: LeaseRow; grant: GrantRow; reason: LeaseEndReason }[] = [];
  for (const grant of grants) {
    const leases = open.get(grant.id) ?? [];
    const facts = { startsAt: grant.starts_at, endsAt: grant.ends_at, openLeases: leases.length };
    const outcome = transition(grantMachine, grant.state, event, facts, tx.now);
    if ('refuse' in outcome) {
      refused.set(grant.id, new Refusal(outcome.refuse, outcome.refuse === 'grant_not_active' ? `The grant is ${grant.state} already.` : undefined));
      continue;
    }
    const at = outcome.to === 'cancelled' ? { ended_at: tx.now } : { ending_at: tx.now };
    moves.push({ row: grant, to: outcome.to, set: { end_reason: reason, end_note: note ?? null, ...at } });
    tx.witness({ ...aboutGrant(grant), type: outcome.auditEvent, data: { reason: note } });
    ends.push(...leases.map((lease) => ({ lease, grant, reason })));
  }
  await moveAll(tx.sql, 'access_grant', moves);
  await endLeases(tx, ends);
  const moved = grants.flatMap((grant) =>
    moves.flatMap(({ row, to }) => (row === grant && to === 'ending' ? { ...grant, state: to, epoch: grant.epoch + 1 } : [])),
  );
  await settleGrants(tx, moved, open);
  return refused;
}

/** The leases of these grants that are not proven gone, locked, by grant. */
export const openLeasesOf = async (tx: Tx, grants: readonly GrantRow[]): Promise<Map<string, LeaseRow[]>> =>
  grants.length === 0
    ? new Map()
    : Map.groupBy(
        await openLeases(
          tx.sql,
          grants.map(({ id }) => id),
        ),
        (lease) => lease.grant_id,
      );

/** What every event about this grant says of it. */
export const aboutGrant = (grant: Pick<GrantRow, 'id' | 'request_id' | 'person_id' | 'incident'>) => ({
  request: grant.request_id,
  grant: grant.id,
  person: grant.person_id,
  incident: grant.incident ?? undefined,
});

/** `ending` becomes `ended` where no lease is open any more; otherwise nothing happens. */
export async function settleGrants(tx: Tx, grants: readonly GrantRow[], open: ReadonlyMap<string, readonly LeaseRow[]>): Promise<void> {
  const moves: Move<'access_grant'>[] = [];
  for (const grant of grants) {
    const facts = { startsAt: grant.starts_at, endsAt: grant.ends_at, openLeases: open.get(grant.id)?.length ?? 0 };
    const outcome = transition(grantMachine, grant.state, 'leases-gone', facts, tx.now);
    if ('refuse' in outcome) continue;
    moves.push({ row: grant, to: outcome.to, set: { ended_at: tx.now } });
    tx.witness({ ...aboutGrant(grant), type: outcome.auditEvent });
  }
  await moveAll(tx.sql, 'access_grant', moves);
}
