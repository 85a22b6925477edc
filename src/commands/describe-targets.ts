/** What entitlements open at their targets, read there before a request is written, so that an approver sees the target's own terms. */
import type { Entitlement, PolicySnapshot } from '../domain/entitlement.ts';
import type { Description } from '../domain/provider.ts';
import type { Ctx } from './context.ts';

const deadlineMs = 2_000;
const keptMs = 60_000;
const kept = new WeakMap<Entitlement, { until: number; description: Description }>();

/** Reads all at once, each within 2 s; what could not be read is said as such and stops nobody. Answers are kept for a minute. */
export async function describeTargets(ctx: Pick<Ctx, 'targets' | 'log'>, entitlements: readonly Entitlement[]): Promise<PolicySnapshot[]> {
  return Promise.all(
    entitlements.map(async (entitlement): Promise<PolicySnapshot> => {
      const known = kept.get(entitlement);
      if (known && known.until > performance.now()) return { entitlement, described: known.description };
      const target = ctx.targets.get(entitlement.target);
      if (!target) return { entitlement, described: { unreadable: `the target ${entitlement.target} is not loaded` } };
      try {
        const description = await target.describe(entitlement.grant, AbortSignal.timeout(deadlineMs));
        kept.set(entitlement, { until: performance.now() + keptMs, description });
        return { entitlement, described: description };
      } catch (error) {
        ctx.log.warn(
          { code: 'describe_failed', target: entitlement.target, entitlement: entitlement.name, why: (error as Error).message },
          'what the entitlement opens could not be read',
        );
        return { entitlement, described: { unreadable: (error as Error).message } };
      }
    }),
  );
}
