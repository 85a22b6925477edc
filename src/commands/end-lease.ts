/** Ends one lease, or all of a grant: the rows move to `revoking` and the work at the target is put into the outbox. Nothing here waits for a target. */
import { move } from '../db/stores/move.ts';
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
export async function endLease(tx: Tx, lease: LeaseRow, grant: GrantRow, reason: LeaseEndReason): Promise<void> {
  const outcome = transition(leaseMachine, lease.state, 'end', {}, tx.now);
  if ('refuse' in outcome) return;
  const epoch = await move(tx.sql, 'lease', lease, outcome.to, { end_reason: reason, revoking_at: tx.now, next_try_at: tx.now });
  tx.witness({ ...aboutLease(lease, grant), type: outcome.auditEvent, data: { reason, handle: lease.handle ?? lease.external_name } });
  tx.send({ topic: 'revoke-lease', payload: { id: lease.id, epoch, dueAt: tx.now.toISOString(), target: lease.target } });
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
  const leases = await openLeases(tx.sql, grant.id);
  const facts = { startsAt: grant.starts_at, endsAt: grant.ends_at, openLeases: leases.length };
  const outcome = transition(grantMachine, grant.state, event, facts, tx.now);
  if ('refuse' in outcome) throw new Refusal(outcome.refuse, outcome.refuse === 'grant_not_active' ? `The grant is ${grant.state} already.` : undefined);
  const reason = reasons[event] ?? 'revoked';
  const ends = outcome.to === 'cancelled' ? { ended_at: tx.now } : { ending_at: tx.now };
  const epoch = await move(tx.sql, 'access_grant', grant, outcome.to, { end_reason: reason, end_note: note ?? null, ...ends });
  tx.witness({ ...aboutGrant(grant), type: outcome.auditEvent, data: { reason: note } });
  for (const lease of leases) await endLease(tx, lease, grant, reason);
  if (outcome.to === 'ending' && leases.length === 0) await settleGrant(tx, { ...grant, state: outcome.to, epoch });
}

/** What every event about this grant says of it. */
export const aboutGrant = (grant: Pick<GrantRow, 'id' | 'request_id' | 'person_id' | 'incident'>) => ({
  request: grant.request_id,
  grant: grant.id,
  person: grant.person_id,
  incident: grant.incident ?? undefined,
});

/** `ending` becomes `ended` when no lease is open any more; otherwise nothing happens. */
export async function settleGrant(tx: Tx, grant: GrantRow): Promise<void> {
  const open = await openLeases(tx.sql, grant.id);
  const outcome = transition(grantMachine, grant.state, 'leases-gone', { startsAt: grant.starts_at, endsAt: grant.ends_at, openLeases: open.length }, tx.now);
  if ('refuse' in outcome) return;
  await move(tx.sql, 'access_grant', grant, outcome.to, { ended_at: tx.now });
  tx.witness({ ...aboutGrant(grant), type: outcome.auditEvent });
}
