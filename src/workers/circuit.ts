/**
 * A target that does not answer. After a few tries in a row without an answer its lane is held: instead of every lease that
 * waits there one try goes out every few seconds, until the target answers; then the lane goes on, and everything that
 * waits is tried at once. All of it is this process' own and only saves time and calls: it decides nothing, and whatever it
 * forgets the sweep finds.
 */
import type { Ctx } from '../commands/context.ts';
import { retryNow } from '../commands/retry-now.ts';
import type { Queue } from '../queue/port.ts';
import { laneOf } from './relay-outbox.ts';
import { type Answer, type Desk, revokeDeadlineMs, runRevokeLease } from './revoke-lease.ts';

export interface LostTarget {
  readonly target: string;
  /** By this machine's clock: for people. */
  readonly since: Date;
  /** When it is tried next; undefined while it is being tried. */
  readonly nextTryAt: Date | undefined;
  readonly why: string;
}

export interface Circuits {
  /** What a try to end a lease met. */
  saw(answer: Answer | undefined): void;
  /** The targets whose lanes are held. */
  lost(): readonly LostTarget[];
  stop(): Promise<void>;
}

interface Parts {
  readonly ctx: Pick<Ctx, 'db' | 'log' | 'nudge' | 'observe' | 'targets'>;
  readonly desk: Desk;
  readonly queue: Pick<Queue, 'hold'>;
  /** Puts what is due on the queue, soon. */
  readonly wake: () => void;
}

interface Known {
  silent: number;
  lost: { readonly since: Date; nextTryAt: Date | undefined; why: string; pauses: number; timer: NodeJS.Timeout | undefined } | undefined;
}

/** Tries in a row without an answer, after which a target counts as lost. */
export const silentTries = 3;
/** From one probe to the next, in milliseconds: 1 s, 2, 4, then 8, each up to a quarter more or less. */
const pauseMs = (pauses: number): number => Math.min(8_000, 1_000 * 2 ** pauses) * (0.75 + Math.random() / 2);

/** All lanes open. */
export function openCircuits({ ctx, desk, queue, wake }: Parts): Circuits {
  const all = new Map<string, Known>();
  const inFlight = new Set<Promise<void>>();
  let stopped = false;
  const run = (work: Promise<void>): void => {
    inFlight.add(work);
    void work.finally(() => inFlight.delete(work));
  };

  const saw = (answer: Answer | undefined): void => {
    if (!answer || stopped) return;
    const { target, silent } = answer;
    const known = all.get(target) ?? { silent: 0, lost: undefined };
    all.set(target, known);
    known.silent = silent === undefined ? 0 : known.silent + 1;
    if (silent === undefined && known.lost) back(target, known);
    else if (silent !== undefined && known.lost) known.lost.why = silent;
    else if (silent !== undefined && known.silent >= silentTries) {
      known.lost = { since: new Date(), nextTryAt: undefined, why: silent, pauses: 0, timer: undefined };
      queue.hold(laneOf(target), true);
      ctx.log.error(
        { code: 'target_lost', target, why: silent },
        `${target} does not answer: ending access there waits, and one try goes out every few seconds`,
      );
      probeLater(target, known);
    }
  };

  const back = (target: string, known: Known): void => {
    clearTimeout(known.lost?.timer);
    const seconds = Math.round((Date.now() - (known.lost?.since.getTime() ?? 0)) / 1_000);
    known.lost = undefined;
    known.silent = 0;
    queue.hold(laneOf(target), false);
    ctx.log.info({ code: 'target_back', target, seconds }, `${target} answers again: everything that waits there is tried now`);
    const forward = retryNow(ctx, target).then(wake, (error: Error) =>
      ctx.log.warn({ code: 'retry_not_forward', target, why: error.message }, 'tries could not be brought forward; each is made when it is due'),
    );
    run(forward);
  };

  const probeLater = (target: string, known: Known): void => {
    if (!known.lost || stopped) return;
    const inMs = pauseMs(known.lost.pauses++);
    known.lost.nextTryAt = new Date(Date.now() + inMs);
    known.lost.timer = setTimeout(() => run(probe(target, known)), inMs);
  };

  const probe = async (target: string, known: Known): Promise<void> => {
    const { lost } = known;
    if (!lost || stopped) return;
    lost.nextTryAt = undefined;
    const answer = await tryOldest(ctx, desk, target).catch(() => 'unknown' as const);
    if (known.lost !== lost) return;
    // Nothing waits there any more: there is nothing to hold, and the next that comes will see.
    if (answer === undefined) back(target, known);
    else if (answer !== 'unknown') saw(answer);
    if (known.lost === lost) probeLater(target, known);
  };

  return {
    saw,
    lost: () => [...all].flatMap(([target, { lost }]) => (lost ? [{ target, since: lost.since, nextTryAt: lost.nextTryAt, why: lost.why }] : [])),
    async stop() {
      stopped = true;
      for (const { lost } of all.values()) clearTimeout(lost?.timer);
      const patience = new Promise<void>((resolve) => setTimeout(resolve, revokeDeadlineMs).unref());
      await Promise.race([Promise.allSettled(inFlight), patience]);
    },
  };
}

/** One try for the lease whose turn is first, be it in the future. Undefined when nothing is being ended there. */
async function tryOldest(ctx: Parts['ctx'], desk: Desk, target: string): Promise<Answer | 'unknown' | undefined> {
  const first = await ctx.db
    .selectFrom('lease')
    .select(['id', 'epoch'])
    .where('state', '=', 'revoking')
    .where('target', '=', target)
    .orderBy('next_try_at')
    .limit(1)
    .executeTakeFirst();
  if (!first) return undefined;
  // What hangs in spite of its signal must not keep the next probe from going out.
  const patience = new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), revokeDeadlineMs + 2_000).unref());
  return (await Promise.race([runRevokeLease(ctx, desk, first.id, first.epoch, AbortSignal.timeout(revokeDeadlineMs)), patience])) ?? 'unknown';
}
