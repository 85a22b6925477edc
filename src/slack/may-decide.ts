/** What Slack may do about a request, by the policy that it carries and the one that is loaded: the stricter wins. For showing; the command judges for itself. */
import type { Ctx } from '../commands/context.ts';

/** Whether a decision can be given in Slack at all; some then ask for a fresh login in between. */
export async function slackMayDecide({ db, policy }: Pick<Ctx, 'db' | 'policy'>, requestId: string): Promise<boolean> {
  const row = await db.selectFrom('request').select(['policy', 'entitlements']).where('id', '=', requestId).executeTakeFirst();
  if (!row) return false;
  const current = row.entitlements.flatMap((name) => policy.entitlements.get(name) ?? []);
  return [...row.policy.map(({ entitlement }) => entitlement), ...current].every(
    ({ slackDecision }) => slackDecision === 'allow' || slackDecision === 'allow-with-step-up',
  );
}
