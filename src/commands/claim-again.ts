/**
 * One more credential of a lease that is live, for targets that offer `another`: commit the witness → make it at the target →
 * commit that it is shown → show it. It bears the lease's name there, so the lease's own end ends it as well: whatever goes
 * wrong on the way, nothing has to be undone, and the live lease goes on.
 */
import { move } from '../db/stores/move.ts';
import { type LeaseRow, lockGrant } from '../db/stores/open-leases.ts';
import type { AuditEvent } from '../domain/audit-event.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { failpoint } from '../domain/failpoint.ts';
import { type Issued, ProviderError } from '../domain/provider.ts';
import { assertOpensTheSame, assertStillTime, type Claimed, claimedOf, endOf, type Intent, issueSignal, mustBeActive, specOf } from './claim-rules.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { aboutLease, endLease } from './end-lease.ts';

/**
 * First commit, after everything was judged: the witness. The lease's end is moved to the grant's until it is known how long
 * the new credential lives, so that ending the lease covers one whose answer is lost.
 */
export async function intendAgain(tx: Tx, lease: LeaseRow, intent: Omit<Intent, 'leaseId' | 'externalName'>): Promise<Intent> {
  const epoch = await move(tx.sql, 'lease', lease, lease.state, { expires_at: intent.grant.ends_at });
  tx.witness({ ...aboutLease(lease, intent.grant), type: 'lease.again', data: { target: lease.target, externalName: lease.external_name } });
  return { ...intent, leaseId: lease.id, externalName: lease.external_name, again: { epoch, expiresAt: lease.expires_at } };
}

/**
 * The rest of it. Throws what the target throws; with `leaseGone` the lease is ended as `vanished` by then, and a claim makes
 * a new one. Throws `grant_not_active` and `lease_conflict` when grant or lease were ended meanwhile; nothing is shown then.
 */
export async function claimAgain(ctx: Ctx, actor: PersonActor, intent: Intent, began: number, refused: () => Omit<AuditEvent, 'actor'>): Promise<Claimed> {
  const { target } = intent;
  const signal = issueSignal(began);
  let [issued, asked]: [Issued | undefined, boolean] = [undefined, false];
  try {
    await failpoint('again.intended');
    await assertOpensTheSame(intent, signal);
    assertStillTime(intent, began);
    asked = true;
    issued = await target.another?.(specOf(actor, intent), signal);
    if (!issued) throw new ProviderError('target_failed', `${target.name} gives no second credential.`, { nothingMade: true });
  } catch (error) {
    await writeDown(ctx, actor, intent, error, !asked || (error instanceof ProviderError && error.nothingMade));
    throw error;
  }
  await failpoint('again.made');
  await commit(ctx, actor, (tx) => show(tx, intent, issued), refused);
  await failpoint('again.shown');
  return claimedOf(intent, issued);
}

async function lockBoth(tx: Tx, intent: Intent) {
  const grant = await lockGrant(tx.sql, intent.grant.id);
  const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', intent.leaseId).forUpdate().executeTakeFirstOrThrow();
  return { grant, lease };
}

/** Second commit: only under a grant that is open, and of a lease that is live, is it shown. */
async function show(tx: Tx, intent: Intent, issued: Issued): Promise<void> {
  const { grant, lease } = await lockBoth(tx, intent);
  mustBeActive(grant, tx.now);
  if (lease.state !== 'live')
    throw new Refusal('lease_conflict', 'The login was ended while one more credential of it was made.', { next: 'Claim again: a new login is made.' });
  const expiresAt = endOf(issued, grant);
  await move(tx.sql, 'lease', lease, lease.state, { handle: issued.handle, expires_at: latest(lease, intent, expiresAt) });
  tx.witness({
    ...aboutLease(lease, grant),
    type: 'lease.revealed',
    data: { handle: issued.handle, target: lease.target, expiresAt: expiresAt.toISOString() },
  });
}

/** The end of the credential that lives longest. While another claim is under way too, the wider end that the first commit wrote stays. */
function latest(lease: LeaseRow, { again }: Intent, expiresAt: Date): Date {
  if (lease.epoch !== again?.epoch) return lease.expires_at;
  return expiresAt > again.expiresAt ? expiresAt : again.expiresAt;
}

/** After a failure: who was refused, or that the lease is gone; and its end as it was, when surely nothing was made. Never hides the failure that led here. */
async function writeDown(ctx: Ctx, actor: PersonActor, intent: Intent, cause: unknown, nothingMade: boolean): Promise<void> {
  try {
    await commit(ctx, actor, async (tx) => {
      const { grant, lease } = await lockBoth(tx, intent);
      if (!grant) return;
      const about = aboutLease(lease, grant);
      if (lease.state === 'live' && cause instanceof ProviderError && cause.leaseGone) {
        tx.witness({ ...about, type: 'lease.vanished', data: { handle: lease.handle } });
        return endLease(tx, lease, grant, 'vanished');
      }
      if (nothingMade && lease.state === 'live' && lease.epoch === intent.again?.epoch)
        await move(tx.sql, 'lease', lease, lease.state, { expires_at: intent.again.expiresAt });
      tx.witness({ ...about, type: 'claim.refused', data: { entitlement: lease.entitlement, code: isRefusal(cause) ? cause.code : 'internal' } });
    });
  } catch (error) {
    ctx.log.error({ code: 'claim_undo_failed', lease: intent.leaseId, why: (error as Error).message }, 'a failed claim could not be written down');
  }
}
