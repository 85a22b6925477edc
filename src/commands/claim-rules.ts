/**
 * What a claim stands on: the grant, the policy as it is loaded now, the person's groups and the approvals as they are now,
 * and what the target opens now. All of it is judged at every claim, also of one more credential of what is claimed already.
 */
import type { GrantRow } from '../db/stores/open-leases.ts';
import { approversOf, memberNow } from '../db/stores/people.ts';
import { canonicalJson, type Json } from '../domain/canonical.ts';
import type { Entitlement, PolicySnapshot } from '../domain/entitlement.ts';
import { Refusal } from '../domain/errors.ts';
import { mayAsk, mayBreakGlass, quorumMet } from '../domain/policy.ts';
import { type Issued, type LeaseSpec, ProviderError, type Target } from '../domain/provider.ts';
import type { Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

/** A target has this long to make a credential. After it, and a second more, nothing that was asked for can still appear. */
export const issueDeadlineMs = 8_000;

/** Ends the calls of a claim. `began`: `performance.now()` before the intent was committed, so that waiting for its commit counts too. */
export const issueSignal = (began: number): AbortSignal => AbortSignal.timeout(Math.max(1, Math.floor(issueDeadlineMs - (performance.now() - began))));

/** A process that was stopped for a while must not ask a target for anything that nobody waits for any more: its timers may not have fired yet. */
export function assertStillTime({ target }: Pick<Intent, 'target'>, began: number): void {
  if (performance.now() - began >= issueDeadlineMs)
    throw new ProviderError('target_timeout', `${target.name}: the claim took too long before anything was asked of the target.`, { nothingMade: true });
}

/** What the first commit of a claim settled. */
export interface Intent {
  readonly leaseId: string;
  readonly externalName: string;
  readonly grant: GrantRow;
  readonly entitlement: Entitlement;
  readonly described: PolicySnapshot['described'];
  readonly target: Target;
  readonly personName: string;
  /** The lease is live already and one more credential of it is made: its epoch after the first commit, and its end before. */
  readonly again?: { readonly epoch: number; readonly expiresAt: Date };
}

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

/** The lease as its target hears of it. */
export const specOf = (actor: PersonActor, intent: Intent): LeaseSpec => ({
  leaseId: intent.leaseId,
  externalName: intent.externalName,
  grantId: intent.grant.id,
  ...(intent.again ? {} : { first: true }),
  person: intent.personName,
  subject: actor.subject,
  endsAt: intent.grant.ends_at,
  grant: intent.entitlement.grant,
});

/** The earlier of the two ends. */
export const endOf = (issued: Issued, grant: Pick<GrantRow, 'ends_at'>): Date => (issued.expiresAt < grant.ends_at ? issued.expiresAt : grant.ends_at);

/** What the holder is answered, once. */
export const claimedOf = (intent: Intent, issued: Issued): Claimed => ({
  leaseId: intent.leaseId,
  grantId: intent.grant.id,
  entitlement: intent.entitlement.name,
  kind: intent.target.kind,
  target: intent.target.name,
  issued,
  expiresAt: endOf(issued, intent.grant),
});

/** What was shown to those who approved is what is opened now: read at the target again, it must be the same. What could not be read then is not compared. */
export async function assertOpensTheSame({ entitlement, target, described }: Intent, signal: AbortSignal): Promise<void> {
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

/** The policy as it is loaded now, the person's groups as they are now, and the approvals as they stand, must still carry the grant. */
export async function judgeAgain(
  ctx: Ctx,
  tx: Tx,
  grant: GrantRow,
  request: { entitlements: string[]; policy: readonly PolicySnapshot[]; break_glass: boolean },
) {
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

/** Throws `grant_not_active`, saying why, unless the grant is there and open at this time. */
export function mustBeActive(grant: GrantRow | undefined, now: Date, next?: string): asserts grant is GrantRow {
  if (grant?.state === 'active' && now < grant.ends_at) return;
  throw new Refusal('grant_not_active', grant && whyNotActive(grant, now), next === undefined ? {} : { next });
}

function whyNotActive(grant: GrantRow, now: Date): string {
  if (grant.state === 'scheduled') return `The grant starts at ${grant.starts_at.toISOString()}.`;
  if (grant.state === 'active' && now >= grant.ends_at) return `The grant ended at ${grant.ends_at.toISOString()} (expired).`;
  return `The grant is ${grant.state} (${grant.end_reason ?? 'no reason given'}).`;
}
