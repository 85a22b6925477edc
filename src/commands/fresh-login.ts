/**
 * Whether the login behind a command is fresh and strong enough for it: the one place that commands ask, and that pages
 * ask ahead of them. The rule itself is `loginRefusal`; here stands where its facts come from.
 */
import type { Entitlement } from '../domain/entitlement.ts';
import type { LoginNeed, Refusal } from '../domain/errors.ts';
import { type Act, lackOf, loginRefusal } from '../domain/policy.ts';
import type { Tx } from './commit.ts';
import type { Ctx, PersonActor } from './context.ts';

interface Facts {
  readonly now: Date;
  readonly groupsReadAt: Date;
}

const judge = (ctx: Pick<Ctx, 'policy'>, actor: PersonActor, act: Act, entitlements: readonly Entitlement[], { now, groupsReadAt }: Facts) =>
  loginRefusal(act, entitlements, { via: actor.via, authAt: actor.authAt, acr: actor.acr ?? null, groupsReadAt }, ctx.policy.groupsMaxAgeSeconds, now);

/**
 * Inside a command's transaction, after eligibility: throws `step_up_required`, `groups_stale` or `slack_may_not_decide`.
 * `entitlements` are both those that were asked for and those loaded now, so that the stricter policy counts;
 * `groupsReadAt` is the person's, as that transaction reads it.
 */
export function assertFreshLogin(
  ctx: Pick<Ctx, 'policy'>,
  tx: Pick<Tx, 'now'>,
  actor: PersonActor,
  act: Act,
  entitlements: readonly Entitlement[],
  { groupsReadAt }: { readonly groupsReadAt: Date },
): void {
  const refusal = judge(ctx, actor, act, entitlements, { now: tx.now, groupsReadAt });
  if (refusal) throw refusal;
}

/** What `assertFreshLogin` would say at this moment, for pages that tell it before anything is typed. Decides nothing. */
export async function foreseeLogin(
  ctx: Pick<Ctx, 'policy' | 'pool'>,
  actor: PersonActor,
  act: Act,
  entitlements: readonly Entitlement[],
): Promise<Refusal | undefined> {
  const facts = await factsOf(ctx, actor);
  return facts && judge(ctx, actor, act, entitlements, facts);
}

/** What a decision on this request would be told at this moment about the login behind it. Decides nothing. */
export async function foreseeDecision(ctx: Pick<Ctx, 'db' | 'policy' | 'pool'>, actor: PersonActor, requestId: string): Promise<Refusal | undefined> {
  const request = await ctx.db.selectFrom('request').select(['policy', 'entitlements']).where('id', '=', requestId).executeTakeFirst();
  if (!request) return undefined;
  const current = request.entitlements.flatMap((name) => ctx.policy.entitlements.get(name) ?? []);
  return foreseeLogin(ctx, actor, 'decide', [...request.policy.map(({ entitlement }) => entitlement), ...current]);
}

/** What this login lacks at this moment of `need`; for the pages on which a terminal is let in. */
export async function loginLacks(ctx: Pick<Ctx, 'pool'>, actor: PersonActor, need: LoginNeed): Promise<'proof' | 'groups' | undefined> {
  const facts = await factsOf(ctx, actor);
  return facts && lackOf(need, { authAt: actor.authAt, acr: actor.acr ?? null, groupsReadAt: facts.groupsReadAt }, facts.now);
}

async function factsOf(ctx: Pick<Ctx, 'pool'>, actor: PersonActor): Promise<Facts | undefined> {
  const { rows } = await ctx.pool.query<Facts>({
    name: 'login-facts',
    text: 'SELECT now() AS now, groups_read_at AS "groupsReadAt" FROM person WHERE id = $1',
    values: [actor.id],
  });
  return rows[0];
}
