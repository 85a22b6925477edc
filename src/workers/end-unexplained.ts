/**
 * Ends at a target what bears our marker and no row explains. It is witnessed before it is touched: once it is gone nothing
 * anywhere knows of it any more, and a process that died in between would leave no trace of what it did.
 */
import type { Ctx } from '../commands/context.ts';
import { recordAdopted, recordUnexplained } from '../commands/record-revocation.ts';
import { failpoint } from '../domain/failpoint.ts';
import type { LeaseRef, Target } from '../domain/provider.ts';

/** What this process has witnessed and could not end yet: it is tried at every comparison, and told once. */
const witnessed = new WeakMap<Target, Set<string>>();

/** Throws what the target throws. An object that is gone by now, by its own revocation or by another process, is not witnessed. */
export async function endUnexplained(ctx: Pick<Ctx, 'db' | 'log' | 'nudge'>, target: Target, ref: LeaseRef, signal: AbortSignal): Promise<void> {
  const names = witnessed.get(target) ?? new Set();
  witnessed.set(target, names);
  if ((await target.inspect(ref, signal)).state === 'present' && !names.has(ref.externalName)) {
    await recordUnexplained(ctx, target.name, ref.externalName, ref.leaseId);
    names.add(ref.externalName);
  }
  const gone = await target.revoke(ref, signal);
  await failpoint('reconcile.revoked');
  names.delete(ref.externalName);
  if (gone.cutAt) await recordAdopted(ctx, target.name, ref.externalName, ref.leaseId, gone);
}
