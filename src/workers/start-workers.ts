/** Starts every duty of a worker: relay, sweeps, reconcile, seal. Each runs on, whatever the others do. */
import { sql } from 'kysely';
import { batchSize, type Sealer } from '../audit/seal.ts';
import type { Ctx } from '../commands/context.ts';
import type { Change } from '../db/announce.ts';
import type { Job, Queue } from '../queue/port.ts';
import { startDuty } from './duty.ts';
import { runGrantDue, sweepDueGrants, sweepStartsAndLapses } from './expire-grants.ts';
import { type NotifyParts, notifier } from './notify.ts';
import type { QueueMaker } from './open-queue.ts';
import { reconcileLeases } from './reconcile-leases.ts';
import { relayOutbox } from './relay-outbox.ts';
import { revokeDeadlineMs, runRevokeLease, sweepRevocations } from './revoke-lease.ts';

export interface Workers {
  readonly queue: Queue;
  /** Something was committed. */
  nudge(change?: Change): void;
  /** When each duty last ended well; before that, when this process began. */
  lastOks(): Record<string, Date>;
  /** Names of duties that have not ended well for a minute. */
  late(): string[];
  /** What the channels that do not work last said. */
  tellingFails(): string[];
  /** The difference to Postgres' clock, in milliseconds. */
  clockOffsetMs(): number;
  stop(): Promise<void>;
}

export const sweepEveryMs = 2_000;
const reconcileEveryMs = 30_000;

/**
 * Postgres' time, carried on between two readings by this machine's steady clock: its wall clock, which may be wrong or
 * be set while we run, has no part in when a job is due.
 */
function postgresClock({ db }: Pick<Ctx, 'db'>): { now(): number; read(): Promise<void>; known(): Promise<void> } {
  let ahead: number | undefined;
  const read = async (): Promise<void> => {
    const before = performance.now();
    const { rows } = await sql<{ now: Date }>`SELECT clock_timestamp() AS now`.execute(db);
    if (rows[0]) ahead = rows[0].now.getTime() - (before + performance.now()) / 2;
  };
  return {
    now: () => (ahead === undefined ? Date.now() : performance.now() + ahead),
    read,
    known: async () => (ahead === undefined ? read() : undefined),
  };
}

/** Starts the duties and the queue of this process. `stop` lets what runs come to its end. */
export function startWorkers(ctx: Ctx, sealer: Sealer, tell: NotifyParts, makeQueue: QueueMaker): Workers {
  const started = Date.now();
  const clock = postgresClock(ctx);
  const queue = makeQueue({
    lanes: (lane) => (lane === 'expiry' ? { concurrency: 4, deadlineMs: 15_000 } : { concurrency: 4, deadlineMs: revokeDeadlineMs }),
    now: clock.now,
    onFailure: (job, error) =>
      ctx.log.warn({ code: 'job_failed', job: job.id, why: (error as Error).message }, 'a job failed; the sweep will find its work again'),
  });
  queue.start((job: Job, signal) => (job.kind === 'grant-due' ? runGrantDue(ctx, job.subject) : runRevokeLease(ctx, job.subject, job.epoch, signal)));

  const duty = (name: string, everyMs: number, work: () => Promise<void>) =>
    startDuty(ctx.log, name, everyMs, work, (seconds, ok) => ctx.observe?.({ what: 'duty', duty: name, seconds, ok }));
  const relay = duty('relay-outbox', 1_000, async () => {
    await clock.known();
    await relayOutbox(ctx.db, queue);
  });
  const sweep = duty('expire-grants', sweepEveryMs, async () => {
    await clock.read();
    await sweepDueGrants(ctx, queue);
    await sweepRevocations(ctx, queue);
    await sweepStartsAndLapses(ctx);
  });
  const reconcile = duty('reconcile-leases', reconcileEveryMs, () => reconcileLeases(ctx));
  const seal = duty('seal-audit', 500, async () => {
    // One checkpoint for all that has gathered; another at once only when there was more than fits in one.
    while (((await sealer.sealOnce())?.sealed ?? 0) >= batchSize);
  });
  const telling = notifier(ctx, tell);
  const notify = duty('notify', 1_000, telling.run);
  const duties = { 'relay-outbox': relay, 'expire-grants': sweep, 'reconcile-leases': reconcile, 'seal-audit': seal, notify };
  return {
    queue,
    nudge(change) {
      if (change?.outbox !== false) relay.nudge();
      if (!change?.onlyTold) notify.nudge();
    },
    tellingFails: () => telling.lanes.flatMap((lane) => lane.trouble() ?? []),
    lastOks: () => Object.fromEntries(Object.entries(duties).map(([name, one]) => [name, one.lastOk() ?? new Date(started)])),
    late: () => Object.entries(duties).flatMap(([name, one]) => ((one.lastOk()?.getTime() ?? started) < Date.now() - 90_000 ? [name] : [])),
    clockOffsetMs: () => clock.now() - Date.now(),
    async stop() {
      await Promise.all([relay.stop(), sweep.stop(), reconcile.stop(), notify.stop()]);
      await Promise.all([queue.stop(20_000), telling.stop()]);
      await seal.stop();
    },
  };
}
