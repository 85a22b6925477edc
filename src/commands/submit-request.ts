/** A person asks for entitlements, for a time, with a reason; by break-glass the grant opens in the same transaction. */
import { sql } from 'kysely';
import { memberAlone } from '../db/stores/people.ts';
import type { Entitlement } from '../domain/entitlement.ts';
import { policyHash } from '../domain/entitlement.ts';
import { Refusal } from '../domain/errors.ts';
import { newId } from '../domain/ids.ts';
import { requestMachine, transition } from '../domain/lifecycle.ts';
import { type Act, assertMayAsk } from '../domain/policy.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';
import { describeTargets } from './describe-targets.ts';
import { assertFreshLogin, foreseeLogin } from './fresh-login.ts';
import { openGrant } from './open-grant.ts';

export interface SubmitRequest {
  readonly entitlements: readonly string[];
  readonly durationSeconds: number;
  readonly reason: string;
  readonly incident: string | null;
  readonly startAt: Date | null;
  readonly breakGlass: boolean;
  /** From `Idempotency-Key`: the same key with the same body gives the same request again. */
  readonly idempotency?: { readonly key: string; readonly bodyHash: string } | undefined;
}

export interface Submitted {
  readonly requestId: string;
  /** Set when it opened at once. */
  readonly grantId: string | null;
}

const startAtMostDays = 30;

/**
 * Throws `entitlement_unknown`, `not_eligible`, `duration_too_long`, `break_glass_not_offered`, `step_up_required`,
 * `groups_stale`, `review_overdue`, `too_many_pending`, `idempotency_key_reused`. A refusal is witnessed.
 */
export async function submitRequest(ctx: Ctx, actor: PersonActor, input: SubmitRequest): Promise<Submitted> {
  const refused = () => ({
    type: 'access.refused' as const,
    entitlements: input.entitlements.filter((name) => ctx.policy.entitlements.has(name)),
    data: { command: 'submit-request' },
  });
  const names = [...new Set(input.entitlements)];
  // A person who may not ask must not make Halligan call a target; the refusal itself is judged and witnessed below.
  const snapshots = (await isAllowed(ctx, actor, input)) ? await describeTargets(ctx, named(ctx, names)) : [];

  return commit(
    ctx,
    actor,
    async (tx) => {
      // One ask of a person after the other: what is counted, and what was already asked under a key, is then all there is.
      const member = await memberAlone(tx.sql, actor.id);
      const earlier = await replay(tx, actor, input);
      if (earlier) return earlier;
      const entitlements = named(ctx, names);
      assertMayAsk({ ...input, entitlements }, member);
      assertFreshLogin(ctx, tx, actor, actOf(input), entitlements, member);
      await assertRoom(ctx, tx, actor.id, input.breakGlass);
      assertStart(input.startAt, tx.now);

      const requestId = newId('request', tx.now.getTime());
      const decideWithin = Math.min(...entitlements.map((entitlement) => entitlement.decideWithinSeconds));
      const lapsesAt = new Date(tx.now.getTime() + decideWithin * 1_000);
      const outcome = input.breakGlass ? transition(requestMachine, 'pending', 'break-glass', { quorumMet: false, lapsesAt }, tx.now) : undefined;
      if (outcome && 'refuse' in outcome) throw new Refusal(outcome.refuse);
      const row = {
        id: requestId,
        person_id: actor.id,
        entitlements: names,
        duration_seconds: input.durationSeconds,
        reason: input.reason,
        incident: input.incident,
        start_at: input.breakGlass ? null : input.startAt,
        break_glass: input.breakGlass,
      };
      await tx.sql
        .insertInto('request')
        .values({
          ...row,
          ...everyone(entitlements),
          state: outcome?.to ?? 'pending',
          policy: JSON.stringify(snapshots),
          policy_hash: policyHash(snapshots),
          lapses_at: lapsesAt,
          decided_at: outcome ? tx.now : null,
        })
        .execute();
      const about = { request: requestId, incident: input.incident ?? undefined, entitlements: names };
      tx.witness({
        ...about,
        type: 'request.submitted',
        data: { durationSeconds: input.durationSeconds, reason: input.reason, breakGlass: input.breakGlass, policyHash: policyHash(snapshots) },
      });
      if (outcome) tx.witness({ ...about, type: outcome.auditEvent });
      const opened = outcome ? await openGrant(tx, row, entitlements) : undefined;
      if (input.idempotency)
        await tx.sql
          .insertInto('idempotency')
          .values({ person_id: actor.id, key: input.idempotency.key, body_hash: input.idempotency.bodyHash, object_id: requestId })
          .execute();
      return { requestId, grantId: opened?.grantId ?? null };
    },
    refused,
  );
}

const named = (ctx: Ctx, names: readonly string[]): Entitlement[] =>
  names.map((name) => {
    const entitlement = ctx.policy.entitlements.get(name);
    if (!entitlement)
      throw new Refusal('entitlement_unknown', `There is no entitlement ${JSON.stringify(name)}.`, {
        next: 'halligan entitlements lists what you may ask for.',
      });
    return entitlement;
  });

const actOf = ({ breakGlass }: Pick<SubmitRequest, 'breakGlass'>): Act => (breakGlass ? 'break-glass' : 'ask');

async function isAllowed(ctx: Ctx, actor: PersonActor, input: SubmitRequest): Promise<boolean> {
  let entitlements: Entitlement[];
  try {
    entitlements = named(ctx, input.entitlements);
    assertMayAsk({ ...input, entitlements }, actor);
  } catch {
    return false;
  }
  const asksForMore = input.breakGlass || entitlements.some(({ stepUp }) => stepUp);
  return !asksForMore || (await foreseeLogin(ctx, actor, actOf(input), entitlements)) === undefined;
}

async function replay(tx: Tx, actor: PersonActor, input: SubmitRequest): Promise<Submitted | undefined> {
  if (!input.idempotency) return undefined;
  const row = await tx.sql.selectFrom('idempotency').selectAll().where('person_id', '=', actor.id).where('key', '=', input.idempotency.key).executeTakeFirst();
  if (!row) return undefined;
  if (row.body_hash !== input.idempotency.bodyHash) throw new Refusal('idempotency_key_reused', undefined, { next: 'Use a new key for a new request.' });
  const grant = await tx.sql.selectFrom('access_grant').select('id').where('request_id', '=', row.object_id).executeTakeFirst();
  return { requestId: row.object_id, grantId: input.breakGlass ? (grant?.id ?? null) : null };
}

async function assertRoom(ctx: Ctx, tx: Tx, personId: string, breakGlass: boolean): Promise<void> {
  if (breakGlass) {
    const overdue = await tx.sql
      .selectFrom('review')
      .select('id')
      .where('person_id', '=', personId)
      .where('state', '=', 'due')
      .where('due_at', '<', tx.now)
      .executeTakeFirst();
    if (overdue) throw new Refusal('review_overdue', undefined, { next: `Somebody else must close ${overdue.id} first: halligan reviews.` });
    return;
  }
  const { count } = await tx.sql
    .selectFrom('request')
    .select(sql<number>`count(*)::int`.as('count'))
    .where('person_id', '=', personId)
    .where('state', '=', 'pending')
    .where('lapses_at', '>', tx.now)
    .executeTakeFirstOrThrow();
  if (count >= ctx.policy.maxPendingPerPerson)
    throw new Refusal('too_many_pending', `You have ${count} requests waiting, which is the most.`, {
      next: 'Withdraw some: halligan status, halligan withdraw.',
    });
}

function assertStart(startAt: Date | null, now: Date): void {
  if (!startAt) return;
  const days = (startAt.getTime() - now.getTime()) / 86_400_000;
  if (days < 0) throw new Refusal('bad_input', 'startAt lies in the past.', { next: 'Leave it out to start at approval.' });
  if (days > startAtMostDays) throw new Refusal('bad_input', `startAt lies more than ${startAtMostDays} days ahead.`);
}

function everyone(entitlements: readonly Entitlement[]) {
  const rules = entitlements.flatMap((entitlement) => entitlement.approval.map((rule) => rule.of));
  const reviewers = entitlements.map((entitlement) => entitlement.review.of);
  const unique = (lists: readonly (readonly string[])[]) => [...new Set(lists.flat())];
  return {
    approver_groups: unique(rules.map((people) => people.groups)),
    approver_subjects: unique(rules.map((people) => people.subjects)),
    reviewer_groups: unique(reviewers.map((people) => people.groups)),
    reviewer_subjects: unique(reviewers.map((people) => people.subjects)),
  };
}
