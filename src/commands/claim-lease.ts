/**
 * The holder of a grant claims a credential: commit the intent → make it at the target → commit the reveal → show it,
 * once. The secret lives in this call and in the one answer, nowhere else. Undoing stands beside doing: whatever goes
 * wrong after the intent ends in a `revoking` or `void` lease, and a crash in between is found by `reconcile-leases`.
 */
import { move } from '../db/stores/move.ts';
import { type GrantRow, lockGrant, openLeases } from '../db/stores/open-leases.ts';
import { approversOf, memberNow } from '../db/stores/people.ts';
import { canonicalJson, type Json } from '../domain/canonical.ts';
import type { Entitlement, PolicySnapshot } from '../domain/entitlement.ts';
import { isRefusal, Refusal } from '../domain/errors.ts';
import { newId } from '../domain/ids.ts';
import { leaseMachine, transition } from '../domain/lifecycle.ts';
import { mayAsk, mayBreakGlass, quorumMet } from '../domain/policy.ts';
import { type Issued, type LeaseSpec, ProviderError, type Target } from '../domain/provider.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { aboutLease, endLease } from './end-lease.ts';
import { startIfDue } from './start-grant.ts';

/** A target has this long to make a credential. After it, and a second more, nothing that was asked for can still appear. */
export const issueDeadlineMs = 8_000;

export interface Claimed {
  readonly leaseId: string;
  readonly grantId: string;
  readonly entitlement: string;
  readonly kind: string;
  readonly target: string;
  readonly issued: Issued;
  /** The earlier of the grant's end and the target's own. */
  readonly expiresAt: Date;
}

interface Intent {
  readonly leaseId: string;
  readonly externalName: string;
  readonly grant: GrantRow;
  readonly entitlement: Entitlement;
  readonly described: PolicySnapshot['described'];
  readonly target: Target;
  readonly personName: string;
}

/** Throws `not_found` (also to anyone but the holder), `grant_not_active`, `not_eligible`, `policy_changed`, and the target's own `target_…` refusals. */
export async function claimLease(ctx: Ctx, actor: PersonActor, grantId: string, entitlementName: string): Promise<Claimed> {
  const refused = () => ({
    type: 'claim.refused' as const,
    grant: grantId,
    data: { entitlement: ctx.policy.entitlements.has(entitlementName) ? entitlementName : null },
  });
  const intent = await commit(ctx, actor, (tx) => intend(ctx, tx, actor, grantId, entitlementName), refused);
  const signal = AbortSignal.timeout(issueDeadlineMs);
  try {
    await assertOpensTheSame(intent, signal);
  } catch (error) {
    await undo(ctx, actor, intent, error, true);
    throw error;
  }
  let issued: Issued;
  try {
    issued = await intent.target.issue(specOf(ctx, actor, intent), signal);
  } catch (error) {
    await undo(ctx, actor, intent, error, error instanceof ProviderError && error.nothingMade);
    throw error;
  }
  try {
    await commit(ctx, actor, (tx) => reveal(tx, intent, issued), refused);
  } catch (error) {
    await undo(ctx, actor, intent, error, false);
    throw error;
  }
  const expiresAt = issued.expiresAt < intent.grant.ends_at ? issued.expiresAt : intent.grant.ends_at;
  const { kind, name: target } = intent.target;
  return { leaseId: intent.leaseId, grantId, entitlement: entitlementName, kind, target, issued, expiresAt };
}

/** What was shown to those who approved is what is opened now: read at the target again, it must be the same. What could not be read then is not compared. */
async function assertOpensTheSame({ entitlement, target, described }: Intent, signal: AbortSignal): Promise<void> {
  if (!('summary' in described)) return;
  const now = await target.describe(entitlement.grant, signal);
  if (canonicalJson(now as unknown as Json) === canonicalJson(described as unknown as Json)) return;
  throw new Refusal(
    'policy_changed',
    `What ${entitlement.name} opens at ${target.name} has changed since it was asked for: then ${described.summary}, now ${now.summary}.`,
    {
      next: 'Ask again, so that somebody sees what it opens now: halligan request.',
    },
  );
}

const specOf = (ctx: Ctx, actor: PersonActor, intent: Intent): LeaseSpec => ({
  leaseId: intent.leaseId,
  externalName: intent.externalName,
  grantId: intent.grant.id,
  first: true,
  person: intent.personName,
  subject: actor.subject,
  endsAt: intent.grant.ends_at,
  grant: intent.entitlement.grant,
  recordHandle: (handle) =>
    commit(ctx, actor, async (tx) => {
      const { numUpdatedRows } = await tx.sql
        .updateTable('lease')
        .set({ handle })
        .where('id', '=', intent.leaseId)
        .where('state', '=', 'issuing')
        .executeTakeFirst();
      if (numUpdatedRows !== 1n) throw new Refusal('grant_not_active', 'The claim was ended while it was made.');
    }),
});

/** First commit: everything is judged again, the earlier lease is replaced, the new one gets its name. */
async function intend(ctx: Ctx, tx: Tx, actor: PersonActor, grantId: string, entitlementName: string): Promise<Intent> {
  const locked = await lockGrant(tx.sql, grantId);
  if (!locked || locked.person_id !== actor.id) throw new Refusal('not_found');
  const grant = await startIfDue(tx, locked);
  if (grant.state !== 'active' || tx.now >= grant.ends_at)
    throw new Refusal('grant_not_active', whyNotActive(grant, tx.now), { next: 'Ask again: halligan request.' });
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

  for (const lease of await openLeases(tx.sql, grantId))
    if (lease.entitlement === entitlementName && !(lease.may_overlap && target.mayOverlap)) await endLease(tx, lease, grant, 'replaced');
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
      may_overlap: target.mayOverlap ?? false,
      expires_at: grant.ends_at,
    })
    .execute();
  tx.witness({
    ...aboutLease({ id: leaseId, grant_id: grantId, entitlement: entitlementName }, grant),
    type: 'lease.intended',
    data: { target: target.name, externalName },
  });
  const described = request.policy.find((snapshot) => snapshot.entitlement.name === entitlementName)?.described ?? { unreadable: 'it was not read' };
  return { leaseId, externalName, grant, entitlement: current, described, target, personName: `${actor.name} (${actor.id})` };
}

/** The policy as it is loaded now, the person's groups as they are now, and the approvals as they stand, must still carry the grant. */
async function judgeAgain(ctx: Ctx, tx: Tx, grant: GrantRow, request: { entitlements: string[]; policy: readonly PolicySnapshot[]; break_glass: boolean }) {
  const current = request.entitlements.flatMap((name) => ctx.policy.entitlements.get(name) ?? []);
  if (current.length < request.entitlements.length)
    throw new Refusal('policy_changed', 'An entitlement of this grant no longer exists.', { next: 'Ask again: halligan request.' });
  const asked = request.policy.map((snapshot) => snapshot.entitlement);
  const opens = ({ target, kind, grant }: Entitlement) => canonicalJson({ target, kind, grant });
  if (!current.every((entitlement, index) => asked[index] && opens(entitlement) === opens(asked[index])))
    throw new Refusal('policy_changed', 'What an entitlement of this grant opens was changed in the config since it was asked for.', {
      next: 'Ask again: halligan request.',
    });
  const holder = await memberNow(tx.sql, grant.person_id);
  const may = request.break_glass ? mayBreakGlass : mayAsk;
  if (!current.every((entitlement) => may(entitlement, holder))) throw new Refusal('not_eligible', 'You no longer belong to those who may use this.');
  if (!request.break_glass) {
    const approvers = await approversOf(tx.sql, grant.request_id);
    if (!quorumMet(asked, holder.id, approvers) || !quorumMet(current, holder.id, approvers))
      throw new Refusal('policy_changed', undefined, { next: 'Ask again: halligan request.' });
  }
  return (name: string): Entitlement => {
    const found = current.find((entitlement) => entitlement.name === name);
    if (!found) throw new Refusal('policy_changed');
    return found;
  };
}

function whyNotActive(grant: GrantRow, now: Date): string {
  if (grant.state === 'scheduled') return `The grant starts at ${grant.starts_at.toISOString()}.`;
  if (grant.state === 'active' && now >= grant.ends_at) return `The grant ended at ${grant.ends_at.toISOString()} (expired).`;
  return `The grant is ${grant.state} (${grant.end_reason ?? 'no reason given'}).`;
}

/** Second commit: only a lease that is still `issuing`, under a grant that is still open, is revealed. */
async function reveal(tx: Tx, intent: Intent, issued: Issued): Promise<void> {
  const grant = await lockGrant(tx.sql, intent.grant.id);
  const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', intent.leaseId).forUpdate().executeTakeFirstOrThrow();
  if (!grant || grant.state !== 'active' || tx.now >= grant.ends_at) throw new Refusal('grant_not_active', grant ? whyNotActive(grant, tx.now) : undefined);
  const outcome = transition(leaseMachine, lease.state, 'issued', {}, tx.now);
  if ('refuse' in outcome) throw new Refusal('lease_conflict', 'Another claim replaced this one while it was made.', { next: 'Use that one, or claim again.' });
  const expiresAt = issued.expiresAt < grant.ends_at ? issued.expiresAt : grant.ends_at;
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
