/** Ends a lease at its target and writes down what the target says. It reads Postgres first, so a job that is late, doubled or forged ends nothing that should live. */
import { sql } from 'kysely';
import type { Ctx } from '../commands/context.ts';
import { type Revocation, recordRevocations, type Tried } from '../commands/record-revocation.ts';
import type { Db } from '../db/pool.ts';
import { isRefusal } from '../domain/errors.ts';
import { failpoint } from '../domain/failpoint.ts';
import { type LeaseRef, ProviderError, type Target } from '../domain/provider.ts';
import { eachOf, together } from '../domain/together.ts';
import { addAll } from '../queue/add-all.ts';
import type { Queue } from '../queue/port.ts';
import type { Sweep } from './expire-grants.ts';
import { jobOf, nearMs } from './relay-outbox.ts';

/** A target has this long for one try. */
export const revokeDeadlineMs = 20_000;
/** A target where all places were taken counts as full for so long: between two jobs of a lane there is a gap. */
const fullForMs = 300;
type Small = Pick<Ctx, 'db' | 'log' | 'nudge' | 'targets'>;

/** What a try met at its target: an answer, good or bad, or silence, and then in which words. */
export interface Answer {
  readonly target: string;
  readonly silent: string | undefined;
}

/** Where leases to be ended are read, and where what came of it is written down. */
export interface Desk {
  /** The lease as Postgres has it now, and its time. */
  read(leaseId: string): Promise<Lease | undefined>;
  /** Does the work as one of those at this target; it is told whether so many run there, or did a moment ago, that others wait for a place. */
  among<T>(target: string, work: (othersWait: boolean) => Promise<T>): Promise<T>;
  record(tried: Tried): Promise<void>;
}
type Lease = Awaited<ReturnType<typeof readLeases>>[number];

const readLeases = (db: Db, leaseIds: readonly string[]) =>
  db
    .selectFrom('lease')
    .select(['id', 'target', 'state', 'epoch', 'external_name', 'handle', 'target_grant', 'expires_at', 'cut_at', sql<Date>`now()`.as('now')])
    .where('id', 'in', leaseIds)
    .execute();

/**
 * Many leases that end at the same time are read together and recorded together; one alone is not kept waiting. `places` says how many
 * a worker ends at a target at once.
 */
export function openDesk(ctx: Small, places: (target: string) => number = () => Number.POSITIVE_INFINITY): Desk {
  const at = new Map<string, { running: number; fullAt: number }>();
  const sharing = { most: 100, atOnce: 2 };
  return {
    read: together(sharing, (leaseIds: readonly string[]) =>
      eachOf(leaseIds, async (ids) => {
        const found = new Map((await readLeases(ctx.db, ids)).map((lease) => [lease.id, lease]));
        return ids.map((id) => found.get(id));
      }),
    ),
    async among(target, work) {
      const here = at.get(target) ?? { running: 0, fullAt: Number.NEGATIVE_INFINITY };
      at.set(target, here);
      here.running++;
      if (here.running >= places(target)) here.fullAt = performance.now();
      try {
        return await work(performance.now() - here.fullAt < fullForMs);
      } finally {
        here.running--;
      }
    },
    record: together(sharing, (all: readonly Tried[]) =>
      eachOf(all, async (tries) => {
        await recordRevocations(ctx, tries);
        return tries.map(() => undefined);
      }),
    ),
  };
}

/**
 * One try to end a lease at its target; what came of it is recorded, success or not. Does nothing when the epoch has moved on.
 * Returns what it met; undefined when the target was not asked.
 */
export async function runRevokeLease(ctx: Small, desk: Desk, leaseId: string, epoch: number, signal: AbortSignal): Promise<Answer | undefined> {
  const lease = await desk.read(leaseId);
  if (!lease || lease.state !== 'revoking' || lease.epoch !== epoch) return undefined;
  const target = ctx.targets.get(lease.target);
  if (!target) {
    const message = `The target ${lease.target} is not in the config, so its lease cannot be ended. Put the target back; the entitlement may stay out.`;
    await desk.record({ leaseId, epoch, result: { failed: { message, code: 'target_unreachable', cut: undefined } } });
    return undefined;
  }
  const ref = { leaseId: lease.id, externalName: lease.external_name, handle: lease.handle, grant: lease.target_grant, endsAt: lease.expires_at };
  // While others wait for a place, access is cut for all of them before anything is tidied up.
  const result = await desk.among(target.name, (othersWait) => tryOnce(ctx, target, ref, { askedAt: lease.now, cutOnly: othersWait && !lease.cut_at }, signal));
  await desk.record({ leaseId, epoch, result });
  await failpoint('revoke.recorded');
  return { target: target.name, silent: silenceIn(result) };
}

/** Why the target counts as not answering; undefined when it did answer, be it with an error. */
function silenceIn(result: Revocation): string | undefined {
  if (!('failed' in result)) return undefined;
  const { code, message, cut, pending } = result.failed;
  return (code === 'target_unreachable' || code === 'target_timeout') && !cut && !pending ? message : undefined;
}

/** What the call gives, or `target_timeout` soon after its signal: one that does not heed it must not go round unseen. */
async function heeding<T>(target: Target, signal: AbortSignal, call: Promise<T>): Promise<T> {
  let patience: NodeJS.Timeout | undefined;
  let give = (): void => undefined;
  const late = new Promise<never>((_, reject) => {
    give = () => {
      patience = setTimeout(() => reject(new ProviderError('target_timeout', `${target.name} did not answer in time.`)), 500);
    };
    if (signal.aborted) give();
    else signal.addEventListener('abort', give, { once: true });
  });
  try {
    return await Promise.race([call, late]);
  } finally {
    signal.removeEventListener('abort', give);
    clearTimeout(patience);
  }
}

/** Whatever the target's code throws is a failed try that is written down: one that nobody foresaw must not go round unseen. */
async function tryOnce(ctx: Small, target: Target, ref: LeaseRef, how: { askedAt: Date; cutOnly: boolean }, signal: AbortSignal): Promise<Revocation> {
  try {
    await failpoint('revoke.asked');
    const cut = how.cutOnly && target.cut ? await heeding(target, signal, target.cut(ref, signal)) : null;
    if (cut) return { cut };
    const gone = await heeding(target, signal, target.revoke(ref, signal));
    await failpoint('revoke.gone');
    return { gone, askedAt: how.askedAt };
  } catch (error) {
    const about = { code: 'revocation_failed', lease: ref.leaseId, target: target.name, why: (error as Error).message };
    if (isRefusal(error)) {
      if (error instanceof ProviderError && error.pending) ctx.log.info(about, 'the lease is being ended; the target needs time until that is proven');
      else ctx.log.warn(about, 'ending a lease failed; it will be tried again');
      return {
        failed: {
          message: error.message,
          code: error.code,
          cut: error instanceof ProviderError ? error.cut : undefined,
          retryAt: error instanceof ProviderError ? error.retryAt : undefined,
          pending: error instanceof ProviderError && error.pending,
        },
      };
    }
    ctx.log.error(
      { ...about, stack: error instanceof Error ? error.stack : undefined },
      'ending a lease failed in a way that was not foreseen; it will be tried again',
    );
    const message = `${target.name}: ending the login failed in a way that was not foreseen. The log of the server says more.`;
    return { failed: { message, code: 'target_failed', cut: undefined } };
  }
}

/**
 * Puts every lease whose next try is near on the queue: the certainty behind the outbox' promptness. Those at lost targets
 * wait until these answer, and take no place from others.
 */
export async function sweepRevocations(
  ctx: Pick<Ctx, 'db'>,
  queue: Queue,
  lost: readonly string[] = [],
  { overdueSeconds, goOn = () => true }: Sweep = {},
): Promise<void> {
  let due = ctx.db
    .selectFrom('lease')
    .select(['id', 'epoch', 'target', 'next_try_at'])
    .where('state', '=', 'revoking')
    .where('next_try_at', '<', sql<Date>`now() + ${overdueSeconds === undefined ? nearMs / 1_000 : -overdueSeconds} * interval '1 second'`)
    .orderBy('next_try_at')
    .limit(20_000);
  if (lost.length > 0) due = due.where('target', 'not in', lost);
  const jobs = (await due.execute()).map((row) =>
    jobOf('revoke-lease', { id: row.id, epoch: row.epoch, target: row.target, dueAt: (row.next_try_at ?? new Date(0)).toISOString() }),
  );
  await addAll(queue, jobs, goOn);
}
