/**
 * The holder of a grant claims a credential: commit the intent → make it at the target → commit the reveal → show it,
 * once. The secret lives in this call and in the one answer, nowhere else. Undoing stands beside doing: whatever goes
 * wrong after the intent ends in a `revoking` or `void` lease, and a crash in between is found by `reconcile-leases`.
 * What is claimed already gets one more credential where the target can (claim-again.ts), and is replaced where it cannot.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { move } from '../db/stores/move.ts';
import { lockGrant, openLeases } from '../db/stores/open-leases.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { failpoint } from '../domain/failpoint.ts';
import { newId } from '../domain/ids.ts';
import { leaseMachine, transition } from '../domain/lifecycle.ts';
import { type Issued, ProviderError } from '../domain/provider.ts';
import { claimAgain, intendAgain } from './claim-again.ts';
import {
  assertOpensTheSame,
  assertStillTime,
  type Claimed,
  claimedOf,
  endOf,
  type Intent,
  issueSignal,
  judgeAgain,
  mustBeActive,
  specOf,
} from './claim-rules.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { aboutLease, endLease } from './end-lease.ts';
import { assertNotQuarantined } from './quarantine.ts';
import { startIfDue } from './start-grant.ts';

export { type Claimed, issueDeadlineMs } from './claim-rules.ts';

/** So long one claim waits for another that is making the lease of which it wants a second credential; with it, and the making, a terminal's patience is not exceeded. */
const longestWaitMs = 5_000;
const lookAgainMs = 150;

/** Throws `not_found` (also to anyone but the holder), `grant_not_active`, `not_eligible`, `policy_changed`, `quarantined`, and the target's own `target_…` refusals. */
export async function claimLease(ctx: Ctx, actor: PersonActor, grantId: string, entitlementName: string): Promise<Claimed> {
  const observe = (outcome: string): void => ctx.observe?.({ what: 'claim', target: ctx.policy.entitlements.get(entitlementName)?.target, outcome });
  try {
    const given = await claimOnce(ctx, actor, grantId, entitlementName);
    observe('given');
    return given;
  } catch (error) {
    observe(isRefusal(error) ? error.code : 'internal');
    throw error;
  }
}

async function claimOnce(ctx: Ctx, actor: PersonActor, grantId: string, entitlementName: string): Promise<Claimed> {
  const refused = () => ({
    type: 'claim.refused' as const,
    grant: grantId,
    data: { entitlement: ctx.policy.entitlements.has(entitlementName) ? entitlementName : null },
  });
  const waitsUntil = performance.now() + longestWaitMs;
  for (let gone = 0; ; ) {
    // From before the intent: whoever ends the lease counts the claim's time from the intent's own.
    const began = performance.now();
    const mayWait = began < waitsUntil;
    const intent = await commit(ctx, actor, (tx) => intend(ctx, tx, actor, grantId, entitlementName, mayWait), refused);
    if (intent === 'under way') await sleep(lookAgainMs);
    else if (!intent.again) return makeLease(ctx, actor, intent, began, refused);
    else
      try {
        return await claimAgain(ctx, actor, intent, began, refused);
      } catch (error) {
        // What the lease held is gone, and so is the lease by now: a new one is made. Once; whoever takes things away there may go on.
        if (!(error instanceof ProviderError && error.leaseGone) || ++gone > 1) throw error;
      }
  }
}

type Refused = Parameters<typeof commit>[3];

async function makeLease(ctx: Ctx, actor: PersonActor, intent: Intent, began: number, refused: Refused): Promise<Claimed> {
  const signal = issueSignal(began);
  try {
    await failpoint('claim.intended');
    await assertOpensTheSame(intent, signal);
    assertStillTime(intent, began);
  } catch (error) {
    await undo(ctx, actor, intent, error, true);
    throw error;
  }
  let issued: Issued;
  try {
    issued = await intent.target.issue(specOf(actor, intent), signal);
  } catch (error) {
    await undo(ctx, actor, intent, error, error instanceof ProviderError && error.nothingMade);
    throw error;
  }
  try {
    await failpoint('claim.made');
    await commit(ctx, actor, (tx) => reveal(tx, intent, issued), refused);
    await failpoint('claim.revealed');
  } catch (error) {
    await undo(ctx, actor, intent, error, false);
    throw error;
  }
  return claimedOf(intent, issued);
}

/**
 * First commit: everything is judged again, the earlier lease is replaced, the new one gets its name. Where the target gives
 * further credentials of one lease, a live one is kept; while that is still being made, the answer is `under way` if the claim `mayWait`.
 */
async function intend(ctx: Ctx, tx: Tx, actor: PersonActor, grantId: string, entitlementName: string, mayWait: boolean): Promise<Intent | 'under way'> {
  const locked = await lockGrant(tx.sql, grantId);
  if (!locked || locked.person_id !== actor.id) throw new Refusal('not_found');
  assertNotQuarantined(tx);
  const grant = await startIfDue(tx, locked);
  mustBeActive(grant, tx.now, 'Ask again: halligan request.');
  const request = await tx.sql
    .selectFrom('request')
    .select(['entitlements', 'policy', 'break_glass'])
    .where('id', '=', grant.request_id)
    .executeTakeFirstOrThrow();
  if (!request.entitlements.includes(entitlementName))
    throw new Refusal('not_found', `The grant does not hold ${JSON.stringify(entitlementName)}.`, { next: `It holds ${request.entitlements.join(', ')}.` });
  const entitlement = await judgeAgain(ctx, tx, grant, request);
  const current = entitlement(entitlementName);
  const target = ctx.targets.get(current.target);
  if (!target) throw new Refusal('policy_changed', `The target ${current.target} is no longer in the config.`);

  const described = request.policy.find((snapshot) => snapshot.entitlement.name === entitlementName)?.described ?? { unreadable: 'it was not read' };
  const intent = { grant, entitlement: current, described, target, personName: `${actor.name} (${actor.id})` };
  const earlier = (await openLeases(tx.sql, [grantId])).filter((lease) => lease.entitlement === entitlementName);
  if (target.another) {
    const live = earlier.findLast((lease) => lease.state === 'live');
    if (live) return intendAgain(tx, live, intent);
    if (mayWait && earlier.some((lease) => lease.state === 'issuing')) return 'under way';
  }
  for (const lease of earlier) await endLease(tx, lease, grant, 'replaced');
  const leaseId = newId('lease', tx.now.getTime());
  const externalName = `hg_${leaseId}`;
  await tx.sql
    .insertInto('lease')
    .values({
      id: leaseId,
      grant_id: grantId,
      entitlement: entitlementName,
      target: target.name,
      kind: target.kind,
      state: 'issuing',
      external_name: externalName,
      target_grant: JSON.stringify(current.grant),
      expires_at: grant.ends_at,
    })
    .execute();
  tx.witness({
    ...aboutLease({ id: leaseId, grant_id: grantId, entitlement: entitlementName }, grant),
    type: 'lease.intended',
    data: { target: target.name, externalName },
  });
  return { ...intent, leaseId, externalName };
}

/** Second commit: only a lease that is still `issuing`, under a grant that is still open, is revealed. */
async function reveal(tx: Tx, intent: Intent, issued: Issued): Promise<void> {
  const grant = await lockGrant(tx.sql, intent.grant.id);
  const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', intent.leaseId).forUpdate().executeTakeFirstOrThrow();
  mustBeActive(grant, tx.now);
  const outcome = transition(leaseMachine, lease.state, 'issued', {}, tx.now);
  if ('refuse' in outcome) throw new Refusal('lease_conflict', 'Another claim replaced this one while it was made.', { next: 'Use that one, or claim again.' });
  const expiresAt = endOf(issued, grant);
  await move(tx.sql, 'lease', lease, outcome.to, { handle: issued.handle, expires_at: expiresAt, revealed_at: tx.now });
  tx.witness({
    ...aboutLease(lease, grant),
    type: outcome.auditEvent,
    data: { handle: issued.handle, target: lease.target, expiresAt: expiresAt.toISOString() },
  });
}

/** After a failure: `void` when the target certainly made nothing, otherwise ended like any lease. Never hides the failure that led here. */
async function undo(ctx: Ctx, actor: PersonActor, intent: Intent, cause: unknown, nothingMade: boolean): Promise<void> {
  const code = isRefusal(cause) ? cause.code : 'internal';
  try {
    await failpoint('claim.undoing');
    await commit(ctx, actor, async (tx) => {
      const grant = await lockGrant(tx.sql, intent.grant.id);
      const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', intent.leaseId).forUpdate().executeTakeFirstOrThrow();
      if (!grant) return;
      if (nothingMade && lease.state === 'issuing') {
        const outcome = transition(leaseMachine, lease.state, 'never-existed', {}, tx.now);
        if ('refuse' in outcome) return;
        await move(tx.sql, 'lease', lease, outcome.to, {
          end_reason: 'unfinished',
          read_back_at: tx.now,
          last_error: isRefusal(cause) ? cause.message.slice(0, 500) : null,
        });
        tx.witness({ ...aboutLease(lease, grant), type: outcome.auditEvent, data: { code } });
      } else await endLease(tx, lease, grant, 'unfinished');
    });
  } catch (error) {
    ctx.log.error(
      { code: 'claim_undo_failed', lease: intent.leaseId, why: (error as Error).message },
      'a failed claim could not be ended now; reconcile-leases will',
    );
  }
}
