/** What became of a revocation at the target: gone as read back, or failed and to be tried again, for ever. */
import { type Move, moveAll } from '../db/stores/move.ts';
import { type GrantRow, type LeaseRow, lockGrant, lockGrants } from '../db/stores/open-leases.ts';
import { leaseMachine, nextTryInSeconds, transition } from '../domain/lifecycle.ts';
import type { Gone } from '../domain/provider.ts';
import { issueDeadlineMs } from './claim-lease.ts';
import { commit, type Tx } from './commit.ts';
import type { Ctx } from './context.ts';
import { aboutLease, endLease, openLeasesOf, settleGrants } from './end-lease.ts';
import type { Observed } from './observed.ts';

type Small = Pick<Ctx, 'db' | 'log' | 'nudge' | 'observe'>;
const actor = { system: 'revoke-lease' } as const;

type Cut = { readonly at: Date; readonly sessionsCut: number };
export type Revocation =
  | {
      readonly gone: Gone;
      /** Not after the target was asked, by PostgreSQL's clock: what it said is of no earlier moment. */
      readonly askedAt: Date;
    }
  | {
      /** Access is cut, and what is left is for the next try, which takes its turn at once. */
      readonly cut: Cut;
    }
  | {
      readonly failed: {
        readonly message: string;
        readonly code: string;
        readonly cut: Cut | undefined;
        readonly retryAt?: Date | undefined;
        /** Done, and not proven yet. */
        readonly pending?: boolean;
      };
    };

/** What a try to end a lease gave, made for the lease as it was at this epoch. */
export interface Tried {
  readonly leaseId: string;
  readonly epoch: number;
  readonly result: Revocation;
}

/**
 * Writes each result if its lease still is `revoking` at that epoch; a late or repeated result changes nothing.
 * A lease that was never revealed is believed gone only when the target was asked after its claim could make anything.
 */
export async function recordRevocations(ctx: Small, tries: readonly Tried[]): Promise<void> {
  const seen: Observed[] = [];
  await commit(ctx, actor, async (tx) => {
    // Run again after a deadlock, it begins anew.
    seen.length = 0;
    const leaseIds = tries.map(({ leaseId }) => leaseId);
    const of = await tx.sql.selectFrom('lease').select('grant_id').where('id', 'in', leaseIds).execute();
    if (of.length === 0) return;
    const grants = new Map((await lockGrants(tx.sql, [...new Set(of.map((lease) => lease.grant_id))])).map((grant) => [grant.id, grant]));
    const open = await openLeasesOf(tx, [...grants.values()]);
    const left = new Map([...open.values()].flat().map((lease) => [lease.id, lease]));
    const moves: Move<'lease'>[] = [];
    for (const { leaseId, epoch, result } of tries) {
      const lease = left.get(leaseId);
      const grant = lease && grants.get(lease.grant_id);
      if (!grant || !lease || lease.state !== 'revoking' || lease.epoch !== epoch) continue;
      left.delete(leaseId);
      moves.push(judge(tx, grant, lease, result, seen));
    }
    await moveAll(tx.sql, 'lease', moves);
    const gone = new Set(moves.flatMap(({ row, to }) => (to === 'revoked' ? [row.id] : [])));
    const touched = [...grants.values()].filter(({ id }) => open.get(id)?.some((lease) => gone.has(lease.id)));
    await settleGrants(tx, touched, new Map([...open].map(([id, leases]) => [id, leases.filter((lease) => !gone.has(lease.id))])));
  });
  for (const one of seen) ctx.observe?.(one);
}

/** Where the lease goes with this result; what is to be witnessed of it is said, and when it is not gone the next try is sent. */
function judge(tx: Tx, grant: GrantRow, lease: LeaseRow, result: Revocation, seen: Observed[]): Move<'lease'> {
  const about = aboutLease(lease, grant);
  const cut = lease.cut_at ? undefined : cutIn(result, tx.now);
  if (cut) {
    tx.witness({ ...about, type: 'lease.cut', data: { cutAt: cut.at.toISOString(), sessionsCut: cut.sessionsCut } });
    seen.push({ what: 'cut', target: lease.target, seconds: (cut.at.getTime() - dueOf(lease, grant).getTime()) / 1_000 });
  }
  const cutAt = cut && { cut_at: cut.at };
  const settlesAt = new Date(lease.created_at.getTime() + issueDeadlineMs + 1_000);
  const outcome = transition(leaseMachine, lease.state, 'gone', {}, tx.now);
  if ('gone' in result && 'to' in outcome && (lease.revealed_at || result.askedAt >= settlesAt)) {
    tx.witness({ ...about, type: outcome.auditEvent, data: { reason: lease.end_reason, tries: lease.tries + 1, notes: [...result.gone.notes] } });
    return { row: lease, to: outcome.to, set: { ...cutAt, read_back_at: tx.now, next_try_at: null, last_error: null } };
  }
  const failed = 'failed' in result ? result.failed : undefined;
  const tries = lease.tries + ('cut' in result ? 0 : 1);
  const nextTryAt = failed ? nextTry(tx.now, tries, failed.retryAt) : 'gone' in result ? settlesAt : tx.now;
  if (failed && !failed.pending) {
    tx.witness({ ...about, type: 'lease.revocation-failed', data: { code: failed.code, tries, nextTryAt: nextTryAt.toISOString() } });
    seen.push({ what: 'retry', target: lease.target, code: failed.code });
  }
  tx.send({ topic: 'revoke-lease', payload: { id: lease.id, epoch: lease.epoch + 1, dueAt: nextTryAt.toISOString(), target: lease.target } });
  const last_error = failed && !failed.pending ? failed.message.slice(0, 500) : null;
  return { row: lease, to: 'revoking', set: { ...cutAt, tries, next_try_at: nextTryAt, last_error } };
}

function cutIn(result: Revocation, now: Date): Cut | undefined {
  if ('gone' in result) return { at: result.gone.cutAt ?? now, sessionsCut: result.gone.sessionsCut };
  return 'cut' in result ? result.cut : result.failed.cut;
}

/** When it should have been over: at the end of the grant or its own, or when somebody ended it, whatever came first. */
const dueOf = (lease: { expires_at: Date; revoking_at: Date | null }, grant: { ends_at: Date }): Date =>
  new Date(Math.min(lease.expires_at.getTime(), grant.ends_at.getTime(), lease.revoking_at?.getTime() ?? Number.POSITIVE_INFINITY));

/** The usual pause, up to a quarter longer so that what failed together is not tried together; or when the target itself said. Never more than five minutes from now. */
const nextTry = (now: Date, tries: number, asked: Date | undefined): Date => {
  const usual = nextTryInSeconds(tries) * (1_000 + Math.random() * 250);
  const wished = asked ? asked.getTime() - now.getTime() : usual;
  return new Date(now.getTime() + Math.min(300_000, Math.max(1_000, wished)));
};

/** A lease is over at its own end, which may come before its grant's (an AWS session of an hour): it is ended like any other. */
export async function endOver(ctx: Small, leaseId: string): Promise<void> {
  await commit(ctx, { system: 'expire-grants' }, async (tx) => {
    const found = await tx.sql.selectFrom('lease').select('grant_id').where('id', '=', leaseId).executeTakeFirstOrThrow();
    const grant = await lockGrant(tx.sql, found.grant_id);
    const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', leaseId).forUpdate().executeTakeFirstOrThrow();
    if (grant && lease.state === 'live' && lease.expires_at <= tx.now) await endLease(tx, lease, grant, 'expired');
  });
}

/** A claim that never finished, found after a crash: its lease is ended like any other. */
export async function endUnfinished(ctx: Small, leaseId: string): Promise<void> {
  await commit(ctx, { system: 'reconcile-leases' }, async (tx) => {
    const found = await tx.sql.selectFrom('lease').select('grant_id').where('id', '=', leaseId).executeTakeFirstOrThrow();
    const grant = await lockGrant(tx.sql, found.grant_id);
    const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', leaseId).forUpdate().executeTakeFirstOrThrow();
    if (grant && lease.state === 'issuing') await endLease(tx, lease, grant, 'unfinished');
  });
}

/** A live lease whose object is gone before its time: somebody else removed it. It is witnessed, and ended like any other. */
export async function endVanished(ctx: Small, leaseId: string): Promise<void> {
  await commit(ctx, { system: 'reconcile-leases' }, async (tx) => {
    const found = await tx.sql.selectFrom('lease').select('grant_id').where('id', '=', leaseId).executeTakeFirstOrThrow();
    const grant = await lockGrant(tx.sql, found.grant_id);
    const lease = await tx.sql.selectFrom('lease').selectAll().where('id', '=', leaseId).forUpdate().executeTakeFirstOrThrow();
    if (!grant || lease.state !== 'live') return;
    tx.witness({ ...aboutLease(lease, grant), type: 'lease.vanished', data: { handle: lease.handle } });
    await endLease(tx, lease, grant, 'vanished');
  });
}

/** An object with our marker that no open lease explains is about to be ended at its target. */
export async function recordUnexplained(ctx: Small, target: string, externalName: string, leaseId: string): Promise<void> {
  await commit(ctx, { system: 'reconcile-leases' }, async (tx) => tx.witness({ type: 'lease.unexplained', lease: leaseId, data: { target, externalName } }));
}

/** An object with our marker that no open lease explained was ended at its target. */
export async function recordAdopted(ctx: Small, target: string, externalName: string, leaseId: string, gone: Gone): Promise<void> {
  await commit(ctx, { system: 'reconcile-leases' }, async (tx) =>
    tx.witness({ type: 'lease.adopted', lease: leaseId, data: { target, externalName, sessionsCut: gone.sessionsCut } }),
  );
}
